"""`plum JOB RUN_DIR`: a finished run answers for itself, and nothing that was trained is changed."""

import hashlib
import json
import pathlib
import shutil

import polars as pl
import pytest
from own_csv_run import plum_arguments

from gin import config as gin
from plum_jax import guard, run, run_jobs
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import rank_items

UPSTREAM = (*guard.UPSTREAM, *guard.TRAINED, "evaluation", "config.gin", "results.jsonl")


def state(model_dir: pathlib.Path) -> dict[str, tuple[str, int]]:
    """Content and time of every file of the run that a job must not touch."""
    files = [path for name in UPSTREAM for path in (model_dir / name, *(model_dir / name).rglob("*")) if path.is_file()]
    # config.gin may be written and put back.
    times = {path: 0 if path.name == "config.gin" else path.stat().st_mtime_ns for path in files}
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), times[path]) for path in files}


@pytest.fixture
def stages(finished):
    run.configure([f"{finished[0]}/config.gin"], [])
    try:
        yield gin.query_parameter("%PIPELINE").scoped_configurable_fn().stages(finished[0])
    finally:
        gin.clear_config()


def test_every_job_does_its_work_and_leaves_the_run_as_it_was(finished, stages, plum):
    model_dir, _ = finished
    shutil.rmtree(model_dir / "hugging_face", ignore_errors=True)  # another test of the same run may have exported it
    before = state(model_dir)
    assert len(before) > 30
    for job, flags in {
        "recommend": ["--gin.ITEMS_PER_USER=5"],
        "watch_next": [],
        "explain": ["--gin.USERS=['user 3']", "--gin.ITEMS_PER_USER=4"],
        "evaluate": ["--gin.KS=(2, 6)", "--gin.NUM_BEAMS=7"],
        "export_model": [],
        "steer": ["--gin.FIELD='title'", "--gin.VALUES=['The amber film']", "--gin.TOP=4"],
        "faithfulness": [],
        "offline_recall": ["--gin.EVENTS=(1, 3)", "--gin.LISTS=(1, 2)", "--gin.TOP=4"],
        "generate": ["--gin.PROMPT='The film {item:tt1} is about {sid}'", "--gin.BEAMS=3"],
    }.items():
        done = plum.run([job, str(model_dir), *flags], model_dir.parent)
        assert done.returncode == 0, (job, done.stderr[-2000:])
        assert state(model_dir) == before, job
    shutil.rmtree(model_dir / "hugging_face")  # another test of the same run exports it

    # The lists are those of the run's own stages.
    prompts = stages.prompts("test")
    seen = Ragged.from_series(prompts["seen_items"])
    codes, log_probs = stages.recommender.search(stages.params, Ragged.from_series(prompts["prompt"]), exclude=seen)
    items, _ = rank_items(codes, log_probs, stages.table, 5, seen)
    lists = pl.read_parquet(model_dir / "recommendations" / "recommendations.parquet")
    expected = [stages.table.item_ids[item] for row in items for item in row if item >= 0]
    assert lists["item_id"].to_list() == expected

    # A score is the sum over levels, and the list of a user is that of the table above.
    (explained,) = json.loads((model_dir / "explanations.json").read_text())
    assert explained["user_id"] == "user 3"
    for item in explained["recommended"]:
        assert sum(item["by_level"]) == pytest.approx(item["score"], abs=1e-4)

    (steered,) = json.loads((model_dir / "steering_title.json").read_text())["rows"]
    assert steered["items"] == 1 and steered["users"] == 10
    # The trie's lists hold this film alone, so each user's whose target it is has it, unless it was seen.
    assert steered["recall_filtered"] >= max(steered["recall_plain"], steered["recall_asked"])

    for item in explained["recommended"]:
        assert item["because"]["title"] in {event["title"] for event in explained["history"]}
    reasons = {row["reason"]: row for row in json.loads((model_dir / "faithfulness.json").read_text())["rows"]}
    assert [*reasons] == ["removal", "newest", "shared"]  # its CPT had no explanations
    assert reasons["removal"]["first"] == 1 and reasons["removal"]["faithful"] >= reasons["newest"]["faithful"]

    offline = json.loads((model_dir / "offline_recall.json").read_text())["rows"]
    assert [(row.get("events"), row.get("lists")) for row in offline] == [(1, None), (3, None), (None, 1), (None, 2)]
    assert offline[1]["of_full"] == 1 and offline[1]["change"] == 0 and offline[2]["of_full"] == offline[3]["of_full"]

    written = [json.loads(line) for line in (model_dir / "generated.jsonl").open()]
    assert [len(row["items"]) for row in written] == [1, 1, 1]
    assert sorted((row["log_prob"] for row in written), reverse=True) == [row["log_prob"] for row in written]

    rows = [json.loads(line) for line in (model_dir / "evaluations/ks_2_6_beams_7/results.jsonl").open()]
    assert {row["name"] for row in rows} == {"popularity", "item_knn", "with_cpt", "without_cpt"}
    assert all("recall@6" in row and "recall@5" not in row for row in rows)


def test_what_is_not_a_job_a_run_or_the_job_s_own_is_one_line(finished, tmp_path, capsys):
    model_dir, _ = finished
    for arguments, message in (
        (["recomend", str(model_dir)], "there is no job 'recomend': did you mean recommend?"),
        (["recommend"], "expected the directory of a run: plum recommend RUN_DIR"),
        (["recommend", str(tmp_path)], f"got {tmp_path}: it has no config.gin"),
        (["recommend", str(tmp_path / "no")], "there is no such directory"),
        (["recommend", str(model_dir), "--gin.SEED=1"], "SEED is a setting of the run, which has its own"),
        (["recommend", str(model_dir), "--gin_file=gin/corpus/ml_100k.gin"], "a run brings its gin files"),
        (["explain", str(model_dir), "--gin.USERS=['nobody']"], "there is no test user 'nobody'; there are 10"),
        (["explain", str(model_dir), "--gin.ITEMS_PER_USER=99"], "expected ITEMS_PER_USER of at most 10"),
        (["offline_recall", str(model_dir), "--gin.EVENTS=(1, 99)"], "EVENTS of 1 to 20, the run's history"),
        (["steer", str(model_dir), "--gin.FIELD='genres'"], "have no field 'genres'; valid are"),
        (["steer", str(model_dir), "--gin.FIELD='title'", "--gin.VALUES=['Amber']"], "no item has 'Amber' as title"),
        (["generate", str(model_dir)], "the macro PROMPT is read but not set: add --gin.PROMPT=..."),
        (["generate", str(model_dir), "--gin.PROMPT='{item:tt}'"], "there is no item 'tt': did you mean"),
        (["generate", str(model_dir), "--gin.PROMPT='x'", "--gin.SYSTEM='item_knn'"], "writes no words: set SYSTEM"),
        (["generate", str(model_dir), "--gin.PROMPT='x'", "--gin.SYSTEM='without_cpt'"], "set PHASE to 'retrieval'"),
    ):
        with pytest.raises(SystemExit, match="plum: ") as stopped:
            run.main(arguments)
        gin.clear_config()
        assert message in str(stopped.value) and "\n" not in str(stopped.value), arguments
    (tmp_path / "config.gin").write_text("from plum_jax import pipeline\n")
    with pytest.raises(guard.RunError, match="names plum_jax.pipeline, which this version does not have"):
        run_jobs.as_files(["recommend", str(tmp_path)])


def test_a_run_that_is_not_finished_is_not_finished_by_a_job_that_reads(finished, own_csv, tmp_path, plum):
    model_dir, _ = finished
    shutil.copytree(model_dir, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved/train/retrieval/params")
    before = state(tmp_path / "moved")
    done = plum.run(plum_arguments(own_csv, tmp_path / "moved", run="recommend"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "train/retrieval/params of the run" in done.stderr and "is not there" in done.stderr
    assert state(tmp_path / "moved") == before


def test_other_settings_are_named_and_nothing_is_written_until_the_user_says_so(finished, own_csv, plum, tmp_path):
    model_dir = tmp_path / "moved"
    shutil.copytree(finished[0], model_dir)
    before = state(model_dir)
    for flag, message in (
        ("--gin.CODEBOOK_SIZES=(4, 5)", "quantizer.codebook_sizes [4, 4] there, [4, 5] here"),
        ("--gin.NUM_PIECES=280", "vocabulary.num_pieces 300 there, 280 here"),
        ("--gin.RETRIEVAL_STEPS=12", "training.steps 8 there, 12 here"),
        ("--gin.config.DecoderConfig.d_model=24", "d_model"),
    ):
        done = plum.run(plum_arguments(own_csv, model_dir, flag))
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr[-2000:]
        assert message in done.stderr and "--remake" in done.stderr, done.stderr[-2000:]
        assert state(model_dir) == before
    done = plum.run(plum_arguments(own_csv, model_dir, "--gin.RETRIEVAL_STEPS=6", "--remake"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "retrieval is trained anew; what was there is kept as retrieval.before-1" in done.stdout + done.stderr
    assert "RETRIEVAL_STEPS = 6" in (model_dir / "config.gin").read_text()
    assert (model_dir / "train/retrieval.before-1/params").exists()
    # CPT has the settings that it had, and is not touched.
    assert not (model_dir / "train/cpt.before-1").exists()


def test_differences_are_those_of_the_leaves():
    found = {"config": {"type": "A", "x": 1, "of": {"type": "B", "y": [1, 2]}}, "inputs": {"split": "s"}}
    wanted = {"config": {"type": "A", "x": 1, "of": {"type": "B", "y": [1, 3]}}, "inputs": {"split": "t"}}
    assert guard.differences(found, wanted) == [("config.of.y", [1, 2], [1, 3]), ("inputs.split", "s", "t")]
    assert guard.said(guard.differences(found, wanted)) == "of.y [1, 2] there, [1, 3] here"
    wanted["config"] = {**found["config"], "of": {"type": "C"}}
    assert guard.said(guard.differences(found, wanted)) == "of 'B' there, 'C' here"
    assert guard.said([("inputs.split", "s", "t")]) == "it was made from another split"
