"""Logs that come split and have no text, through the command line."""

import json
import random

import numpy as np
import pytest
from own_csv_run import plum_arguments

from plum_jax.semantic_ids.table import SidTable

GIN = """\
from __gin__ import dynamic_registration
from plum_jax.corpus import splits
from plum_jax.corpus.sources import table
include 'gin/corpus/table.gin'
table.Table.name = 'log'
table.Table.time = 'day'
"""
COLUMN = "SPLIT = @splits.Given()\ntable.Table.events_path = '{d}/all.csv'\ntable.Table.fold = 'part'\n"
FILES = """\
SPLIT = @splits.Given()
table.Table.events_path = {{'train': '{d}/train.csv', 'validation': '{d}/validation.csv', 'test': '{d}/test.csv'}}
"""
ITEMS = """\
SPLIT = @splits.GivenItems()
splits.GivenItems.test = '{d}/new_items.txt'
table.Table.events_path = '{d}/all.csv'
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Ten users of ten days, the last two held out: the whole log and a file for each fold, and a list of new items."""
    directory = tmp_path_factory.mktemp("logs")
    rng = random.Random(0)
    folds = ["train"] * 8 + ["validation", "test"]
    rows = [(f"u{user}", f"tt{rng.randrange(10)}", day, folds[day]) for day in range(10) for user in range(10)]
    for name in ("all", *dict.fromkeys(folds)):
        lines = [",".join(map(str, row)) for row in rows if name in ("all", row[3])]
        (directory / f"{name}.csv").write_text("\n".join(["user_id,item_id,day,part", *lines]) + "\n")
    (directory / "new_items.txt").write_text("tt5\ntt7\n")
    return directory


def run(plum, logs, form, directory, **options):
    directory.mkdir()
    (directory / "own.gin").write_text(GIN + form.format(d=logs))
    done = plum.run(plum_arguments(directory, directory / "model", **options))
    assert done.returncode == 0, done.stderr[-3000:]
    return directory / "model", done.stdout


def test_a_log_that_is_split_by_files_and_has_no_text_goes_through(logs, tmp_path, plum):
    model_dir, printed = run(plum, logs, FILES, tmp_path / "files")
    assert printed.count("log: no text fields, so no block 'text'; items are described by 'co_watch'\n") == 1
    rows = {row["name"]: row for row in map(json.loads, (model_dir / "results.jsonl").read_text().splitlines())}
    assert list(rows) == ["popularity", "item_knn", "without_cpt", "with_cpt"]
    samples = json.loads((model_dir / "samples.json").read_text())
    held_out = dict(line.split(",")[:2] for line in (logs / "test.csv").read_text().splitlines()[1:])
    assert {sample["user_id"]: sample["target"] for sample in samples}.items() <= held_out.items()
    assert all(len(sample["history"]) == 9 and sample["recommended"] for sample in samples)
    assert "tt" in (model_dir / "report.html").read_text()
    column, _ = run(plum, logs, COLUMN, tmp_path / "column", run="semantic_ids")
    assert SidTable.load(column / "sids").fingerprint == SidTable.load(model_dir / "sids").fingerprint


def test_items_of_a_list_are_new(logs, tmp_path, plum):
    model_dir, _ = run(plum, logs, ITEMS, tmp_path / "items", run="semantic_ids")
    item_ids = SidTable.load(model_dir / "sids").item_ids
    watched_together = np.load(model_dir / "features" / "co_watch" / "present.npy")
    assert sorted(item_ids) == [f"tt{item}" for item in range(10)], "new items have IDs too"
    assert sorted(item_ids[~watched_together]) == ["tt5", "tt7"]
