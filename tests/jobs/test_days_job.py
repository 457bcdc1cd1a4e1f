"""Days by the public command, on a hundred-row CSV of somebody's own: ten users who all come back every day."""

import dataclasses
import json
import pathlib
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import polars as pl
import pytest
from own_csv_run import plum_arguments, plum_command, user_environment

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.evaluation.files import read_evaluation
from plum_jax.feeds import token_records
from plum_jax.semantic_ids.table import KIND, SidTable
from plum_jax.training import metrics_log, saved_params

# Seven days of ten events after the base's thirty; six of them judged after an update, of which two are learnt here.
SIZES = {
    "SELECT_BY": "''",
    "EVALUATION_PERIOD": 0,
    "CHECKPOINT_PERIOD": 1,
    "BASE": 0.3,
    "DAYS": 3,
    "SPAN": 2.0,
    "PASSES": 1.0,
    "SCRATCH": "(2,)",
    "FEATURES": "[@features.TextEmbedding()]",
}
MORE = [f"--gin.{name}={value}" for name, value in SIZES.items()]


def rows_of(run: pathlib.Path) -> dict[str, dict]:
    rows = map(json.loads, (run / "results.jsonl").read_text().splitlines())
    return {row["name"]: row for row in rows}


@pytest.fixture(scope="module")
def run(own_csv, plum, tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("days") / "run"
    done = plum.run(plum_arguments(own_csv, directory, *MORE, run="days"))
    assert done.returncode == 0, done.stderr[-3000:]
    return directory


def test_a_row_for_each_day_and_way(run):
    rows = rows_of(run)
    assert list(rows) == ["never_0", "never_1", "daily_1", "never_2", "daily_2", "scratch_2"]
    for name, row in rows.items():
        arm, day = name.split("_")
        assert (row["arm"], row["day"], row["judged_day"]) == (arm, int(day), int(day) + 1)
        assert row["users"] == 10 and 0 <= row["recall@5_unseen"] <= 1
        targets = [row[f"{age}_targets"] for age in ("new", "young", "old", "cold")]
        assert sum(targets[:3]) > 0 and targets[3] >= targets[0]
        # Of an age that nobody took an item of, nothing is said.
        assert all(
            (f"{age}_recall@5" in row) == (count > 0) for age, count in zip(("new", "young"), targets, strict=False)
        )
        assert 5 / row["items"] <= row["chance@5"] <= 1
    assert [rows[f"{arm}_2"]["events"] for arm in ("daily", "never", "scratch")] == [20, 20, 70]
    daily, never, scratch = (rows[f"{arm}_2"] for arm in ("daily", "never", "scratch"))
    spent = [rows[name]["update_flops"] for name in ("never_0", "daily_1", "daily_2")]
    assert daily["train_flops"] == sum(spent) and never["train_flops"] == spent[0] and never["update_flops"] == 0
    assert scratch["train_flops"] == scratch["update_flops"] >= spent[2]
    less = daily["recall@5_unseen_less_never"]
    assert less == pytest.approx(daily["recall@5_unseen"] - never["recall@5_unseen"])


def test_an_update_reads_its_day_and_nothing_later(run):
    for day, until in (("1", 50), ("2", 70)):
        corpus = Corpus.load(run / "days" / day / "corpus")
        assert corpus.num_events == until + 20  # and the day that judges
        # One target an event of the day that is not its user's first: each is learnt once.
        tasks = token_records.read_tasks(run / "days" / day / "records" / "retrieval")
        assert sum(task.statistics.weighted_tokens for task in tasks) == 3 * 20  # three tokens of an ID


def test_old_ids_are_what_they_were(run):
    tables = [SidTable.load(run / "days" / str(day) / "sids") for day in range(3)]
    assert [table.num_items for table in tables] == sorted(table.num_items for table in tables)
    for old, new in zip(tables, tables[1:], strict=False):
        row = {item: number for number, item in enumerate(new.item_ids.tolist())}
        kept = new.codes[[row[item] for item in old.item_ids.tolist()]]
        np.testing.assert_array_equal(kept, old.codes)


def test_figures_by_age_are_counts_of_users_and_their_lists(run):
    row, per_user = read_evaluation(run / "days" / "2" / "evaluation" / "daily.json")
    for age in ("new", "young", "old", "cold"):
        targets, hits = per_user[f"{age}_targets"].sum(), per_user[f"{age}_hits"].sum()
        assert row[f"{age}_targets"] == targets
        if targets:
            assert row[f"{age}_recall@5"] == hits / targets
    firsts = (per_user["rank_unseen"] < 5).fill_null(False)
    assert row["recall@5_unseen"] == pytest.approx(firsts.mean())
    assert (
        per_user.select(pl.sum_horizontal(f"{age}_targets" for age in ("new", "young", "old"))).to_series().max() == 2
    )


def test_a_second_run_does_nothing_again(run, own_csv, plum):
    kept = [path for path in run.rglob("*") if path.is_file() and path.name in ("metrics.jsonl", "manifest.json")]
    kept += [*run.rglob("evaluation/*.json")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    rows = rows_of(run)
    again = plum.run(plum_arguments(own_csv, run, *MORE, run="days"))
    assert again.returncode == 0, again.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert rows_of(run) == rows


def test_a_killed_day_ends_like_an_uninterrupted_one(run, own_csv, tmp_path, plum):
    killed = tmp_path / "killed"
    shutil.copytree(run, killed, ignore=shutil.ignore_patterns("2", "scratch", "1", "results.jsonl"))
    training = killed / "days" / "1" / "train"
    process = subprocess.Popen(
        plum_command(own_csv, killed, *MORE, run="days"),
        env=user_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while not list(training.glob("*/checkpoints/[0-9]*")) and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (training / "retrieval" / "params").exists() and list(training.glob("*/checkpoints"))
    done = plum.run(plum_arguments(own_csv, killed, *MORE, run="days"))
    assert done.returncode == 0, done.stderr[-3000:]
    for place in ("days/1", "days/2", "scratch/2"):
        for phase in ("cpt", "retrieval"):
            a, b = (saved_params.load_params(path / place / "train" / phase / "params") for path in (killed, run))
            jax.tree.map(np.testing.assert_array_equal, a, b)
            logs = [metrics_log.read_metrics(path / place / "train" / phase) for path in (killed, run)]
            assert [[row.get("loss") for row in log] for log in logs][0] == [row.get("loss") for row in logs[1]]
    varying = ("wall_seconds", "train_seconds", "command")
    timeless = [
        {name: {k: v for k, v in row.items() if k not in varying} for name, row in rows_of(path).items()}
        for path in (killed, run)
    ]
    assert timeless[0] == timeless[1]


def test_a_day_without_events_is_one_error_before_anything_is_trained(own_csv, tmp_path, plum):
    done = plum.run(plum_arguments(own_csv, tmp_path / "run", *MORE, "--gin.DAYS=5", run="days"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "day 5 of 5 (2024-03-12T10:30:00 to 2024-03-14T10:30:00) has no event of corpus" in done.stderr
    assert not (tmp_path / "run" / "days").exists()


def test_a_day_more_goes_on_and_one_that_is_lost_is_made_again(run, own_csv, tmp_path, plum):
    longer = tmp_path / "longer"
    shutil.copytree(run, longer)
    shutil.rmtree(longer / "days" / "2")
    (longer / "days" / "1" / "evaluation" / "daily.json").unlink()
    done = plum.run(plum_arguments(own_csv, longer, *MORE, run="days"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert rows_of(longer)["daily_2"]["recall@5"] == rows_of(run)["daily_2"]["recall@5"]
    before = (longer / "days" / "2" / "train" / "cpt" / "metrics.jsonl").stat().st_mtime_ns
    done = plum.run(plum_arguments(own_csv, longer, *MORE, "--gin.DAYS=4", "--gin.SPAN=1.5", run="days"))
    assert done.returncode == 1 and "was trained" in done.stderr  # other days: nothing is made anew in silence
    assert (longer / "days" / "2" / "train" / "cpt" / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_table_that_changed_an_id_is_one_error_and_nothing_is_lost(run, own_csv, tmp_path, plum):
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    sids = changed / "days" / "1" / "sids"
    table, manifest = SidTable.load(sids), artifact.read_manifest(sids, KIND)
    first = table.item_ids.tolist().index(str(SidTable.load(changed / "days" / "0" / "sids").item_ids[0]))
    codes = table.codes.copy()
    codes[first, 0] = (codes[first, 0] + 1) % 4
    moved = dataclasses.replace(table, codes=codes)

    def write(aside) -> None:
        for file in sids.iterdir():
            if file.name != artifact.MANIFEST:
                shutil.copy(file, aside / file.name)
        moved.write_files(aside)

    made = {"config": manifest.config, "inputs": manifest.inputs}
    artifact.write_artifact(sids, kind=KIND, fingerprint=moved.fingerprint, write=write, **made)
    before = {path: path.read_bytes() for path in changed.rglob("params/*") if path.is_file()}
    done = plum.run(plum_arguments(own_csv, changed, *MORE, run="days"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "days/1/sids has other Semantic IDs for 1 of" in done.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_settings_that_cannot_be(own_csv, tmp_path, plum):
    for flag, message in (
        ("--gin.GAP=3", "expected a GAP from 0 on that leaves a day to judge"),
        ("--gin.SCRATCH=(7,)", "expected SCRATCH to name updates from 1 to 2, got 7"),
        ("--gin.EVALUATION_PERIOD=4", "days have no validation users"),
    ):
        done = plum.run(plum_arguments(own_csv, tmp_path / "run", *MORE, flag, run="days"))
        assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
