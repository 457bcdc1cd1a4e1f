"""The whole pipeline through the command line, on a hundred-row CSV of somebody's own."""

import json
import pathlib
import signal
import subprocess
import time

import jax
import numpy as np
import polars as pl
import pytest
from own_csv_run import GIN, plum_arguments, plum_command, user_environment

from plum_jax.interop.pretrained import read_pretrained
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.training import metrics_log, saved_params


def test_a_corpus_of_your_own_goes_through(finished):
    model_dir, printed = finished
    rows = {row["name"]: row for row in map(json.loads, (model_dir / "results.jsonl").read_text().splitlines())}
    assert list(rows) == ["popularity", "item_knn", "without_cpt", "with_cpt"]
    for row in rows.values():
        assert 0 <= row["recall@1"] <= row["recall@5"] <= 1
        assert {
            "recall@5_se",
            "recall@5_unseen",
            "ndcg@5",
            "seed",
            "data",
            "config",
            "wall_seconds",
            "users_per_second",
            "commit",
        } <= set(row)
    assert 0 <= rows["with_cpt"]["valid_share"] <= 1
    for name, phase in (("with_cpt", "retrieval"), ("without_cpt", "retrieval_without_cpt")):
        row, curve = rows[name], rows[name]["validation_curve"]
        log = [r for r in metrics_log.read_metrics(model_dir / "train" / phase) if "validation/recall@5" in r]
        assert (curve["step"], curve["recall@5"]) == ([r["step"] for r in log], [r["validation/recall@5"] for r in log])
        assert log and curve["train_flops"][-1] == row["train_flops"]
    assert rows["with_cpt"]["validation_curve"]["train_flops"][0] > rows["without_cpt"]["train_flops"]
    assert "with_cpt" in printed and f"report: {model_dir / 'report.html'}" in printed
    samples = json.loads((model_dir / "samples.json").read_text())
    assert len(samples) == 5
    assert all(sample["target"].startswith("The ") and sample["recommended"] for sample in samples)
    assert len(samples[0]["history"]) == 9  # ten rows a user, one held out for test
    page = (model_dir / "report.html").read_text()
    assert "The amber film" in page and "http://" not in page.replace("http://www.w3.org", "")


def test_a_second_run_does_nothing_again(finished, own_csv, plum):
    model_dir, printed = finished
    kept = [model_dir / "train" / "cpt" / "metrics.jsonl", model_dir / "sids" / "manifest.json"]
    kept += [*(model_dir / "evaluation").glob("*.json"), *(model_dir / "records").rglob("*.array_record")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) > 6
    again = plum.run(plum_arguments(own_csv, model_dir))
    assert again.returncode == 0, again.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in kept} == before
    assert again.stdout == printed


def test_a_run_killed_during_cpt_ends_like_an_uninterrupted_one(own_csv, tmp_path, plum):
    more = ["--gin.CPT_STEPS=160", "--gin.CHECKPOINT_PERIOD=20", "--gin.training_config.TrainingConfig.log_period=1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    cpt = killed / "train" / "cpt"
    process = subprocess.Popen(
        plum_command(own_csv, killed, *more),
        env=user_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while len(metrics_log.read_metrics(cpt)) < 50 and time.monotonic() < deadline:
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 50 <= len(metrics_log.read_metrics(cpt)) < 160 and not (cpt / "params").exists()
    assert max(int(path.name) for path in (cpt / "checkpoints").iterdir() if path.name.isdigit()) >= 20
    for directory in (killed, whole):
        done = plum.run(plum_arguments(own_csv, directory, *more))
        assert done.returncode == 0, done.stderr[-3000:]
    for phase in ("cpt", "retrieval", "retrieval_without_cpt"):
        a, b = (saved_params.load_params(path / "train" / phase / "params") for path in (killed, whole))
        jax.tree.map(np.testing.assert_array_equal, a, b)
        assert _losses(killed, phase) == _losses(whole, phase)
    # The same seed gives the same figures twice.
    varying = ("wall_seconds", "train_seconds", "users_per_second", "command")
    figures = [(path / "results.jsonl").read_text().splitlines() for path in (killed, whole)]
    timeless = [[_without(json.loads(line), *varying) for line in lines] for lines in figures]
    assert timeless[0] == timeless[1]


def _losses(run: pathlib.Path, phase: str) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in metrics_log.read_metrics(run / "train" / phase) if "loss" in row]


def _without(row: dict, *names: str) -> dict:
    return {key: value for key, value in row.items() if key not in names}


def test_recommendations_for_all_users(finished, own_csv, plum):
    model_dir, _ = finished
    done = plum.run(plum_arguments(own_csv, model_dir, "--gin.ITEMS_PER_USER=3", run="recommend"))
    assert done.returncode == 0, done.stderr[-3000:]
    frame = pl.read_parquet(model_dir / "recommendations" / "recommendations.parquet")
    assert frame.columns == ["user_id", "rank", "item_id", "score"]
    assert frame["user_id"].n_unique() == 10 and set(frame["rank"]) <= {1, 2, 3}
    events = pl.read_csv(own_csv / "odd.csv").sort("who?", "when (UTC)", maintain_order=True)
    history = events.group_by("who?", maintain_order=True).agg(pl.col("Film No").head(9))
    seen = {(user, item) for user, items in history.iter_rows() for item in items}
    assert not seen & set(frame.select("user_id", "item_id").iter_rows())


def test_the_model_as_a_hugging_face_directory(finished, own_csv, plum):
    model_dir, _ = finished
    done = plum.run(plum_arguments(own_csv, model_dir, run="export_model"))
    assert done.returncode == 0, done.stderr[-3000:]
    read, vocabulary = read_pretrained(model_dir / "hugging_face"), SidVocabulary.load(model_dir / "vocabulary")
    assert (read.family, read.vocab_size, read.max_length) == ("llama", vocabulary.vocab_size, 64)
    special = {"bos": vocabulary.start_id, "eos": vocabulary.eos_id, "pad": vocabulary.pad_id}
    assert read.special_ids == {f"{name}_token_id": i for name, i in special.items()}
    root = read.config.d_model**0.5  # our decoder scales its tied embeddings, which no Llama does
    np.testing.assert_allclose(read.params["embedding"], root * read.params["head"], rtol=1e-6)
    assert (model_dir / "hugging_face" / "sentencepiece.model").exists()


def test_another_sid_table_is_refused(finished, own_csv, plum):
    model_dir, _ = finished
    done = plum.run(plum_arguments(own_csv, model_dir, "--gin.CODEBOOK_SIZES=(5, 4)"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "quantizer.codebook_sizes [4, 4] there, [5, 4] here" in done.stderr


def test_a_bad_row_is_one_clear_error(own_csv, tmp_path, plum):
    lines = (own_csv / "odd.csv").read_text().splitlines()
    lines[7] = lines[7].replace("/03/2024", "/33/2024")
    (tmp_path / "odd.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "own.gin").write_text(GIN.format(path=tmp_path / "odd.csv"))
    done = plum.run(plum_arguments(tmp_path, tmp_path / "model", run="semantic_ids"))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{tmp_path / 'odd.csv'}, row 8" in done.stderr and "'when (UTC)'" in done.stderr


@pytest.mark.slow
def test_chosen_fields_become_tokens(own_csv, tmp_path, plum):
    model_dir = tmp_path / "model"
    more = ["--gin.TOKEN_FIELDS=('rating',)", "--gin.EVENT='{sid} {rating}'", "--gin.CPT_STEPS=1"]
    done = plum.run(plum_arguments(own_csv, model_dir, *more, "--gin.RETRIEVAL_STEPS=1"))
    assert done.returncode == 0, done.stderr[-3000:]
    tokens = json.loads((model_dir / "vocabulary" / "tokens.json").read_text())
    assert [field["name"] for field in tokens["field_tokens"]] == ["rating"]
    prompt = pl.read_parquet(model_dir / "prompts" / "test" / "prompts.parquet")["prompt"][0]
    assert len(prompt) == 1 + 9 * (3 + 1)  # <history>, then three SID tokens and a rating for each of nine films


@pytest.mark.slow
def test_a_run_begins_with_real_weights_and_makes_experts_of_them(own_csv, shared_data, tmp_path, plum):
    model = shared_data / "weights" / "stories260K.bin"
    macros = [f"--gin.PRETRAINED='{model}'", "--gin.NEW_ROWS='text'", "--gin.LENGTH=128"]
    arguments = plum_arguments(own_csv, tmp_path / "model", *macros)
    arguments[arguments.index("--gin_file=gin/model/cpu_nano.gin")] = "--gin_file=gin/pretrained/experts.gin"
    done = plum.run(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "model" / "results.jsonl").read_text().splitlines()]
    assert [row.get("pretrained") for row in rows] == [None, None, str(model), str(model)]
    tokens = json.loads((tmp_path / "model" / "vocabulary" / "tokens.json").read_text())
    assert tokens["text"] == {"file": "sentencepiece.model", "rows": 512}
    params = saved_params.load_params(tmp_path / "model" / "train" / "cpt" / "params")
    assert params["transformer"]["layers"]["moe"]["gate_up"].shape == (5, 8, 64, 2, 172)
