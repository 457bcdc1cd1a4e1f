"""Queries of two words and titles of four; a grade says how many of the query's words the title has."""

from __future__ import annotations

import pathlib

import numpy as np
import polars as pl

from plum_jax.corpus.sources.judgements import Judgements
from plum_jax.relevance.classes import OrderedClasses
from plum_jax.relevance.pairs import NearPairs, Pairs, RelevanceData

WORDS = ("red", "blue", "lamp", "drill", "clock", "chair", "steel", "wood", "garden", "kitchen", "bolt", "hose")
QUERIES, ITEMS = 60, 80
FOLDS = ("train", "train", "train", "test", "validation")


def rows(seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Judgements, six a query, and items."""
    random = np.random.default_rng(seed)
    titles = [" ".join(random.choice(WORDS, 4, replace=False)).title() for _ in range(ITEMS)]
    pairs = []
    for query in range(QUERIES):
        words = random.choice(WORDS, 2, replace=False)
        for item in random.choice(ITEMS, 6, replace=False):
            grade = 1.0 + sum(word in titles[item].lower().split() for word in words)
            pairs.append((query, " ".join(words), int(item), grade, FOLDS[query % 5]))
    columns = ["query_id", "query", "item_id", "relevance", "fold"]
    items = pl.DataFrame({"item_id": range(ITEMS), "title": titles})
    return pl.DataFrame(pairs, schema=columns, orient="row"), items


def write(directory: pathlib.Path) -> Judgements:
    """Both tables as TSV."""
    judgements, items = rows()
    judgements.write_csv(directory / "judgements.tsv", separator="\t")
    items.write_csv(directory / "items.tsv", separator="\t")
    return Judgements(str(directory / "judgements.tsv"), str(directory / "items.tsv"))


def data(directory: pathlib.Path) -> RelevanceData:
    """Of three classes, with two unlabelled pairs a query."""
    classes = OrderedClasses((1.0, 2.0, 3.0))
    judged = classes.read(write(directory))
    return RelevanceData(judged, classes, NearPairs(per_query=2, nearest=8, dim=16).of(judged))


def some_pairs(count: int = 9) -> Pairs:
    """Of any queries and items."""
    random = np.random.default_rng(0)
    query, item = random.integers(0, QUERIES, count), random.integers(0, ITEMS, count)
    return Pairs(query, item, np.zeros(count, np.int32))
