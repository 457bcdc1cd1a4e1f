"""Requests as they come to a service: a task's name, a query's text, ids of user and source item; items in return."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plum_jax.corpus.features.text import embed_texts, item_texts
from plum_jax.systems.unicorn.examples import NO_QUERY, NO_SOURCE, SEARCH, SIMILAR, TASKS
from plum_jax.systems.unicorn.inputs import Inputs, QueryTable
from plum_jax.systems.unicorn.ranking import best_items
from plum_jax.systems.unicorn.system import FittedUnicorn


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
      task: "search", "similar" or "homepage".
      query: of a search.
      source: id of the item that is looked at, for similar items.
      user: id; None: nobody.
      fields: values of country, segment, ...: those that are not said are unknown.
    """

    task: str
    query: str | None = None
    source: str | None = None
    user: str | None = None
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def answers(fitted: FittedUnicorn, requests: Sequence[Request], k: int) -> list[list[tuple[str, float]]]:
    """The k items of each request, best first, with logits. Users are as their newest vectors know them.

    What a task has not is imputed as in training: similar items have the source item's words as query, a search has no
    source item, the homepage has neither.

    Raises:
      ValueError: a task that is unknown or was not trained, a query that is missing, empty or of unknown words, an item
        or user that the corpus does not have, or a field's value that was not in training.
    """
    data, corpus = fitted.data, fitted.data.split.corpus
    item = {name: place for place, name in enumerate(corpus.items["item_id"])}
    user = {name: place for place, name in enumerate(corpus.users["user_id"])}
    texts = item_texts(corpus, fitted.config.text_fields, "items")
    queries, sources, users, fields = [""], [], [], []
    for request in requests:
        fitted.require_task(request.task)
        sources.append(_place(item, request.source, "an item", "source") if request.task == SIMILAR else NO_SOURCE)
        queries.append(_query(fitted, request, texts[sources[-1]]))
        who = None if request.user is None else _place(user, request.user, "a user", "user")
        users.append(0 if who is None else data.inputs.users.of_user[who])
        fields.append(data.inputs.fields.asked(request.fields))
    vectors = embed_texts(queries, fitted.config.text_dim, "queries")
    table = QueryTable(data.words.numbers(queries, fitted.config.query_words), vectors)
    inputs = Inputs(table, data.inputs.users, data.inputs.fields, data.inputs.words)
    places = np.arange(1, len(queries))
    query = np.where([bool(text) for text in queries[1:]], places, NO_QUERY)
    task = np.array([TASKS.index(request.task) for request in requests], np.int32)
    contexts = inputs.contexts(task, np.array(sources, np.int32), query, np.array(users), np.stack(fields))
    nothing = [np.zeros(0, np.int32)] * len(requests)
    lists, logits = best_items(fitted.network, fitted.params, contexts, nothing, k)
    ids = corpus.items["item_id"]
    return [
        [(ids[int(one)], float(logit)) for one, logit in zip(row, scores, strict=True) if one >= 0]
        for row, scores in zip(lists.items, logits, strict=True)
    ]


def _query(fitted: FittedUnicorn, request: Request, of_source: str) -> str:
    """The query of a search; the words of the source item; nothing."""
    if request.task == SEARCH:
        fitted.data.words.require(request.query or "")
        return request.query or ""
    return of_source if request.task == SIMILAR else ""


def _place(places: Mapping[str, int], name: str | None, kind: str, field: str) -> int:
    if name is None or name not in places:
        there = next(iter(places))
        raise ValueError(f"{field}: expected the id of {kind} of the corpus, such as {there!r}, got {name!r}")
    return places[name]
