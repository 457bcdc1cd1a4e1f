"""A shop whose titles say their category by one word, behind a brand that is of all categories."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import LeaveOneOut, Split
from plum_jax.corpus.taxonomy import ItemCategories
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.model.config import DecoderConfig
from plum_jax.queries.known_item import KnownItemQueries
from plum_jax.query_understanding.log import QueryLog, QueryLogConfig
from plum_jax.query_understanding.training import Schooling
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import Constant
from plum_jax.training.training_config import TrainingConfig

BRANDS = ("acme", "bolt", "corona", "delta")
# Leaf -> the words that titles of it have, one of them each.
LEAVES = {
    "Shop > Light > Lamps": ("lamp", "lantern"),
    "Shop > Light > Bulbs": ("bulb", "tube"),
    "Shop > Seats > Chairs": ("chair", "armchair"),
    "Shop > Seats > Sofas": ("sofa", "couch"),
}
USERS, EVENTS = 60, 7
NANO = DecoderConfig(num_layers=1, d_model=32, num_heads=1, num_kv_heads=1, head_dim=32, mlp_dim=32)
MODEL = LanguageModel(decoder=NANO, num_pieces=290, dropout_rate=0.0)


def corpus() -> Corpus:
    """A user takes items of one department, mostly of one leaf."""
    titles, paths = [], []
    for path, words in LEAVES.items():
        for word in words:
            titles += [f"{brand} {word}" for brand in BRANDS]
            paths += [path] * len(BRANDS)
    random, rows = np.random.default_rng(0), []
    of_leaf = len(titles) // len(LEAVES)
    for user in range(USERS):
        for _ in range(EVENTS):
            leaf = user % len(LEAVES) if random.random() < 0.8 else (user % len(LEAVES)) ^ 1
            rows.append((user, leaf * of_leaf + int(random.integers(of_leaf)), None))
    return Corpus(
        name="planted queries",
        items=pl.DataFrame({"item_id": [f"i{n}" for n in range(len(titles))], "title": titles, "path": paths}),
        users=pl.DataFrame({"user_id": [f"u{n}" for n in range(USERS)]}),
        events=pl.DataFrame(rows, schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}, orient="row"),
        text_fields=("title", "path"),
        clock="order",
    )


def with_text(corpus: Corpus, field: str, texts: Sequence[str]) -> Corpus:
    """A corpus whose items have one more text."""
    items = corpus.items.with_columns(pl.Series(field, texts))
    return dataclasses.replace(corpus, items=items, text_fields=(*corpus.text_fields, field))


def split(of: Corpus | None = None) -> Split:
    return LeaveOneOut().split(corpus() if of is None else of)


def log(noise: float = 0.0, unlabelled: int = 0) -> QueryLog:
    queries = KnownItemQueries(("title",), lengths=(0.5, 0.5), noise=noise)
    return QueryLogConfig(queries, ItemCategories("path"), unlabelled).of(split())


def schooling(steps: int, rate: float = 0.02, batch_size: int = 8) -> Schooling:
    optimizer = AdamW(schedule=Constant(peak=rate), weight_decay=0.0)
    return Schooling(TrainingConfig(steps=steps, optimizer=optimizer, tensorboard=False), batch_size=batch_size)
