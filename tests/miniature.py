"""A directory where the documents' commands find what they name, so small that each ends in seconds.

The paths are those of the documents, so that a command is given there as it is written; only its sizes are not.
"""

from __future__ import annotations

import csv
import json
import pathlib
import shutil

import documents
import numpy as np
import polars as pl
import small_bert
from documents import REPOSITORY
from own_csv_run import WORDS, own_events

from plum_jax.corpus.features import ItemFeatures
from plum_jax.scaling import design

START = 1_700_000_000


def write_miniature(directory: pathlib.Path, finished: pathlib.Path) -> None:
    """All that the commands read, but what one makes for another.

    Args:
      directory: new; the commands are given there.
      finished: the MODEL_DIR of a finished run of `own_csv_run.py`.
    """
    _own_corpus(directory)
    _data_sets(directory / "data")
    _judged_queries(directory / "data" / "search_relevance")
    small_bert.write(directory / "data" / "all-MiniLM-L6-v2", ("the", "film", *WORDS), max_position_embeddings=64)
    for name in ("quickstart", "x", "a", "b"):
        # As training left it: other tests export the same run.
        shutil.copytree(finished, directory / "runs" / name, ignore=shutil.ignore_patterns("hugging_face", "serving"))
    write_new_items(directory / "new" / "new.parquet", ItemFeatures.load(finished / "features"))
    history = ["tt1", "tt2"]
    (directory / "users.jsonl").write_text(json.dumps({"history": history, "seen": history}) + "\n")
    _tables_of_runs(directory)
    _studies(directory)


def _own_corpus(directory: pathlib.Path) -> None:
    """`my_corpus.gin` as the README writes it, and the log that it names: the events of the finished run."""
    readme = (REPOSITORY / "README.md").read_text()
    (own,) = [code for code in documents.codes_of("README.md", readme) if code.language == "gin"]
    (directory / "my_corpus.gin").write_text(own.text)
    with (directory / "my_log.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["viewer", "clip", "seen_at", "clip name"])
        for user, item, row, _ in own_events():
            time = f"2024-03-{1 + row // 10:02d}T{row % 10 + 10}:30"
            rows.writerow([f"user {user}", f"tt{item}", time, f"The {WORDS[item]} film"])


def _data_sets(directory: pathlib.Path) -> None:
    """The same events as MovieLens-100K, MovieLens-1M and Amazon Beauty, in the layouts of their gin files."""
    events, users, items = own_events(), range(10), range(10)
    histories = [" ".join(str(item) for who, item, _, _ in events if who == user) for user in users]
    times = [" ".join(str(START + 3600 * row) for who, _, row, _ in events if who == user) for user in users]
    gaps = " ".join(["36000"] * 10)
    genres = ["|".join(str(int(genre == item % 19)) for genre in range(19)) for item in items]
    write = {
        "ml_100k/u.data": [f"{user}\t{item}\t{stars}\t{START + 3600 * row}" for user, item, row, stars in events],
        "ml_100k/u.item": [f"{i}|The {WORDS[i]} film (1997)|01-Jan-1997||x|{genres[i]}" for i in items],
        "ml_100k/u.user": [f"{user}|{20 + user}|{'MF'[user % 2]}|other|85711" for user in users],
        "ml_1m/sequences.tsv": [
            "user_id\tmovie_ids\tunix_times",
            *(f"{user}\t{histories[user]}\t{times[user]}" for user in users),
        ],
        "ml_1m/movies.dat": [f"{i}::The {WORDS[i]} film (1997)::{('Comedy', 'Drama')[i % 2]}" for i in items],
        "ml_1m/users.dat": [f"{user}::{'MF'[user % 2]}::25::4::85711" for user in users],
        "amazon_beauty/sequences.tsv": [
            "user_id\titem_ids\tgap_seconds_since_previous",
            *(f"{user}\t{histories[user]}\t{gaps}" for user in users),
        ],
        "amazon_beauty/items.tsv": [
            "item_id\tasin\ttitle\tcategory_path\tattributes",
            *(f"{i}\tB{i}\tThe {WORDS[i]} film\tBeauty > {WORDS[i % 3]}\t{WORDS[i % 4]}|x" for i in items),
        ],
    }
    for name, lines in write.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="latin-1")


def _judged_queries(directory: pathlib.Path) -> None:
    """Queries of two words, each judged with four items, in the columns of the Home Depot set."""
    directory.mkdir(parents=True)
    folds = ("train", "train", "test", "validation")
    pairs = [
        (query, f"{WORDS[query]} film", item % 10, 3.0 - (item - query) / 2, folds[query % 4])
        for query in range(10)
        for item in range(query, query + 4)
    ]
    columns = ["query_id", "query", "item_id", "relevance", "fold"]
    pl.DataFrame(pairs, schema=columns, orient="row").write_parquet(directory / "judgements.parquet")
    items = [(item, f"The {WORDS[item]} film") for item in range(10)]
    pl.DataFrame(items, schema=["item_id", "title"], orient="row").write_parquet(directory / "items.parquet")
    _queries_in_a_table(directory / "crowdflower", pairs)


def _queries_in_a_table(directory: pathlib.Path, pairs: list[tuple]) -> None:
    """The same in the columns of CrowdFlower's set: grades to 4, and queries with their split by themselves."""
    directory.mkdir()
    split = {"train": "train", "validation": "train", "test": "test"}
    tables = {
        "judgements": [
            "query_id\titem_id\trelevance",
            *(f"{q}\t{item}\t{int(2 * g - 2)}" for q, _, item, g, _ in pairs),
        ],
        "queries": ["query_id\tquery\tsplit", *dict.fromkeys(f"{q}\t{text}\t{split[f]}" for q, text, _, _, f in pairs)],
        "items": ["item_id\ttitle\tdescription", *(f"{item}\tThe {WORDS[item]} film\t" for item in range(10))],
    }
    for name, lines in tables.items():
        (directory / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def write_new_items(path: pathlib.Path, features: ItemFeatures) -> None:
    """Three items near old ones, with a column for each feature block of the table."""
    path.parent.mkdir()
    columns = {block.name: (block.values[:3] + 0.01).tolist() for block in features.blocks}
    pl.DataFrame({"item_id": ["new 0", "new 1", "new 2"], **columns}).write_parquet(path)


def _tables_of_runs(directory: pathlib.Path) -> None:
    """Tables of runs of a known law: of somebody else's trainer, and with the columns and sizes of PLUM's points."""
    law = design.GuessedLaw(1.2, 40.0, 90.0, 0.34, 0.3)
    budgets = np.geomspace(1e18, 1e20, 4)
    places = [(budget, N) for budget in budgets for N in design.optimum(law, budget)[0] * np.geomspace(0.25, 4, 5)]
    pl.DataFrame(
        [
            {"params": N, "tokens": C / 6 / N, "final_loss": float(design.loss(law, N, C / 6 / N)), "flops_group": C}
            for C, N in places
        ]
    ).write_csv(directory / "runs.csv")
    sizes = {"110M": 110e6, "370M": 370e6, "900M": 900e6, "3B": 3e9}
    losses = [(C, name, float(design.loss(law, N, C / 6 / N))) for C in budgets for name, N in sizes.items()]
    pl.DataFrame(
        [
            {"budget_flops": C, "model": name, "recall_at_10_day8": 0.3 - 0.1 * loss, "train_loss": loss}
            for C, name, loss in losses
        ]
    ).write_csv(directory / "plum_isoflops_digitised.csv")


def _studies(directory: pathlib.Path) -> None:
    """The experiments, and the study of MovieLens as it is before its forecast: the held-out cells have not run."""
    shutil.copytree(REPOSITORY / "experiments", directory / "experiments")
    rows = (directory / "experiments" / "scaling" / "movielens" / "results.jsonl").read_text().splitlines()
    before = directory / "runs" / "scaling" / "movielens"
    before.mkdir(parents=True)
    shutil.copy(directory / "experiments" / "scaling" / "movielens" / "plan.json", before)
    (before / "results.jsonl").write_text("".join(f"{row}\n" for row in rows if not json.loads(row)["held_out"]))
