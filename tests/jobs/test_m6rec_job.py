"""M6-Rec by the public command over somebody's CSV: rankers, writing, retrieval; and what is said of what cannot be."""

import json

import polars as pl

SIZES = {
    "M6_TITLE": "'title'",
    "M6_CATEGORY": "'kind'",
    "M6_PIECES": 320,
    "M6_LAYERS": 2,
    "M6_WIDTH": 16,
    "M6_HEADS": 1,
    "M6_HEAD_DIM": 16,
    "M6_MLP": 32,
    "M6_HISTORY_LENGTH": 2,
    "M6_LENGTH": 160,
    "M6_PRETRAIN_EXAMPLES": 32,
    "M6_BATCH_SIZE": 16,
}
RANKERS = {
    "RANK_BATCH_SIZE": 16,
    "RANK_EVALUATION_PERIOD": 2,
    "RANK_EPOCHS": 1,
    "TRAINING_EVENTS": 40,
    "M6_LATE_LAYERS": 1,
    "M6_KEEP_SEGMENTS": True,
    "M6_METHOD": "'option_adapter'",
    "M6_INT8": True,
}


def write_corpus(own_csv, directory):
    """The CSV with a kind of each film."""
    frame = pl.read_csv(own_csv / "odd.csv").with_columns(
        kind=pl.when(pl.col("Film No").str.slice(2).cast(pl.Int32) % 2 == 0)
        .then(pl.lit("Drama"))
        .otherwise(pl.lit("War"))
    )
    frame.write_csv(directory / "odd.csv")
    text = (own_csv / "own.gin").read_text().replace(str(own_csv / "odd.csv"), str(directory / "odd.csv"))
    (directory / "own.gin").write_text(text + "table.Table.item_features = {'kind': 'kind'}\n")


def arguments(run, directory, **more):
    settings = {**SIZES, "MODEL_DIR": f"'{directory / 'model'}'", "FEATURES": "()", **more}
    files = (f"gin/run/{run}.gin", str(directory / "own.gin"))
    return [
        *(f"--gin_file={file}" for file in files),
        "--gin.SPLIT=@splits.UserTime()",
        *(f"--gin.{name}={value}" for name, value in settings.items()),
    ]


def rows_of(directory):
    lines = (directory / "model" / "results.jsonl").read_text().splitlines()
    return {row["name"]: row for row in map(json.loads, lines)}


def test_the_commands_rank_write_and_retrieve(own_csv, plum, tmp_path):
    write_corpus(own_csv, tmp_path)
    done = plum.run(arguments("m6rec", tmp_path, **RANKERS))
    assert done.returncode == 0, done.stderr[-3000:]
    row = rows_of(tmp_path)["m6"]
    assert row["base"] == "din" and row["examples"] == 40 and row["layers"] == 1.0
    assert 0 < row["tuned_parameters"] < row["parameters"] and row["bytes"] < 4 * row["parameters"]
    scored = pl.read_parquet(tmp_path / "model" / "evaluation" / "m6.events.parquet")
    assert scored["logit"].is_finite().all() and scored.height == row["events"] + row["validation_events"]
    again = plum.run(arguments("m6rec", tmp_path, **RANKERS))
    assert again.returncode == 0 and "step/s" not in again.stderr

    wrote = plum.run(arguments("m6rec_write", tmp_path, TEXTS=6, MAX_TOKENS=4))
    assert wrote.returncode == 0 and "because it is" in wrote.stdout, wrote.stderr[-2000:]
    row = rows_of(tmp_path)["explanation"]
    assert 0 <= row["matched"] <= 1 and 0 < row["unique"] <= 1 and row["perplexity"] > 1
    asked = plum.run(
        arguments("m6rec_write", tmp_path, SAID="'I liked The amber film.'", MAX_TOKENS=4, TEMPERATURE=1.0)
    )
    assert asked.returncode == 0 and "step/s" not in asked.stderr  # the same trunk

    split = {"M6_WORDING": "@shop/templates.Wording()", "RETRIEVAL_EXAMPLES": 32, "RETRIEVAL_BATCH_SIZE": 16}
    found = plum.run(arguments("m6rec_retrieval", tmp_path, KS="(1, 5)", **split))
    assert found.returncode == 0, found.stderr[-3000:]
    assert rows_of(tmp_path)["m6"]["recall@5"] >= 0 and "popularity" in found.stdout

    for run, more, message in (
        ("m6rec", {"M6_METHOD": "'lora'"}, "expected a method of tuning among"),
        ("m6rec", {"M6_LATE_LAYERS": 3}, "expected 1 to 2 late_layers"),
        ("m6rec", {"M6_LENGTH": 16}, "raise M6_LENGTH to"),
        ("m6rec", {"M6_CATEGORY": "'genre'"}, "no feature 'genre' of items; it has kind: set M6_CATEGORY"),
        ("m6rec_write", {"KIND": "'poem'"}, "expected KIND to be one of ('explanation', 'conversation'), got 'poem'"),
        ("m6rec_write", {"SAID": "' '"}, "expected SAID to be what a user says, got no word"),
    ):
        wrong = plum.run(arguments(run, tmp_path, **{**(RANKERS if run == "m6rec" else {}), **more}))
        assert wrong.returncode == 1 and message in wrong.stderr, wrong.stderr[-1500:]
        assert "Traceback" not in wrong.stderr
