"""How well pairs are judged: accuracy over classes, nDCG over a query's judged items, by kinds of queries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import polars as pl

from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.evaluation.metrics.graded import gains_of, ndcg_of_queries
from plum_jax.queries.words import words_of
from plum_jax.relevance.pairs import Pairs, RelevanceData

CUTOFFS = (10, 20)
COMPARED = ("accuracy", *(f"ndcg@{k}" for k in CUTOFFS))


@dataclasses.dataclass(frozen=True, eq=False)
class JudgedFold:
    """The judged pairs of a fold's queries, and what kind of query each is.

    Attributes:
      pairs: sorted by query.
      grades: float [n].
      lowest: grade of all data.
      kinds: name -> bool [Q], of the fold's queries in the order of their numbers: how many words, and whether one of
        them stands in no training query.
    """

    pairs: Pairs
    grades: np.ndarray
    lowest: float
    kinds: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, data: RelevanceData, fold: str) -> JudgedFold:
        """Of "validation" or "test"."""
        judged, pairs = data.judged, data.pairs(fold)
        grades = judged.grade[np.isin(judged.query, np.unique(pairs.query))]
        return cls(pairs, grades, data.classes.levels[0], kinds_of_queries(judged, np.unique(pairs.query)))

    def by_query(self, scores: np.ndarray, predicted: np.ndarray | None = None) -> pl.DataFrame:
        """A row a query: "query", "pairs", "ndcg@10", "ndcg@20" (NaN where no item has a gain), and "correct", pairs
        whose class is `predicted` int [n], where it is given.
        """
        query, gains = self.pairs.query, gains_of(self.grades, self.lowest)
        number, count = np.unique(query, return_counts=True)
        columns = {"query": number, "pairs": count}
        columns |= {f"ndcg@{k}": ndcg_of_queries(query, scores, gains, k) for k in CUTOFFS}
        if predicted is not None:
            place = np.searchsorted(number, query)
            columns["correct"] = np.bincount(place, predicted == self.pairs.label, minlength=len(number))
        return pl.DataFrame(columns)

    def metrics(self, of_queries: pl.DataFrame) -> dict[str, float]:
        """Means over all queries with their standard errors, and "<kind>_..." over those of a kind."""
        found: dict[str, float] = {}
        for kind, chosen in {"": np.ones(len(of_queries), bool), **self.kinds}.items():
            prefix = f"{kind}_" if kind else ""
            found[f"{prefix}queries"] = int(chosen.sum())
            for name in COMPARED if chosen.any() else ():
                values = values_of(of_queries.filter(chosen), name)
                values = values[np.isfinite(values)]
                if len(values):
                    found[prefix + name] = float(values.mean())
                    found[f"{prefix}{name}_se"] = float(values.std() / np.sqrt(len(values)))
        return found


def kinds_of_queries(judged: JudgedQueries, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Bool [Q] each: "short" (two words or less), "middle" (three, four), "long"; "new_words" (a word that no training
    query has) and "known_words".
    """
    known = {word for text in judged.training_queries for word in words_of(text)}
    words = [words_of(judged.queries[number]) for number in numbers]
    count = np.array([len(of_query) for of_query in words])
    new = np.array([any(word not in known for word in of_query) for of_query in words])
    return {
        "short": count <= 2,
        "middle": (count > 2) & (count <= 4),
        "long": count > 4,
        "new_words": new,
        "known_words": ~new,
    }


def values_of(of_queries: pl.DataFrame, name: str) -> np.ndarray:
    """float64 [Q], whose mean is the metric; of the accuracy, correct pairs over the mean number of pairs. NaN where a
    query, or a model, has none.
    """
    if name != "accuracy":
        return of_queries[name].to_numpy()
    if "correct" not in of_queries.columns:
        return np.full(len(of_queries), np.nan)
    return (of_queries["correct"] / of_queries["pairs"].mean()).to_numpy()


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
    """The mean of -log softmax(logits) at the label; a constant is what a model has to be below."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - np.take_along_axis(shifted, label[:, None], 1)[:, 0]))


def differences(first: pl.DataFrame, second: pl.DataFrame) -> dict[str, float]:
    """`first` less `second` on the same queries, "<metric>_difference" with its interval "..._low", "..._high"."""
    found: dict[str, float] = {}
    for name in COMPARED:
        a, b = (values_of(frame, name) for frame in (first, second))
        both = np.isfinite(a) & np.isfinite(b)
        if both.any():
            found |= paired_bootstrap(a[both], b[both]).named(f"{name}_difference")
    return found
