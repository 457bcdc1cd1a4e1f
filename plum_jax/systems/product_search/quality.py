"""Quality of items, appended to their vectors: statistics of training events, with weights that are tuned offline."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.corpus.splits import FOLDS, Split
from plum_jax.stages import Stages
from plum_jax.systems.product_search.system import SEARCH, FittedProductSearch

STATISTICS = ("popularity", "lateness", "activity")
FIRST = 10  # places of a list that quality is judged by
_SHRUNK_BY = 10.0  # events of the mean of all that an item's own are mixed with
KIND = "search_quality"


def quality_statistics(split: Split) -> np.ndarray:
    """float32 [N, 3] from training events alone, each with mean 0 and variance 1 over the items: log(1 + events); the
    mean place of an item's events in its users' training histories, 0 first to 1 last (what people take lately); and
    the mean log of how many training events its users have. The last two are shrunk to the mean of all events.

    Raises:
      LeakError: an evaluated event among them.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by="quality of items")
    count = split.item_popularity
    of_user = pl.col("item").len().over("user")
    place = pl.int_range(pl.len()).over("user") / (of_user - 1).clip(1)
    measured = events.select("item", place=place, activity=of_user.log())
    item = measured["item"].to_numpy()
    columns = [np.log1p(count)]
    for name in ("place", "activity"):
        values = measured[name].to_numpy().astype(np.float64)
        total = np.bincount(item, weights=values, minlength=len(count))
        columns.append((total + _SHRUNK_BY * values.mean()) / (count + _SHRUNK_BY))
    stacked = np.stack(columns, axis=1)
    return ((stacked - stacked.mean(axis=0)) / np.maximum(stacked.std(axis=0), 1e-6)).astype(np.float32)


def good_items(split: Split, fold: str) -> np.ndarray:
    """bool [N]: the fifth of the items that most events of a fold take, and those with as many as its last.

    Later events than any statistic has read; a fold's own, so that what is tuned on one is judged by another.
    """
    item = split.corpus.events["item"].to_numpy()[split.fold == FOLDS[fold]]
    count = np.bincount(item, minlength=split.corpus.num_items)
    return count >= max(np.quantile(count, 0.8), 1)


@dataclasses.dataclass(frozen=True)
class QualitySearch:
    """How the weights of the statistics are found: all combinations are tried on validation searches; of those whose
    recall at 10 is `recall_kept` of the highest or more, the one with the largest share of good items in the first 10.

    Attributes:
      weights: that each statistic may have, 0 among them; a score is a cosine, and a statistic has variance 1.
      recall_kept: share of the highest recall that must be left.
      searches: of validation, evenly spread; None: all.
    """

    weights: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1)
    recall_kept: float = 0.99
    searches: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        if 0 not in self.weights or not 0 < self.recall_kept <= 1:
            raise ValueError(f"expected 0 among the weights and recall_kept in (0, 1], got {self}")


@dataclasses.dataclass(frozen=True, eq=False)
class Quality:
    """Statistics and their weights.

    Attributes:
      statistics: float32 [N, S].
      weights: float32 [S].
    """

    statistics: np.ndarray
    weights: np.ndarray

    def of_items(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [N, D + S], vectors [N, D] with the weighed statistics behind: small beside a vector of length one,
        so that near items are those with like vectors, which an index relies on.
        """
        return np.concatenate([vectors, self.statistics * self.weights], axis=1)

    def of_searches(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [B, D + S], vectors [B, D] with ones behind: the product with an item's adds weights · statistics."""
        return np.concatenate([vectors, np.ones((len(vectors), len(self.weights)), np.float32)], axis=1)

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.statistics, self.weights)


class Tried(NamedTuple):
    """Attributes:
    weights: of the statistics.
    recall: at 10, on validation.
    good: share of good items in the first 10.
    """

    weights: tuple[float, ...]
    recall: float
    good: float


def tuned_quality(stages: Stages, name: str, fitted: FittedProductSearch, search: QualitySearch) -> Quality:
    """The quality with the weights that `search` chooses; what was tried is kept in `quality/<name>/tried.json`.

    Args:
      stages: of the run.
      name: of the model.
      fitted: it.
      search: how.
    """
    directory = stages.directory / "quality" / name
    statistics, inputs = quality_statistics(stages.split), {"model": fitted.fingerprint}
    if artifact.is_current(directory, kind=KIND, config=search, inputs=inputs):
        said = json.loads((directory / "tried.json").read_text())
        return Quality(statistics, np.array(said["weights"], np.float32))
    users, vectors = fitted.searches_of(SEARCH, "validation", search.searches)
    good, items = good_items(stages.split, "validation"), fitted.item_vectors
    cosines, rows = vectors @ items.T, []
    combinations = list(itertools.product(search.weights, repeat=statistics.shape[1]))
    for weights in tqdm(combinations, desc="weights of quality", delay=3):
        added = statistics @ np.array(weights, np.float32)
        first = highest(cosines + added, FIRST)
        recall = float((first == users.target_item[:, None]).any(axis=1).mean())
        rows.append(Tried(weights, recall, float(good[first].mean())))
    best = chosen(rows, search.recall_kept)
    said = {"weights": best.weights, "statistics": STATISTICS, "tried": [row._asdict() for row in rows]}

    def write(aside: Any) -> None:
        artifact.write_json(aside / "tried.json", said)

    made = artifact.fingerprint(said)
    artifact.write_artifact(directory, kind=KIND, fingerprint=made, config=search, inputs=inputs, write=write)
    return Quality(statistics, np.array(best.weights, np.float32))


def highest(scores: np.ndarray, k: int) -> np.ndarray:
    """int64 [n, min(k, N)], items of the highest scores float [n, N], in no order."""
    wanted = min(k, scores.shape[1])
    return np.argpartition(-scores, wanted - 1, axis=1)[:, :wanted]


def chosen(rows: list[Tried], recall_kept: float) -> Tried:
    """Of those with enough recall the one with the largest share of good items, the first of equals."""
    least = recall_kept * max(row.recall for row in rows)
    return max((row for row in rows if row.recall >= least), key=lambda row: row.good)
