"""What an answer costs: milliseconds of one query with its candidates, and pairs a second, on one machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from plum_jax.relevance.fitted import FittedRelevance
from plum_jax.relevance.pairs import Pairs

CANDIDATES = (20, 100)
QUERIES = 5  # that are asked, a round each
ROUNDS = 3  # of the throughput


def speed_of(fitted: FittedRelevance, queries: Sequence[str], pairs: int = 256, seed: int = 0) -> dict[str, float]:
    """Medians, everything compiled before: "ms_20" and "ms_100", from a query's text to the levels of so many items;
    "pairs_per_second" of many queries at once, from their texts to logits.

    What of the items does not hang on a query (tokens, vectors) is computed before, for every kind of model.

    Args:
      fitted: the model.
      queries: texts, a round each.
      pairs: of the throughput.
      seed: of the items, the same for all models.
    """
    random, count = np.random.default_rng(seed), len(fitted.data.judged.texts)
    found: dict[str, float] = {}
    for candidates in CANDIDATES:
        items = [random.integers(0, count, candidates) for _ in queries]
        asked = [_call(fitted.levels, query, of_query) for query, of_query in zip(queries, items, strict=True)]
        for call in asked:
            call()  # compiles, as below
        found[f"ms_{candidates}"] = 1000 * _median_seconds(asked)
    number, item = random.integers(0, len(queries), pairs), random.integers(0, count, pairs)
    chosen = Pairs(number.astype(np.int32), item.astype(np.int32), np.zeros(pairs, np.int32))

    def many() -> np.ndarray:
        return fitted.scorer.logits(fitted.reader.read_queries(queries), chosen)

    many()  # compiles what its lengths need
    return found | {"pairs_per_second": pairs / _median_seconds([many] * ROUNDS)}


def _call(function: Callable, *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def _median_seconds(calls: Sequence[Callable[[], object]]) -> float:
    seconds = []
    for call in calls:
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
