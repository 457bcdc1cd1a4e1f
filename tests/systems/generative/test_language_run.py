"""A run that is judged as a language model, through the command line: figures, samples, report, and what is refused."""

import json

import pytest
from own_csv_run import plum_arguments

from plum_jax.language.samples import read_samples
from plum_jax.training.metrics_log import read_metrics

FURTHER = ("masked_history.MaskedHistory", "sid_pairs.SidPairs", "plain_text.PlainText", "explanations.Explanations")
PROMPTS = ("The film {item:tt1} is", "After item {item:The amber film} people take item {sid}")
ONE = "--gin.SYSTEMS={'with_cpt': @system.GenerativeRetrieval()}"


def arguments(own_csv, model_dir, text, *more: str) -> list[str]:
    settings = {
        # With <mask> as many tokens as the finished run has, so that its programs are compiled already.
        "NUM_PIECES": "299",
        "TEXT_FILES": f"('{text}',)",
        "TEXT_RATE": "0.2",
        "CPT_FURTHER_TASKS": f"({', '.join(f'@{task}()' for task in FURTHER)})",
        "EXPLANATION_FIELDS": "('title',)",
        "LANGUAGE_PROMPTS": str(PROMPTS),
        "LANGUAGE_TOKENS": "4",
        "CPT_STEPS": "8",
        "CPT_EVALUATION_PERIOD": "4",
        "CPT_SHARE": "(0.0, 0.8)",
        "RETRIEVAL_STEPS": "2",
        "EVALUATION_PERIOD": "2",
        "MATCH_ITEMS": "4",
        "LOSS_BATCHES": "2",
    }
    flags = [f"--gin.{name}={value}" for name, value in settings.items()]
    tasks = ("--gin_file=gin/tasks/explanations.gin", "--gin_file=gin/tasks/plain_text.gin")
    return plum_arguments(own_csv, model_dir, *tasks, ONE, *flags, *more)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "plain.txt"
    path.write_text("A film about amber and birch.\n\nThe grove is old.\n" + "It rains. " * 60, encoding="utf-8")
    return path


def test_a_run_is_judged_at_every_evaluation_and_says_so(own_csv, plum, text, tmp_path):
    model_dir = tmp_path / "run"
    done = plum.run(arguments(own_csv, model_dir, text))
    assert done.returncode == 0, done.stderr[-3000:]
    tasks = {path.parent.name for path in (model_dir / "records/cpt").glob("*/manifest.json")}
    assert tasks == {
        *(
            "watch_history",
            "masked_history",
            "title_of_sid",
            "sid_of_title",
            "next_of_sid",
            "plain_text",
            "explanations",
        ),
    }
    for phase, steps in (("cpt", [4, 8]), ("retrieval", [2])):
        judged = [row for row in read_metrics(model_dir / "train" / phase) if "language/loss" in row]
        assert [row["step"] for row in judged] == steps
        for row in judged:
            kinds = [name.removeprefix("language/share_") for name in row if name.startswith("language/share_")]
            assert {"text", "control", "sid_1", "sid_2", "sid_3"} == set(kinds)
            parts = sum(row[f"language/share_{kind}"] * row[f"language/loss_{kind}"] for kind in kinds)
            assert parts == pytest.approx(row["language/loss"])
            assert {name for name in row if name.startswith("language/loss_task_")} == {
                f"language/loss_task_{task}" for task in tasks
            }
            assert 0 <= row["language/match_title_level_3"] <= 1 and "language/match_title_level_1_lift_low" in row
        samples = read_samples(model_dir / "train" / phase)
        assert [(row["step"], row["prompt"]) for row in samples] == [(s, p) for s in steps for p in PROMPTS]
        assert all(len(row["items"]) == 1 for row in samples if row["prompt"] == PROMPTS[1])
    (row,) = map(json.loads, (model_dir / "results.jsonl").read_text().splitlines())
    assert row["cpt/loss_text"] == judged_last(model_dir, "cpt", "loss_text")
    assert row["retrieval/loss_task_plain_text"] == judged_last(model_dir, "retrieval", "loss_task_plain_text")
    page = (model_dir / "report.html").read_text()
    assert (
        "As a language model" in page and "CPT: loss by kind of token" in page and "After item {item:The amber" in page
    )

    # Its words were trained to explain, so they are judged beside what removal says, and shown.
    done = plum.run(["faithfulness", str(model_dir)])
    assert done.returncode == 0, done.stderr[-3000:]
    reasons = {row["reason"]: row for row in json.loads((model_dir / "faithfulness.json").read_text())["rows"]}
    assert reasons["said"]["named"] == reasons["removal"]["named"] == reasons["said"]["users"] > 0
    done = plum.run(["explain", str(model_dir)])
    assert done.returncode == 0 and "because of The" in done.stdout, done.stderr[-3000:]


def judged_last(model_dir, phase: str, name: str) -> float:
    return [row for row in read_metrics(model_dir / "train" / phase) if "language/loss" in row][-1][f"language/{name}"]


def test_what_cannot_be_judged_or_trained_on_is_one_error_before_the_training(own_csv, plum, text, tmp_path):
    for flag, message in (
        ("--gin.LANGUAGE_PROMPTS=('{item:nobody} is',)", "there is no item 'nobody'"),
        ("--gin.PAIR_TEMPLATES={'pair': '{sid} {other_genre}'}", "has no field 'other_genre'; valid are"),
        ("--gin.TEXT_FILES=('nowhere.txt',)", "nowhere.txt: there is no such file; task plain_text reads"),
    ):
        model_dir = tmp_path / "refused"
        done = plum.run(arguments(own_csv, model_dir, text, flag))
        assert done.returncode == 1 and "Traceback" not in done.stderr and message in done.stderr, done.stderr[-2000:]
        assert not (model_dir / "train").exists()
