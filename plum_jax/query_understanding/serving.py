"""Served understanding: a table of what is asked often, a student for the rest, one function over both."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.traverse_util
import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.files import write_frame
from plum_jax.queries.words import KnownWords, words_of
from plum_jax.query_understanding.bag import BagReader
from plum_jax.query_understanding.classifier import FittedClassifier
from plum_jax.query_understanding.judge import Choice
from plum_jax.query_understanding.log import TAIL, QueryLog
from plum_jax.query_understanding.networks import BagConfig, BagNetwork
from plum_jax.query_understanding.rewrite_pairs import KINDS
from plum_jax.query_understanding.rewriter import FittedRewriter
from plum_jax.query_understanding.training import NetworkClassifier

KIND = "query_understanding"
TABLE_FILE, STUDENT_FILE, KNOWN_FILE = "queries.parquet", "student.npz", "known.json"


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
    by: Literal["table", "student"]


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is served.

    Attributes:
      choice: which categories a query is given.
      rewrites: of each kind, in the table.
    """

    choice: Choice = Choice(0.2)
    rewrites: int = 2

    def write(
        self,
        log: QueryLog,
        teacher: FittedClassifier,
        rewriter: FittedRewriter | None,
        student: NetworkClassifier,
        directory: epath.PathLike,
    ) -> None:
        """The artefact "query_understanding", which `open_served` reads and which needs no log: what teacher and
        rewriter say of the head's and the torso's queries ("query", "categories", "shares" and a column of each kind of
        rewrite), and the student.
        """
        frequent = [log.texts[query] for query in np.flatnonzero(log.band != TAIL)]
        categories = [log.taxonomy.ids[one] for one in log.classes]
        shares = teacher.shares(frequent)
        columns: dict[str, Any] = {"query": frequent, **_chosen(categories, self.choice, shares)}
        if rewriter is not None:
            columns |= {kind: rewriter.rewrites(kind, frequent, self.rewrites) for kind in KINDS}
        table = pl.DataFrame(columns)
        reader = student.read
        assert isinstance(reader, BagReader), "a student is a bag"
        known = {
            "categories": categories,
            "words": reader.known.words,
            "network": dataclasses.asdict(reader.config),
            "choice": dataclasses.asdict(self.choice),
        }
        params = flax.traverse_util.flatten_dict(student.params, sep="/")

        def write(aside: epath.Path) -> None:
            write_frame(aside / TABLE_FILE, table)
            artifact.write_json(aside / KNOWN_FILE, known)
            with (aside / STUDENT_FILE).open("wb") as file:
                np.savez(file, **params)

        made = artifact.fingerprint(table.write_json(), known, artifact.tree_fingerprint(student.params))
        inputs = {"log": log.fingerprint, "shares": artifact.fingerprint(shares)}
        artifact.write_artifact(directory, kind=KIND, fingerprint=made, config=self, inputs=inputs, write=write)


def open_served(directory: epath.PathLike) -> QueryUnderstanding:
    """What answers, from what `Serving.write` has written.

    Raises:
      ArtifactError: there is nothing.
    """
    artifact.read_manifest(directory, KIND)
    directory = epath.Path(directory)
    known = json.loads((directory / KNOWN_FILE).read_text())
    with (directory / TABLE_FILE).open("rb") as file:
        table = pl.read_parquet(file)
    with (directory / STUDENT_FILE).open("rb") as file:
        params = flax.traverse_util.unflatten_dict(dict(np.load(file)), sep="/")
    kinds = [kind for kind in KINDS if kind in table.columns]
    answers = {
        row["query"]: Understood(
            tuple(zip(row["categories"], row["shares"], strict=True)),
            {kind: tuple(row[kind]) for kind in kinds},
            "table",
        )
        for row in table.iter_rows(named=True)
    }
    reader = BagReader(BagConfig(**known["network"]), KnownWords(tuple(known["words"])))
    network = BagNetwork(reader.config, reader.known.size, len(known["categories"]))
    student = NetworkClassifier(network, params, reader, {})
    return QueryUnderstanding(Choice(**known["choice"]), known["categories"], answers, reader.known, student)


@dataclasses.dataclass(frozen=True, eq=False)
class QueryUnderstanding:
    """Answers queries: those of the table from it, all others by the student.

    Attributes:
      choice: which categories the student gives a query.
      categories: ids of the C classes.
      table: query -> answer.
      known: the student's words.
      student: for the tail.
    """

    choice: Choice
    categories: Sequence[str]
    table: Mapping[str, Understood]
    known: KnownWords
    student: NetworkClassifier

    def understand(self, queries: Sequence[str]) -> list[Understood]:
        """An answer to each query; capitals and stop words make no other query.

        Raises:
          ValueError: a query without a word, or none of whose words is known.
        """
        asked = [" ".join(words_of(query)) for query in queries]
        new = [row for row, query in enumerate(asked) if query not in self.table]
        for row in new:
            self.known.require(queries[row])
        columns = _chosen(self.categories, self.choice, self.student.shares([asked[row] for row in new]))
        by_student = {
            row: Understood(tuple(zip(categories, shares, strict=True)), {}, "student")
            for row, categories, shares in zip(new, columns["categories"], columns["shares"], strict=True)
        }
        return [by_student[row] if row in by_student else self.table[query] for row, query in enumerate(asked)]


def _chosen(categories: Sequence[str], choice: Choice, shares: np.ndarray) -> dict[str, list[list[Any]]]:
    """Lists "categories" (ids) and "shares" of shares [n, C], the greatest first."""
    given = choice.of(shares)
    order = [row[given[number][row]] for number, row in enumerate(np.argsort(-shares, axis=1, kind="stable"))]
    return {
        "categories": [[categories[one] for one in row] for row in order],
        "shares": [shares[number, row].round(4).tolist() for number, row in enumerate(order)],
    }
