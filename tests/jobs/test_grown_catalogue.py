"""Films that came after the training: they get IDs, are recommended, and are learnt, and what was learnt stays true."""

import csv
import dataclasses
import json
import pathlib
import shutil

import polars as pl
import pytest
from miniature import write_new_items
from own_csv_run import GIN, write_own_csv

from plum_jax import artifact
from plum_jax.corpus.features import ItemFeatures
from plum_jax.semantic_ids.table import KIND, SidTable
from plum_jax.training.saved_params import load_params

NEW = ["new 0", "new 1", "new 2"]


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory) -> pathlib.Path:
    """A copy of the finished run."""
    directory = tmp_path_factory.mktemp("grown")
    shutil.copytree(finished[0], directory / "x", ignore=shutil.ignore_patterns("hugging_face", "serving"))
    return directory / "x"


@pytest.fixture(scope="module")
def extended(run, plum) -> pathlib.Path:
    """Its table with three films more, by the public commands."""
    files = run.parent / "new" / "new.parquet"
    write_new_items(files, ItemFeatures.load(run / "features"))
    for job in ("assign_new_items", "extend_catalogue"):
        done = plum.run([job, str(run), f"--gin.NEW_ITEMS='{files}'"], run.parent)
        assert done.returncode == 0, done.stderr[-2000:]
    return run / "new_items" / "sids"


def with_a_moved_item(extended: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
    """The table with another ID for one old item, whole and with its codec."""
    table = SidTable.load(extended)
    codes = table.codes.copy()
    codes[2] = codes[3]
    table = dataclasses.replace(table, codes=codes)

    def write(aside) -> None:
        for file in extended.iterdir():
            if file.name != artifact.MANIFEST:
                shutil.copy(file, aside / file.name)
        table.write_files(aside)

    artifact.write_artifact(directory, kind=KIND, fingerprint=table.fingerprint, config=None, inputs={}, write=write)
    return directory


def test_new_items_are_recommended_and_named_in_prompts(run, extended, plum):
    flags = [f"--gin.SID_TABLE='{extended}'", "--gin.ITEMS_PER_USER=10", "--gin.REMOVE_SEEN=False"]
    done = plum.run(["recommend", str(run), *flags], run.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the 9 items that the model knows have their IDs, 3 are new" in done.stdout
    lists = pl.read_parquet(run / "recommendations_extended" / "recommendations.parquet")
    assert set(lists["item_id"]) & set(NEW) and set(lists["item_id"]) <= set(SidTable.load(extended).item_ids.tolist())
    prompt = "The film {item:new 1} is {item:tt3}. Next is {sid}"
    done = plum.run(["generate", str(run), f"--gin.PROMPT='{prompt}'", flags[0], "--gin.BEAMS=13"], run.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (run / "generated.jsonl").read_text().splitlines()]
    assert set(NEW) <= {item for row in rows for ids in row["items"] for item in ids}


def test_a_table_that_changed_an_id_is_one_error_and_nothing_is_lost(run, extended, plum):
    moved = with_a_moved_item(extended, run.parent / "moved")
    before = (run / "recommendations_extended" / "recommendations.parquet").read_bytes()
    done = plum.run(["recommend", str(run), f"--gin.SID_TABLE='{moved}'"], run.parent)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{moved} has other Semantic IDs for 1 of 9 items that the model was trained with" in done.stderr
    assert (run / "recommendations_extended" / "recommendations.parquet").read_bytes() == before
    done = plum.run(["recommend", str(run), f"--gin.SID_TABLE='{extended}'", "--gin.SYSTEM='item_knn'"], run.parent)
    assert done.returncode == 1 and "system 'item_knn' has a row for each item, knows no others" in done.stderr


def log_prob_of_new(plum, run: pathlib.Path, *flags: str) -> float:
    """Mean log-probability of the new films after a short history."""
    prompt = "--gin.PROMPT='<history> {item:tt1} {item:tt2} {sid}'"
    done = plum.run(["generate", str(run), prompt, "--gin.BEAMS=12", "--gin.PHASE='retrieval'", *flags], run.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (run / "generated.jsonl").read_text().splitlines()]
    found = [
        row["log_prob"] for row in rows for item in row["items"][0] if item in NEW
    ]  # an ID may be an old film's too
    assert len(found) == len(NEW)
    return sum(found) / len(found)


@pytest.mark.slow
def test_new_items_are_learnt_by_going_on_from_the_run(run, extended, plum, tmp_path):
    write_own_csv(tmp_path)
    log = tmp_path / "odd.csv"
    with log.open("a", newline="", encoding="utf-8") as file:
        for user in range(10):
            for place, name in enumerate(NEW):
                csv.writer(file).writerow([f"user {user}", f"The {name} film", name, f"{12 + place}/03/2024 10:30", 5])
    (tmp_path / "grown.gin").write_text(GIN.format(path=log))
    files = [run / "config.gin", tmp_path / "grown.gin", "gin/run/continue.gin"]

    def command(model_dir: str, table: pathlib.Path, *more: str) -> list[str]:
        settings = {"BASE_RUN": f"'{run}'", "GROWN_TABLE": f"'{table}'", "MODEL_DIR": f"'{tmp_path / model_dir}'"}
        settings |= {"CPT_STEPS": "20", "RETRIEVAL_STEPS": "4"}
        return [*(f"--gin_file={file}" for file in files), *(f"--gin.{k}={v}" for k, v in settings.items()), *more]

    done = plum.run(command("grown", extended), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "old Semantic IDs are what they were, 3 items are new" in done.stdout
    for name in ("tokens.json", "sentencepiece.model"):
        assert (tmp_path / "grown/vocabulary" / name).read_bytes() == (run / "vocabulary" / name).read_bytes()
    base, table = SidTable.load(run / "sids"), SidTable.load(tmp_path / "grown/sids")
    codes = dict(zip(table.item_ids.tolist(), table.codes.tolist(), strict=True))
    assert [codes[item] for item in base.item_ids.tolist()] == base.codes.tolist() and set(NEW) <= set(codes)
    # What CPT began with is where the run had ended: after twenty steps it is still near.
    first, last = load_params(run / "train/retrieval/params"), load_params(tmp_path / "grown/train/cpt/params")
    change = abs(last["embedding"] - first["embedding"]).mean() / abs(first["embedding"]).mean()
    assert 0 < change < 0.5
    (row,) = map(json.loads, (tmp_path / "grown/results.jsonl").read_text().splitlines())
    assert row["name"] == "continued"
    # Everybody's last watches are the new ones: they are likelier than they were, by far.
    before = log_prob_of_new(plum, run, f"--gin.SID_TABLE='{extended}'")
    after = log_prob_of_new(plum, tmp_path / "grown")
    assert after > before + 1

    with_a_moved_item(extended, tmp_path / "moved")
    for model_dir, flags, message in (
        ("a", [], "other Semantic IDs for 1 of 9 items"),
        ("b", ["--gin.config.DecoderConfig.mlp_dim=24"], "has another decoder: "),
        ("c", ["--gin.BASE_PHASE='rank'"], "train/rank/params"),
    ):
        done = plum.run(command(model_dir, tmp_path / "moved" if model_dir == "a" else extended, *flags), tmp_path)
        assert done.returncode == 1 and "Traceback" not in done.stderr and message in done.stderr, done.stderr[-2000:]
