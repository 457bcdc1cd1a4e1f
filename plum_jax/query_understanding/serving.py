"""Served understanding: a table of what is asked often, a student for the rest, one function over both."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import FOLDS
from plum_jax.evaluation.files import write_frame
from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.query_understanding.bag import BagClassifier, FittedBag
from plum_jax.query_understanding.classifier import FittedClassifier
from plum_jax.query_understanding.judge import Choice
from plum_jax.query_understanding.log import TAIL, QueryLog
from plum_jax.query_understanding.rewrite_pairs import KINDS
from plum_jax.query_understanding.rewriter import FittedRewriter
from plum_jax.queries.words import words_of

KIND, FILE = "query_table", "queries.parquet"
By = Literal["table", "student"]


@dataclasses.dataclass(frozen=True)
class Understood:
    """What is known of a query.

    Attributes:
      categories: ids with their shares, the greatest first.
      rewrites: kind -> queries; none where the student has answered.
      by: who has answered.
    """

    categories: tuple[tuple[str, float], ...]
    rewrites: Mapping[str, tuple[str, ...]]
    by: By


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is served.

    Attributes:
      choice: which classes a query is given.
      rewrites: of each kind, in the table.
    """

    choice: Choice = Choice(0.2)
    rewrites: int = 2

    def write_table(
        self, log: QueryLog, teacher: FittedClassifier, rewriter: FittedRewriter | None, directory: epath.Path
    ) -> None:
        """The head's and the torso's queries, each once, with what the teacher and the rewriter say: the artefact
        "query_table" with "query", "categories", "shares" and a column of each kind of rewrite. What is there already is
        left.
        """
        frequent = [log.texts[query] for query in np.flatnonzero(log.band != TAIL)]
        shares = teacher.shares(frequent)
        frame: dict[str, Any] = {"query": frequent, **_chosen(log, self.choice, shares)}
        for kind in KINDS if rewriter is not None else ():
            assert rewriter is not None
            frame[kind] = rewriter.rewrites(kind, frequent, self.rewrites)
        table = pl.DataFrame(frame)
        made = artifact.fingerprint(table.write_json())
        inputs = {"log": log.fingerprint, "shares": artifact.fingerprint(shares)}
        artifact.write_artifact(
            directory,
            kind=KIND,
            fingerprint=made,
            config=self,
            inputs=inputs,
            write=lambda aside: write_frame(aside / FILE, table),
        )

    def open(self, log: QueryLog, student: FittedBag, directory: epath.Path) -> QueryUnderstanding:
        """What answers, from a table that `write_table` has written.

        Raises:
          ArtifactError: there is no table, or it is one of another log.
        """
        manifest = artifact.read_manifest(directory, KIND)
        if manifest.inputs["log"] != log.fingerprint:
            raise artifact.ArtifactError(f"{directory} is a table of another query log: write it again")
        with (directory / FILE).open("rb") as file:
            table = pl.read_parquet(file)
        kinds = [kind for kind in KINDS if kind in table.columns]
        known = {
            row["query"]: Understood(
                tuple(zip(row["categories"], row["shares"], strict=True)),
                {kind: tuple(row[kind]) for kind in kinds},
                "table",
            )
            for row in table.iter_rows(named=True)
        }
        return QueryUnderstanding(self.choice, log, known, student)


@dataclasses.dataclass(frozen=True, eq=False)
class QueryUnderstanding:
    """Answers queries: those of the table from it, all others by the student.

    Attributes:
      choice: which classes a query is given by the student.
      log: whose classes they are.
      table: query -> answer.
      student: for the tail.
    """

    choice: Choice
    log: QueryLog
    table: Mapping[str, Understood]
    student: FittedBag

    def understand(self, queries: Sequence[str]) -> list[Understood]:
        """An answer to each query; words in another order or writing are the same query where the table has it.

        Raises:
          ValueError: a query without a word, or none of whose words is known.
        """
        asked = [" ".join(words_of(query)) for query in queries]
        new = [row for row, query in enumerate(asked) if query not in self.table]
        for row in new:
            self.student.known.require(queries[row])
        shares = self.student.shares([asked[row] for row in new])
        columns = _chosen(self.log, self.choice, shares)
        by_student = {
            row: Understood(tuple(zip(categories, of_row, strict=True)), {}, "student")
            for row, categories, of_row in zip(new, columns["categories"], columns["shares"], strict=True)
        }
        return [by_student[row] if row in by_student else self.table[query] for row, query in enumerate(asked)]


def _chosen(log: QueryLog, choice: Choice, shares: np.ndarray) -> dict[str, list[list[Any]]]:
    """Lists "categories" (ids) and "shares", the greatest first."""
    given = choice.of(shares)
    order = [row[given[number][row]] for number, row in enumerate(np.argsort(-shares, axis=1, kind="stable"))]
    ids = np.array(log.taxonomy.ids, object)[log.classes]
    return {
        "categories": [ids[row].tolist() for row in order],
        "shares": [shares[number, row].round(4).tolist() for number, row in enumerate(order)],
    }


@dataclasses.dataclass(frozen=True)
class Costs:
    """How long single requests take.

    Attributes:
      requests: that are timed, one after the other.
    """

    requests: int = 200

    def milliseconds(self, answer: Callable[[str], Any], queries: Sequence[str]) -> float:
        """Median of one request, the first few left out."""
        seconds = []
        for query in list(queries)[: self.requests]:
            begun = time.perf_counter()
            answer(query)
            seconds.append(time.perf_counter() - begun)
        return float(np.median(seconds[min(5, len(seconds) - 1) :]) * 1e3)


def judged_serving(
    service: QueryUnderstanding, teacher: FittedClassifier, costs: Costs = Costs(), at_most: int | None = None
) -> dict[str, Any]:
    """Of test requests (events, not distinct queries): the share that the table answers, the share whose first category
    is that of the item taken, served and by the teacher for all, and milliseconds of a request by each way.

    Args:
      service: what answers.
      teacher: for comparison.
      costs: how requests are timed.
      at_most: test events, evenly spread; None: all.
    """
    log = service.log
    events = log.events_of(FOLDS["test"])
    if at_most is not None and at_most < len(events):
        events = events[np.linspace(0, len(events) - 1, at_most).astype(int)]
    asked, of_event = np.unique(log.query[events], return_inverse=True)
    texts = [log.texts[query] for query in asked]
    answers = service.understand(texts)
    from_table = np.array([answer.by == "table" for answer in answers])
    first = np.array([answer.categories[0][0] for answer in answers])
    ids = np.array(log.taxonomy.ids)[log.classes]
    taken = ids[log.class_of_event[events]]
    served = (first[of_event] == taken).astype(np.float64)
    best = (ids[teacher.shares(texts).argmax(axis=1)][of_event] == taken).astype(np.float64)
    less = paired_bootstrap(served, best)
    row = {
        "requests": len(events),
        "table_queries": len(service.table),
        "table_share": float(from_table[of_event].mean()),
        "hit@1": float(served.mean()),
        "hit@1_se": float(served.std() / np.sqrt(len(served))),
        "teacher_hit@1": float(best.mean()),
        "hit@1_over_teacher": less.mean,
        "hit@1_over_teacher_low": less.low,
        "hit@1_over_teacher_high": less.high,
    }
    for name, chosen in (("table", from_table), ("student", ~from_table)):
        some = [text for text, one in zip(texts, chosen, strict=True) if one]
        if some:
            row[f"{name}_hit@1"] = float(served[chosen[of_event]].mean())
            row[f"teacher_hit@1_where_{name}"] = float(best[chosen[of_event]].mean())
            row[f"{name}_ms"] = costs.milliseconds(lambda query: service.understand([query]), some)
    row["teacher_ms"] = costs.milliseconds(lambda query: teacher.shares([query]), texts)
    return row
