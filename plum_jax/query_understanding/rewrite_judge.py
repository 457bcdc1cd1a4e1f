"""Rewrites judged by what they retrieve: queries without a result, and the item that was taken."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse

from plum_jax.corpus.features.text import item_texts
from plum_jax.corpus.splits import FOLDS, Split
from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.queries.words import words_of
from plum_jax.query_understanding.log import QueryLog, evenly_spread
from plum_jax.query_understanding.rewrite_pairs import KINDS
from plum_jax.query_understanding.rewriter import FittedRewriter
from plum_jax.query_understanding.similar import ByText, numbers_of_words, word_matrix

ORIGINAL, ALL_KINDS, NEAREST = "original", "one of each", "nearest"


@dataclasses.dataclass(frozen=True, eq=False)
class TitleSearch:
    """Items with all words of a query in their text, the most popular in training first.

    Attributes:
      texts: of the N items.
      popularity: int64 [N].
    """

    texts: tuple[str, ...]
    popularity: np.ndarray

    @classmethod
    def of(cls, split: Split, fields: Sequence[str]) -> TitleSearch:
        return cls(tuple(item_texts(split.corpus, tuple(fields), "titles")), split.item_popularity)

    @functools.cached_property
    def _items_of_words(self) -> tuple[dict[str, int], scipy.sparse.csr_array]:
        """Numbers of words, and [W, N], columns in order of popularity."""
        numbers = numbers_of_words(self.texts)
        return numbers, word_matrix(self.texts, numbers)[self._order].T.tocsr()

    @functools.cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(-self.popularity, kind="stable")

    def found(self, queries: Sequence[str], most: int) -> list[np.ndarray]:
        """int64 [<= most] items of each query; none where a word is in no text."""
        numbers, items_of_words = self._items_of_words
        hits = (word_matrix(queries, numbers) @ items_of_words).tocsr()
        hits.sort_indices()
        wanted = np.array([len(words_of(query)) for query in queries])
        whole = hits.data >= np.repeat(wanted, np.diff(hits.indptr)) - 0.5
        lists = np.split(np.arange(len(hits.data)), hits.indptr[1:-1])
        return [self._order[hits.indices[places[whole[places]]][:most]] for places in lists]


def judged_rewrites(
    log: QueryLog,
    fitted: FittedRewriter,
    search: TitleSearch,
    *,
    count: int = 3,
    k: int = 100,
    at_most: int | None = None,
) -> list[dict[str, Any]]:
    """Rows "original", each kind of rewrite, "one of each" kind and "nearest", the training queries that are nearest by
    text: `count` further queries for all but the first.

    "zero" is the share of test events whose query, with its rewrites, finds nothing, "recall@k" that of events whose
    item is among the first k found, the query's own before those of its rewrites. "zero_query_recall@k" is of the
    events whose query alone finds nothing. Differences are to "original" and, where that is another, to "nearest", by
    paired bootstrap over events.

    Args:
      log, fitted, search: queries, rewrites, and how items are found.
      count: rewrites of a query; of "one of each" kind, one each.
      k: items.
      at_most: test events, evenly spread; None: all.
    """
    events = evenly_spread(log.events_of(FOLDS["test"]), at_most)
    item = log.split.corpus.events["item"].to_numpy()[events]
    asked, of_event = np.unique(log.query[events], return_inverse=True)
    texts = [log.texts[query] for query in asked]
    written: dict[str, list[list[str]]] = {ORIGINAL: [[] for _ in texts]}
    of_kinds = [fitted.rewrites(kind, texts, count) for kind in KINDS]
    written |= dict(zip(KINDS, of_kinds, strict=True))
    written[ALL_KINDS] = [[some[0] for some in of_text if some] for of_text in zip(*of_kinds, strict=True)]
    written[NEAREST] = nearest_queries(fitted.allowed, texts, count)
    values = {name: _values(search, texts, some, of_event, item, k) for name, some in written.items()}
    empty = values[ORIGINAL]["zero"] > 0
    for of_name in values.values():
        of_name[f"zero_query_recall@{k}"] = of_name[f"recall@{k}"][empty]
    return [
        {"rewrites": name, "events": len(events), "zero_events": int(empty.sum()), **_row(values, name)}
        for name in values
    ]


def nearest_queries(allowed: Sequence[str], texts: Sequence[str], count: int) -> list[list[str]]:
    """The allowed queries nearest to each text by text vectors, less the text itself."""
    found = ByText(nearest=count + 1).index(allowed).similarities(texts)
    lists = np.split(found.indices, found.indptr[1:-1])
    return [
        [allowed[one] for one in some if allowed[one] != text][:count] for some, text in zip(lists, texts, strict=True)
    ]


def _values(
    search: TitleSearch,
    texts: Sequence[str],
    written: Sequence[Sequence[str]],
    of_event: np.ndarray,
    item: np.ndarray,
    k: int,
) -> dict[str, np.ndarray]:
    """ "zero" and "recall@k" of each event."""
    asked = [query for text, some in zip(texts, written, strict=True) for query in (text, *some)]
    lists = search.found(asked, k)
    ends = np.cumsum([1 + len(some) for some in written])
    unions = [
        list(dict.fromkeys(np.concatenate(lists[end - 1 - len(some) : end]).tolist()))[:k]
        for end, some in zip(ends, written, strict=True)
    ]
    zero = np.array([not union for union in unions], np.float64)
    hits = [float(one in unions[text]) for text, one in zip(of_event, item.tolist(), strict=True)]
    return {"zero": zero[of_event], f"recall@{k}": np.array(hits)}


def _row(values: Mapping[str, Mapping[str, np.ndarray]], name: str) -> dict[str, float]:
    row: dict[str, float] = {}
    for metric, of_events in values[name].items():
        if not len(of_events):
            continue
        row |= {metric: float(of_events.mean()), f"{metric}_se": float(of_events.std() / np.sqrt(len(of_events)))}
        for base in (ORIGINAL, NEAREST):
            if base != name and name != ORIGINAL:
                one = paired_bootstrap(of_events, values[base][metric])
                row |= one.named(f"{metric}_over_{base}")
    return row
