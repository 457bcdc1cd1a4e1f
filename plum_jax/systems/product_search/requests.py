"""A search as it comes to a service: the text of a query and the id of a user; items in return, by the index."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.queries.words import words_of
from plum_jax.retrieval.ann_index import NOTHING, BuiltIndex
from plum_jax.systems.product_search.inputs import Queries, newest, searches
from plum_jax.systems.product_search.network import TEXT
from plum_jax.systems.product_search.quality import Quality
from plum_jax.systems.product_search.system import FittedProductSearch


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
      query: its text.
      user: id; None: nobody.
      threshold: items whose cosine, without what quality adds, is less are left out; None: none is.
    """

    query: str
    user: str | None = None
    threshold: float | None = None


def answer(
    fitted: FittedProductSearch, quality: Quality, index: BuiltIndex, request: Request, k: int, effort: int = 64
) -> list[tuple[str, float]]:
    """The first k items of a request with their scores, best first. The user is as known after all their events.

    A query is refused that says nothing: without words, or where no word is known and only words are read. A text
    transformer reads pieces, down to single bytes, so that it can read any word; one that is new is read by its pieces.

    Raises:
      ValueError: such a query, or a user that the corpus does not have.
    """
    data, config = fitted.data, fitted.config
    if TEXT not in config.network.parts or not words_of(request.query):
        data.words.require(request.query)
    user, corpus = _user(fitted, request.user), data.split.corpus
    starts, ends = (np.zeros(1, np.int64),) * 2
    if user is not None:
        starts, ends = corpus.history_offsets[user : user + 1], corpus.history_offsets[user + 1 : user + 2]
    asked = data.queries.followed_by(
        Queries(
            data.model.rows([request.query], config.query_pieces),
            data.words.numbers([request.query], config.query_words),
        )
    )
    past = newest(corpus.events["item"].to_numpy(), starts, ends, config.history)
    place = np.array([0 if user is None else data.user_places[user]])
    number = np.array([len(data.queries.words)])  # of the query, behind those that there are
    found = searches(data.item_queries, number, past, place, np.zeros(1))
    vectors = quality.of_searches(fitted.vectors_of(found, asked))
    scores, items = index.search(vectors, k, effort, k if index.vectors is None else 4 * k)
    added = quality.statistics @ quality.weights
    return [
        (index.ids[item], float(score))
        for score, item in zip(scores[0], items[0], strict=True)
        if item != NOTHING and (request.threshold is None or score - added[item] >= request.threshold)
    ]


def _user(fitted: FittedProductSearch, name: str | None) -> int | None:
    if name is None:
        return None
    there = fitted.data.split.corpus.users["user_id"]
    found = (there == name).arg_max()
    if found is None or there[found] != name:
        raise ValueError(f"user: expected the id of a user of the corpus, such as {there[0]!r}, got {name!r}")
    return int(found)
