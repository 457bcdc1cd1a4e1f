"""The job that compares rankers: rows, files, differences, a kill in between, and the public command."""

import dataclasses
import json

import numpy as np
import planted_taste
import polars as pl
import pytest
from planted_taste import DATA, LABEL, ranker
from sklearn.metrics import log_loss, roc_auc_score

from plum_jax.corpus.splits import FOLDS
from plum_jax.jobs.rank import rank_events
from plum_jax.ranking import judge
from plum_jax.ranking.networks.din import Din
from plum_jax.ranking.networks.twin import Twin

RANKERS = {"din": ranker(Din(8)), "twin": ranker(Twin(top_k=3, heads=1, head_dim=4))}


@dataclasses.dataclass(frozen=True)
class ByHand:
    """A ranker from outside: it knows the popularity of an item in training, and nothing else."""

    bad: bool = False

    def fit(self, stages, label, name):
        likes = np.bincount(stages.split.training_events()["item"], minlength=stages.corpus.num_items)
        return Counted(stages.corpus.events["item"].to_numpy(), likes * (np.nan if self.bad else 1.0))


@dataclasses.dataclass(frozen=True)
class Counted:
    item: np.ndarray
    likes: np.ndarray
    fingerprint: str = "by hand"
    facts: dict = dataclasses.field(default_factory=dict)

    def scores(self, rows):
        return (self.likes[self.item[rows]] / 100).astype(np.float32)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rank")
    rank_events(str(directory), DATA, LABEL, {**RANKERS, "counts": ByHand()}, {"twin": "din", "din": "counts"}, seed=3)
    return directory


def rows_of(directory):
    return {row["name"]: row for row in map(json.loads, (directory / "results.jsonl").read_text().splitlines())}


def test_figures_are_those_of_the_events_that_are_kept(done):
    rows, split = rows_of(done), DATA.stages(done).split
    assert list(rows) == ["din", "twin", "counts"]
    for name, row in rows.items():
        frame = judge.read_events(done, name)
        assert row["seed"] == (3 if name == "counts" else 0) and row["data"] == "planted"
        for fold, prefix in (("test", ""), ("validation", "validation_")):
            some = frame.filter(pl.col("fold") == fold)
            label, logit = some["label"].to_numpy(), some["logit"].to_numpy().astype(np.float64)
            assert some["event"].to_list() == np.flatnonzero(split.fold == FOLDS[fold]).tolist()
            assert row[f"{prefix}auc"] == pytest.approx(roc_auc_score(label, logit))
            assert row[f"{prefix}log_loss"] == pytest.approx(log_loss(label, 1 / (1 + np.exp(-logit))))
            assert row[f"{prefix}gauc_users"] <= row[f"{prefix}users"] == 60
            assert row[f"{prefix}auc_se"] > 0 and row[f"{prefix}auc_delong_se"] > 0
        assert frame["user_id"][0].startswith("u") and frame["item_id"][0].startswith("i")


def test_differences_are_of_the_same_events(done):
    rows = rows_of(done)
    assert (rows["twin"]["base"], rows["din"]["base"]) == ("din", "counts") and "base" not in rows["counts"]
    for name, base in (("twin", "din"), ("din", "counts")):
        row = rows[name]
        for figure in ("auc", "gauc", "log_loss"):
            mean = row[f"{figure}_difference"]
            assert mean == pytest.approx(row[figure] - rows[base][figure], abs=1e-6)
            assert row[f"{figure}_difference_low"] <= mean <= row[f"{figure}_difference_high"]
            assert 0 < row[f"{figure}_difference_p"] <= 1
        assert row["auc_difference_delong_low"] < row["auc_difference"] < row["auc_difference_delong_high"]
    frames = [judge.read_events(done, name) for name in ("din", "twin")]
    with pytest.raises(ValueError, match="scored on the same events with the same labels, got .* judge both in one"):
        judge.differences(frames[0], frames[1][:-1])
    with pytest.raises(ValueError, match="there is no .*nobody.events.parquet: expected the scores of a ranker"):
        judge.read_events(done, "nobody")


def test_a_second_run_reads_what_is_there(done, capsys):
    before = rows_of(done)
    scored = (done / "evaluation" / "din.events.parquet").stat().st_mtime_ns
    rank_events(str(done), DATA, LABEL, {**RANKERS, "counts": ByHand()}, {"twin": "din", "din": "counts"}, seed=3)
    assert rows_of(done) == before
    assert (done / "evaluation" / "din.events.parquet").stat().st_mtime_ns == scored
    printed = capsys.readouterr().out
    assert "twin - din, 95% intervals over users" in printed and "60 events without a label" in printed


def test_a_killed_run_goes_on_as_the_one_that_was_not(tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    training = dataclasses.replace(
        planted_taste.TRAINING, checkpoint_period=10, evaluation_period=10, select_by="validation/auc"
    )
    rankers = {"din": dataclasses.replace(RANKERS["din"], training=training)}
    rank_events(str(tmp_path / "alone"), DATA, LABEL, rankers)
    from plum_jax.ranking import ranker as module

    whole, calls = module.curve, []

    def curve(*arguments):
        evaluate = whole(*arguments)

        def evaluate_or_die(params):
            calls.append(1)
            if len(calls) == 3:
                raise Killed
            return evaluate(params)

        return evaluate_or_die

    monkeypatch.setattr(module, "curve", curve)
    with pytest.raises(Killed):
        rank_events(str(tmp_path / "killed"), DATA, LABEL, rankers)
    rank_events(str(tmp_path / "killed"), DATA, LABEL, rankers)
    assert 3 < len(calls) < 8
    frames = [judge.read_events(tmp_path / name, "din") for name in ("alone", "killed")]
    assert frames[0].equals(frames[1])


def test_what_cannot_be_compared_is_said(tmp_path):
    with pytest.raises(ValueError, match="at least one ranker to judge, got none: set RANKERS"):
        rank_events(str(tmp_path), DATA, LABEL, {})
    with pytest.raises(ValueError, match="BASE names 'dien', expected names among din, twin"):
        rank_events(str(tmp_path), DATA, LABEL, RANKERS, {"din": "dien"})
    with pytest.raises(ValueError, match=r"expected \d+ finite scores of Counted, got shape .* with \d+ that are not"):
        rank_events(str(tmp_path), DATA, LABEL, {"counts": ByHand(bad=True)})


def test_the_command_ranks_the_events_of_a_csv(own_csv, plum, tmp_path):
    sizes = {"RANK_EPOCHS": 1, "RANK_BATCH_SIZE": 16, "LABEL_AT_LEAST": 3.0, "RANK_EVALUATION_PERIOD": 2}
    arguments = [
        "--gin_file=gin/run/rank.gin",
        f"--gin_file={own_csv / 'own.gin'}",
        f"--gin.MODEL_DIR='{tmp_path}'",
        "--gin.SPLIT=@splits.UserTime()",
        "--gin.RANKERS={'din': @din/ranker.BehaviourRanker()}",
        "--gin.BASE=None",
        *(f"--gin.{name}={value}" for name, value in sizes.items()),
    ]
    done = plum.run(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    row = rows_of(tmp_path)["din"]
    assert row["events"] == 10 and row["validation_events"] == 10
    assert row["gauc_users"] == 0 and "gauc" not in row  # one event of a user in each fold
    wrong = plum.run([*arguments, "--gin.LABEL='stars'"])
    assert wrong.returncode == 1 and "no column 'stars' of events to make labels of; it has rating" in wrong.stderr
