"""A search over settings: what is drawn, what a trial is, and that the test users are left alone."""

import dataclasses
import json

import numpy as np
import pytest

from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import LeaveOneOut, Split
from plum_jax.jobs.search import trials_table
from plum_jax.model.config import DecoderConfig
from plum_jax.stages import Data
from plum_jax.studies.places import StudyError
from plum_jax.studies.search import Search, with_settings
from plum_jax.systems.sasrec import SasRec
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.training_config import TrainingConfig

SMALL = DecoderConfig(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=32, scan_layers=False)
TRAINING = TrainingConfig(
    steps=20,
    optimizer=AdamW(schedule=WarmupCosine(peak=1e-2, warmup_steps=5)),
    checkpoint_period=20,
    evaluation_period=10,
    select_by="validation/recall@10",
    tensorboard=False,
)
SYSTEM = SasRec(SMALL, training=TRAINING, history_length=12, batch_size=8, row_length=24)
PEAK, DROPOUT = "training.optimizer.schedule.peak", "transformer.dropout_rate"
SPACE = {PEAK: (1e-5, 1e-2), DROPOUT: (0.0, 0.1)}
DATA = Data(
    source=Simulator(num_users=60, num_items=48, mean_history=9.0, branching=(2, 2)),
    splitter=LeaveOneOut(),
    feature_builders=(),
    quantizer=None,
)


def test_draws_are_combinations_and_more_of_them_begin_with_the_fewer():
    every = Search(SYSTEM, SPACE).drawn
    assert sorted(tuple(s.values()) for s in every) == [(1e-5, 0.0), (1e-5, 0.1), (1e-2, 0.0), (1e-2, 0.1)]
    assert [Search(SYSTEM, SPACE, trials=n).drawn for n in (1, 3)] == [every[:1], every[:3]]
    assert any(Search(SYSTEM, SPACE, seed=seed).drawn != every for seed in range(1, 5))


def test_a_setting_goes_where_its_path_leads():
    changed = with_settings(SYSTEM, {PEAK: 0.5, DROPOUT: 0.25})
    schedule = dataclasses.replace(TRAINING.optimizer.schedule, peak=0.5)
    optimizer = dataclasses.replace(TRAINING.optimizer, schedule=schedule)
    expected = dataclasses.replace(
        SYSTEM,
        transformer=dataclasses.replace(SMALL, dropout_rate=0.25),
        training=dataclasses.replace(TRAINING, optimizer=optimizer),
    )
    assert changed == expected


@pytest.mark.slow
def test_trials_are_trained_whole_and_judged_on_validation_users_alone(tmp_path, monkeypatch):
    stages = DATA.stages(tmp_path)
    evaluation = Split.evaluation

    def guarded(split, fold):
        assert fold != "test", "a search looked at the test users"
        return evaluation(split, fold)

    monkeypatch.setattr(Split, "evaluation", guarded)
    search = Search(SYSTEM, {PEAK: (1e-5, 1e-2)})
    rows = search.rows(stages, {"data": "simulated", "seed": 0})
    assert [row["settings"] for row in rows] == [{PEAK: 1e-2}, {PEAK: 1e-5}], "the higher rate learns more in 20 steps"
    for row in rows:
        log = [r for r in read_metrics(tmp_path / "systems" / row["name"]) if "validation/recall@10" in r]
        found = [r["validation/recall@10"] for r in log]
        assert (row["best"], row["best_step"]) == (max(found), log[int(np.argmax(found))]["step"])
        assert (row["trials"], row["places"]) == (2, 2) and row["validation_curve"]["step"] == [10, 20]
    # A wider search goes on from what is there.
    logs = {path: path.stat().st_mtime_ns for path in tmp_path.glob("systems/*/metrics.jsonl")}
    wider = Search(SYSTEM, {PEAK: (1e-5, 1e-2, 3e-2)}).rows(stages, {"data": "simulated", "seed": 0})
    assert len(wider) == 3 and {row["name"] for row in rows} < {row["name"] for row in wider}
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in logs.items())
    with pytest.raises(
        StudyError, match="does not say 'recall@7' of validation users while it trains; it says recall@5, "
    ):
        Search(SYSTEM, {PEAK: (1e-2,)}, by="recall@7").rows(stages, {})
    json.dumps(wider)
    table = trials_table(wider).splitlines()
    assert table[0] == "3 trials of 3, by recall@10 of the validation users" and len(table) == 5


def test_what_cannot_be_searched_is_said():
    for space, message in (
        ({}, "expected a SPACE of fields with one value each at least"),
        ({PEAK: ()}, "expected a SPACE of fields with one value each at least"),
        (
            {"training.rate": (1,)},
            r"SPACE names 'training.rate', but TrainingConfig has no field 'rate'; it has steps,",
        ),
        ({"batch_size.rows": (1,)}, r"'batch_size.rows', but int has no field 'rows'; it has none"),
    ):
        with pytest.raises(StudyError, match=message):
            Search(SYSTEM, space)
    with pytest.raises(StudyError, match="expected TRIALS of 1 to 4, the combinations of SPACE, got 5"):
        Search(SYSTEM, SPACE, trials=5)
