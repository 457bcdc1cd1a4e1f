"""What a study's trunks give to applications: figures are of the cell's own parameters, and are asked once."""

import dataclasses
import json

import pytest
from small_trunk import DATA, TRUNK

from plum_jax.jobs import trunk_gains
from plum_jax.ranking.labels import Label
from plum_jax.studies.cell import run_cell
from plum_jax.studies.grid import Horizons
from plum_jax.studies.places import StudyError
from plum_jax.studies.rules import PowerRule, Size
from plum_jax.studies.study import Study
from plum_jax.systems.trunk.on_top import TrunkRanker
from plum_jax.systems.trunk.scaling import ScaledTrunk

LIKED = Label("rating", 4.0)
RANKER = TrunkRanker(TRUNK, training=dataclasses.replace(TRUNK.training, steps=3), batch_size=8, mlp_dims=(8,))
STATED = Study(
    name="trunk",
    system=ScaledTrunk(DATA, TRUNK, ks=(5,)),
    sizes=[Size("small", TRUNK.network.transformer)],
    grid=Horizons(tokens=(12_000, 24_000)),
    learning_rate=PowerRule(1e-2),
    batch_size=PowerRule(8),
    held_out=(),
)
SHORT, LONG = "t00-small-s0", "t01-small-s0"


def ask(directory, study=STATED):
    trunk_gains.gains(str(directory), study, RANKER, LIKED, behind=(0, 1), days=(), k=5)
    rows = (directory / "gains" / "results.jsonl").read_text().splitlines()
    return {row["name"]: row for row in map(json.loads, rows)}


@pytest.mark.slow
def test_a_cell_s_gains_stand_beside_its_loss_and_are_asked_once(tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="none of the 2 cells of study trunk in .* is finished: run them first"):
        ask(tmp_path)
    record = run_cell(STATED, SHORT, tmp_path)
    assert record["tokens"] == pytest.approx(12_000, rel=0.02) and record["train_loss"] > 0
    rows = ask(tmp_path)
    assert rows.keys() == {"popularity", SHORT}
    row = rows[SHORT]
    assert row["loss"] == record["loss"] and row["users_0_behind"] == record["users"]
    assert row["recall@5_0_behind"] == pytest.approx(record["recall@5"])  # of the same parameters, read from files
    assert {"auc", "scratch_auc", "recall@5_unseen_1_behind"} <= row.keys()
    run_cell(STATED, LONG, tmp_path)
    asked = []
    monkeypatch.setattr(
        trunk_gains.judge,
        "judged",
        lambda s, label, name, r, judged=trunk_gains.judge.judged: (asked.append(name), judged(s, label, name, r))[1],
    )
    again = ask(tmp_path)
    assert asked == [LONG, "scratch-small-s0"] and again[SHORT]["auc"] == row["auc"]
    assert again[LONG]["scratch_auc"] == row["scratch_auc"] and again[LONG]["auc"] != row["auc"]


def test_a_study_of_another_model_is_refused(tmp_path):
    class Other:
        pass

    with pytest.raises(StudyError, match="study trunk scales Other, expected ScaledTrunk"):
        ask(tmp_path, dataclasses.replace(STATED, system=Other()))
