"""UniCoRn by the public command: somebody's CSV, a task alone beside all, a request; judged queries of two tables."""

import json

import numpy as np
import polars as pl

SIZES = {
    "UNICORN_QUERY_FIELD": "'path'",
    "UNICORN_TEXT": "('title',)",
    "UNICORN_EPOCHS": 1,
    "UNICORN_BATCH_SIZE": 16,
    "UNICORN_WIDTH": 8,
    "UNICORN_VECTORS": "@vectors.VectorFile()",
    "UNICORN_PERSONALISATION": "'full'",
    "MODELS": "{'joint': @unicorn/system.Unicorn(), 'homepage_alone': @unicorn/homepage/system.Unicorn()}",
    "BASE": "{'homepage_alone': 'joint'}",
    "KS": "(1, 5)",
    "unicorn/homepage/system.Unicorn.personalisation": "'cluster'",
    "unicorn/homepage/system.Unicorn.clusters": 3,
}


def write_run(own_csv, directory):
    """The corpus with a second text, queries that half of the items share, and vectors of most users."""
    frame = pl.read_csv(own_csv / "odd.csv").with_columns(path=pl.col("Film No").str.slice(2).cast(pl.Int32) % 5)
    frame = frame.with_columns(path="Films > kind" + pl.col("path").cast(pl.String))
    frame.write_csv(directory / "odd.csv")
    text = (own_csv / "own.gin").read_text().replace(str(own_csv / "odd.csv"), str(directory / "odd.csv"))
    text += "table.Table.text_fields = {'title': 'the film', 'path': 'path'}\n"
    text += "from plum_jax.systems.unicorn import vectors\n"
    text += f"vectors.VectorFile.path = '{directory / 'vectors.parquet'}'\n"
    (directory / "own.gin").write_text(text)
    vectors = np.random.default_rng(0).normal(size=(9, 4)).tolist()
    rows = {"user_id": [f"user {user}" for user in range(9)], "events": [2] * 9, "vector": vectors}
    pl.DataFrame(rows).write_parquet(directory / "vectors.parquet")


def test_the_command_trains_compares_and_answers(own_csv, plum, tmp_path):
    write_run(own_csv, tmp_path)
    model_dir = tmp_path / "model"

    def arguments(run, **more):
        settings = {name: value for name, value in SIZES.items() if run == "unicorn" or name.startswith("UNICORN_")}
        settings |= {"MODEL_DIR": f"'{model_dir}'", **more}
        files = (f"gin/run/{run}.gin", str(tmp_path / "own.gin"))
        return [*(f"--gin_file={file}" for file in files), *(f"--gin.{n}={v}" for n, v in settings.items())]

    done = plum.run(arguments("unicorn"))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["name"]: row for row in map(json.loads, (model_dir / "results.jsonl").read_text().splitlines())}
    assert list(rows) == [
        "joint.search",
        "joint.search_known",
        "joint.similar",
        "joint.homepage",
        "homepage_alone.homepage",
    ]
    alone, joint = rows["homepage_alone.homepage"], rows["joint.homepage"]
    assert alone["base"] == "joint" and alone["examples"] == {"homepage": joint["examples"]["homepage"]}
    assert abs(alone["recall@5_difference"] - (alone["recall@5"] - joint["recall@5"])) < 1e-9
    assert alone["recall@5_difference_low"] <= alone["recall@5_difference"] <= alone["recall@5_difference_high"]
    ranks = pl.read_parquet(model_dir / "evaluation" / "joint.similar.per_user.parquet")
    assert (
        ranks.height == joint["users"] == 10
        and (ranks["rank"].fill_null(9) < 5).mean() == rows["joint.similar"]["recall@5"]
    )
    assert "vectors of 9 of 10 users" in done.stdout and "homepage_alone.homepage - joint: recall@5" in done.stdout
    again = plum.run(arguments("unicorn"))
    assert again.returncode == 0 and "step/s" not in again.stderr

    asked = plum.run(arguments("unicorn_ask", TASK="'search'", QUERY="'the amber film'", USER="'user 3'", ITEMS=3))
    assert asked.returncode == 0 and "  1." in asked.stdout and " film" in asked.stdout, asked.stderr[-2000:]
    for more, message in (
        ({"TASK": "'feed'"}, "unknown task 'feed': expected one that was trained, search, similar, homepage"),
        ({"TASK": "'search'", "QUERY": "''"}, "a query with at least one word that is no stop word, got ''"),
        ({"TASK": "'search'", "QUERY": "'zither'"}, "no word of the query 'zither' is known"),
    ):
        wrong = plum.run(arguments("unicorn_ask", **more))
        assert wrong.returncode == 1 and message in wrong.stderr and "Traceback" not in wrong.stderr
    strangers = pl.read_parquet(tmp_path / "vectors.parquet").with_columns(user_id=pl.lit("x") + pl.col("user_id"))
    strangers.write_parquet(tmp_path / "vectors.parquet")
    wrong = plum.run(arguments("unicorn"))
    assert wrong.returncode == 1 and "it is a table of other users" in wrong.stderr


def test_the_command_searches_judged_queries(plum, tmp_path):
    write_judgements(tmp_path)
    settings = {
        "JUDGEMENTS": f"'{tmp_path / 'pairs.tsv'}'",
        "ITEMS": f"'{tmp_path / 'items.csv'}'",
        "MODEL_DIR": f"'{tmp_path / 'model'}'",
        "SEARCH_BATCH_SIZE": 32,
        "SEARCH_EPOCHS": 40,
        "SEARCH_LEARNING_RATE": 2e-2,
    }
    arguments = ["--gin_file=gin/run/unicorn_search.gin", *(f"--gin.{n}={v}" for n, v in settings.items())]
    done = plum.run(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {r["name"]: r for r in map(json.loads, (tmp_path / "model" / "results.jsonl").read_text().splitlines())}
    assert list(rows) == ["search", "text_cosine", "no_order"]
    assert rows["search"]["ndcg@10"] > rows["no_order"]["ndcg@10"] and "recall@10" not in rows["no_order"]
    assert rows["search"]["queries"] == 4 and rows["search"]["base"] == "text_cosine"
    frame = pl.read_parquet(tmp_path / "model" / "evaluation" / "search.queries.parquet")
    assert abs(frame["ndcg@10"].mean() - rows["search"]["ndcg@10"]) < 1e-9


def write_judgements(directory):
    """Twenty queries of two words over forty items; an item with both is of grade 3, with one of 2, with none of 1."""
    colours, kinds = ["red", "blue", "green", "black"], ["lamp", "chair", "table", "shelf", "vase"]
    items = [(f"{c}{k}{n}", f"{c} {k} number {n}") for c in colours for k in kinds for n in range(2)]
    queries = [f"{colour} {kind}" for colour in colours for kind in kinds]
    pairs = []
    for number, query in enumerate(queries):
        fold = "test" if number % 5 == 0 else "validation" if number % 5 == 1 else "train"
        for item, text in items[number % 3 :: 3]:
            pairs.append((number, query, item, 1.0 + sum(word in text.split() for word in query.split()), fold))
        if fold != "train":
            item, _ = items[2 * number]
            pairs.append((number, query, item, 3.0, fold))
    columns = ["query_id", "query", "item_id", "relevance", "fold"]
    pl.DataFrame(pairs, schema=columns, orient="row").write_csv(directory / "pairs.tsv", separator="\t")
    pl.DataFrame(items, schema=["item_id", "title"], orient="row").write_csv(directory / "items.csv")
