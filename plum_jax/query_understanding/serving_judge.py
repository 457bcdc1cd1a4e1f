"""What is served against the teacher: the share that the table answers, first hits, and milliseconds of a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from plum_jax.corpus.splits import FOLDS
from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.query_understanding.classifier import FittedClassifier
from plum_jax.query_understanding.log import QueryLog, evenly_spread
from plum_jax.query_understanding.serving import QueryUnderstanding

_TIMED, _UNCOUNTED = 200, 5


def judged_serving(
    log: QueryLog, service: QueryUnderstanding, teacher: FittedClassifier, at_most: int | None = None
) -> dict[str, Any]:
    """Of test requests (events, not distinct queries): "table_share", those that the table answers; "hit@1", those
    whose first category is that of the item taken, as served and by the teacher for all; and "_ms", the median
    milliseconds of a single request by each way.

    Args:
      log: whose requests.
      service: what answers.
      teacher: for comparison.
      at_most: test events, evenly spread; None: all.
    """
    events = evenly_spread(log.events_of(FOLDS["test"]), at_most)
    asked, of_event = np.unique(log.query[events], return_inverse=True)
    texts = [log.texts[query] for query in asked]
    answerable = np.array([_known(service, text) for text in texts])
    answers = iter(service.understand([text for text, one in zip(texts, answerable, strict=True) if one]))
    answers_of = [next(answers) if one else None for one in answerable]
    from_table = np.array([answer is not None and answer.by == "table" for answer in answers_of])
    first = np.array([answer.categories[0][0] if answer else "" for answer in answers_of])
    ids = np.array([log.taxonomy.ids[one] for one in log.classes])
    taken = ids[log.class_of_event[events]]
    served = (first[of_event] == taken).astype(np.float64)
    best = (ids[teacher.shares(texts).argmax(axis=1)][of_event] == taken).astype(np.float64)
    row: dict[str, Any] = {
        "requests": len(events),
        "table_queries": len(service.table),
        "table_share": float(from_table[of_event].mean()),
        "unknown_share": float(1 - answerable[of_event].mean()),
        "hit@1": float(served.mean()),
        "hit@1_se": float(served.std() / np.sqrt(len(served))),
        "teacher_hit@1": float(best.mean()),
        **paired_bootstrap(served, best).named("hit@1_over_teacher"),
    }
    for name, chosen in (("table", from_table), ("student", answerable & ~from_table)):
        some = [text for text, one in zip(texts, chosen, strict=True) if one]
        if some:
            row[f"{name}_hit@1"] = float(served[chosen[of_event]].mean())
            row[f"{name}_teacher_hit@1"] = float(best[chosen[of_event]].mean())
            row[f"{name}_ms"] = milliseconds(lambda query: service.understand([query]), some)
    row["teacher_ms"] = milliseconds(lambda query: teacher.shares([query]), texts)
    return row


def milliseconds(answer: Callable[[str], Any], queries: Sequence[str]) -> float:
    """Median of single requests, one after the other; the first few, which may compile, do not count."""
    seconds = []
    for query in list(queries)[: _TIMED + _UNCOUNTED]:
        begun = time.perf_counter()
        answer(query)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds[min(_UNCOUNTED, len(seconds) - 1) :]) * 1e3)


def _known(service: QueryUnderstanding, query: str) -> bool:
    """Whether it is answered: an unknown query is refused, and counts as a miss."""
    try:
        service.known.require(query)
    except ValueError:
        return False
    return True
