"""The job on payments: by the public command on somebody's table; a stage that was killed goes on as if it was not."""

import dataclasses
import json

import polars as pl
import pytest
from small_payments import NETWORK, PAYMENTS, SIMULATOR, SPLIT, TRAINING, TRUNK

from plum_jax.feeds.item_columns import ItemColumns
from plum_jax.jobs.payments import detect_frauds
from plum_jax.payments import vectors
from plum_jax.payments.best import BestDetector
from plum_jax.payments.boosting import AmountRule, Boosting
from plum_jax.payments.classifier import TrunkDetector
from plum_jax.payments.events import PaymentError
from plum_jax.stages import Data

SIZES = {
    "PAYMENTS_WIDTH": 16,
    "PAYMENTS_LAYERS": 1,
    "PAYMENTS_HEADS": 1,
    "PAYMENTS_WINDOW": 8,
    "PAYMENTS_ROW_LENGTH": 16,
    "PAYMENTS_BATCH_SIZE": 4,
    "PRETRAIN_EPOCHS": None,
    "PRETRAIN_STEPS": 4,
    "DETECT_EPOCHS": None,
    "DETECT_STEPS": 4,
    "DETECT_LEAST_STEPS": 1,
    "DETECT_EVALUATION_PERIOD": 2,
    "DELAY_DAYS": 2,
    "WARM_UP_DAYS": 2,
    "boosting.Boosting.iterations": 3,
    "splits.GappedTime.train_days": 20,
    "splits.GappedTime.gap_days": 2,
    "splits.GappedTime.validation_days": 6,
    "splits.GappedTime.test_days": 10,
}
THREE = (
    "{'rule': @boosting.AmountRule(), 'boosting': @boosting.Boosting(), "
    "'frozen': @cards/frozen/classifier.TrunkDetector()}"
)
DATA = Data(SIMULATOR, SPLIT)
TUNED = TrunkDetector(
    trunks={"cards": TRUNK},
    network=NETWORK,
    training=dataclasses.replace(TRAINING, evaluation_period=3, select_by="validation/average_precision"),
    batch_size=8,
    row_length=16,
)
WITH_VECTORS = Boosting(iterations=2, trunks={"cards": TRUNK})
DETECTORS = {"boosting": WITH_VECTORS, "frozen": TUNED, "fine_tuned": dataclasses.replace(TUNED, start="fine_tuned")}


def rows_of(directory):
    return {row["name"]: row for row in map(json.loads, (directory / "results.jsonl").read_text().splitlines())}


def test_the_command_compares_detectors_on_a_table(plum, tmp_path):
    events = SIMULATOR.read().events
    table = events.select(
        time=pl.from_epoch("time"),
        customer_id="user",
        terminal_id="item",
        amount="amount",
        fraud="fraud",
        scenario="attack_size",
    ).sort("time")
    table.write_parquet(tmp_path / "transactions.parquet")
    arguments = [
        "--gin_file=gin/run/payments.gin",
        "--gin_file=gin/corpus/handbook_payments.gin",
        f"--gin.DATA_DIR='{tmp_path}'",
        f"--gin.MODEL_DIR='{tmp_path}/run'",
        f"--gin.DETECTORS={THREE}",
        "--gin.BASE={'frozen': 'boosting'}",
        *(f"--gin.{name}={value}" for name, value in SIZES.items()),
    ]
    done = plum.run(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(tmp_path / "run")
    assert list(rows) == ["rule", "boosting", "frozen"]
    assert rows["frozen"]["base"] == "boosting" and "average_precision_difference_low" in rows["frozen"]
    test = rows["boosting"]
    assert test["frauds"] == sum(
        test[f"frauds_kind{size}"] for size in SIMULATOR.attack_sizes if f"frauds_kind{size}" in test
    )
    assert all(row["average_precision_low"] <= row["average_precision"] for row in rows.values())
    for name in ("trunks/cards/params", "vectors/cards", "detectors/frozen/params", "detectors/boosting"):
        assert (tmp_path / "run" / name / "manifest.json").exists()
    wrong = plum.run([*arguments, "--gin.AMOUNT='price'"])
    assert wrong.returncode == 1 and "has no column 'price' (amount)" in wrong.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_in_every_stage_is_the_one_that_was_not(tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def run(name):
        detect_frauds(str(tmp_path / name), DATA, PAYMENTS, DETECTORS, {"fine_tuned": "frozen"}, (0.5,), draws=10)

    monkeypatch.setattr(vectors, "_SHARD", 16)
    run("whole")
    killed, done, completed, read = set(), [], ItemColumns._completed, vectors.read_sequences

    def kill(what):
        if what not in killed:
            killed.add(what)
            raise Killed

    def dying_feed(self, number, batch):
        if number == 5:  # of pre-training and of each classifier's training, which read other columns
            kill(frozenset(self.columns))
        return completed(self, number, batch)

    def dying_read(*arguments):
        if done:  # behind the first shard of vectors
            kill("vectors")
        done.append(1)
        return read(*arguments)

    monkeypatch.setattr(ItemColumns, "_completed", dying_feed)
    monkeypatch.setattr(vectors, "read_sequences", dying_read)
    for _ in range(4):
        with pytest.raises(Killed):
            run("killed")
    run("killed")
    assert len(killed) == 4
    for name in ("boosting_0.5", "frozen_0.5", "fine_tuned_0.5"):
        paths = [tmp_path / run_name / "evaluation" / f"{name}.events.parquet" for run_name in ("whole", "killed")]
        assert pl.read_parquet(paths[0]).equals(pl.read_parquet(paths[1]))
    before = rows_of(tmp_path / "killed")
    run("killed")
    assert rows_of(tmp_path / "killed") == before and before["fine_tuned_0.5"]["base"] == "frozen_0.5"
    assert before["frozen_0.5"]["label_share"] == 0.5


def test_the_best_detector_is_not_beaten_and_finds_larger_attacks_better(tmp_path):
    simulator = dataclasses.replace(SIMULATOR, num_cards=300, num_merchants=40)
    detectors = {"best": BestDetector(simulator), "boosting": Boosting(iterations=40), "rule": AmountRule()}
    detect_frauds(str(tmp_path), Data(simulator, SPLIT), PAYMENTS, detectors, {"boosting": "best"}, draws=50)
    rows = rows_of(tmp_path)
    best, boosting = rows["best"], rows["boosting"]
    assert best["average_precision"] > 0.95 > boosting["average_precision"] > 0.4 > rows["rule"]["average_precision"]
    assert boosting["average_precision_difference_high"] < 0
    found = [best[f"recall@fpr0.001_kind{size}"] for size in simulator.attack_sizes]
    assert found[0] < found[-1]
    with pytest.raises(PaymentError, match="known for payments of its own simulator alone"):
        detect_frauds(str(tmp_path / "other"), DATA, PAYMENTS, {"best": BestDetector(simulator)})


def test_what_cannot_be_compared_is_said(tmp_path):
    with pytest.raises(PaymentError, match="a detector and a share of labels at least: set DETECTORS and LABEL_SHARES"):
        detect_frauds(str(tmp_path), DATA, PAYMENTS, {})
    with pytest.raises(PaymentError, match="BASE names 'x', expected names among rule"):
        detect_frauds(str(tmp_path), DATA, PAYMENTS, {"rule": AmountRule()}, {"rule": "x"})
    with pytest.raises(ValueError, match="reads its trunk's own sequences: expected follow='user', got 'item'"):
        dataclasses.replace(TUNED, start="scratch", follow="item")
    with pytest.raises(ValueError, match="expected one trunk, or several for 'frozen'"):
        dataclasses.replace(TUNED, start="scratch", trunks={"a": TRUNK, "b": TRUNK})
