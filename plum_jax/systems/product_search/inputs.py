"""What the query's tower reads: the query, and what its user searched for and took before."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.splits import TRAIN, EvaluationSet, Split
from plum_jax.encoders.token_rows import TokenRows
from plum_jax.feeds.batches import Batch
from plum_jax.queries.category_paths import ItemQueries


@dataclasses.dataclass(frozen=True, eq=False)
class Queries:
    """Texts of queries by number.

    Attributes:
      tokens: in pieces.
      words: int32 [Q, W], known words, 0 behind the last.
    """

    tokens: TokenRows
    words: np.ndarray

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(*self.tokens, self.words)

    def followed_by(self, other: Queries) -> Queries:
        """These and behind them others of the same lengths."""
        parts = zip((*self.tokens, self.words), (*other.tokens, other.words), strict=True)
        tokens, lengths, words = (np.concatenate(both) for both in parts)
        return Queries(TokenRows(tokens, lengths), words)


@dataclasses.dataclass(frozen=True, eq=False)
class Searches:
    """Columns [n] of searches.

    Attributes:
      query: int32, number of the query.
      past_items: int32 [n, H], 1 + the items that the user took before, newest first; 0: no more.
      past_queries: int32 [n, H], 1 + the queries that these were searched with; 0: none, or one that is held out.
      place: int32, of the user; 0: unknown.
      target: int32, the item that was taken.
    """

    query: np.ndarray
    past_items: np.ndarray
    past_queries: np.ndarray
    place: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.query)

    def columns(self, queries: Queries, rows: np.ndarray) -> Batch:
        """Of searches by row int [B], what the query's tower reads: "query_tokens" [B, T], "query_lengths" [B],
        "query_words" [B, W], "past_items" [B, H], "past_words" [B, H * W], "place" [B], all int32.
        """
        words = np.concatenate([np.zeros_like(queries.words[:1]), queries.words])
        query, past = self.query[rows], self.past_queries[rows]
        return {
            **TokenRows(queries.tokens.tokens[query], queries.tokens.lengths[query]).columns("query_"),
            "query_words": queries.words[query],
            "past_items": self.past_items[rows],
            "past_words": words[past].reshape(len(rows), past.shape[1] * words.shape[1]),
            "place": self.place[rows],
        }


def training_searches(split: Split, queries: ItemQueries, places: np.ndarray, history: int) -> Searches:
    """Every training event whose item has a query that is not held out, guarded against leaks.

    Args:
      split: of the run.
      queries: of its items.
      places: int32 [U], of its users.
      history: H, at most.

    Raises:
      ValueError: no such event.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by="product search")
    item, user = events["item"].to_numpy(), events["user"].to_numpy()
    number = queries.of_item[item]
    chosen = np.flatnonzero((number >= 0) & (queries.fold[number] == TRAIN))
    if not len(chosen):
        raise ValueError(f"no item with a training query has a training event in corpus {split.corpus.name!r}")
    past = newest(item, np.searchsorted(user, user[chosen]), chosen, history)
    return searches(queries, number[chosen], past, places[user[chosen]], item[chosen])


def evaluation_searches(users: EvaluationSet, queries: ItemQueries, places: np.ndarray, history: int) -> Searches:
    """A search a user of a fold, for the user's target; arguments as of `training_searches`."""
    past = newest(users.history_items, users.history_offsets[:-1], users.history_offsets[1:], history)
    return searches(queries, queries.of_item[users.target_item], past, places[users.user], users.target_item)


def searches(
    queries: ItemQueries, query: np.ndarray, past_items: np.ndarray, place: np.ndarray, target: np.ndarray
) -> Searches:
    """With the queries of the past items, but for those that are held out: no words of theirs are read in training."""
    of_item = np.concatenate([[0], np.where(_trained(queries), 1 + queries.of_item, 0)]).astype(np.int32)
    return Searches(query.astype(np.int32), past_items, of_item[past_items], place, target.astype(np.int32))


def _trained(queries: ItemQueries) -> np.ndarray:
    """bool [N], items whose query is there and is not held out."""
    return (queries.of_item >= 0) & (queries.fold[queries.of_item] == TRAIN)


def newest(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """int32 [n, count], 1 + the last items of stretches [start, end) of items int [E], newest first; 0 fills."""
    places = ends[:, None] - 1 - np.arange(count)
    there = places >= starts[:, None]
    return np.where(there, 1 + items[np.maximum(places, 0)] if len(items) else 0, 0).astype(np.int32)
