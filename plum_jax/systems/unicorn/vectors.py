"""Vectors of users from a pre-trained model, as a ranker reads them: those that were known before each event."""

from __future__ import annotations

import dataclasses
import functools
import json
from typing import Protocol

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.fields_read import READ
from plum_jax.corpus.features.file import FileEmbedding
from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.evaluation.files import write_frame
from plum_jax.ranking.knowledge import Knowledge
from plum_jax.stages import Stages

KIND = "user_vectors"
UNKNOWN = -1  # instead of a row: nothing is known of the user then


@dataclasses.dataclass(frozen=True, eq=False)
class UserVectors:
    """Attributes:
    vectors: float32 [R, V].
    of_event: int32 [E], the row that was known before each event of the corpus; `UNKNOWN`: none.
    of_user: int32 [U], the newest row of each user; `UNKNOWN`: none.
    items: float32 [N, D], the same model's vectors of items; V is a multiple of D. None: it gives none.
    fields_read: columns of items and events that the model has read, as far as that is known.
    """

    vectors: np.ndarray
    of_event: np.ndarray
    of_user: np.ndarray
    items: np.ndarray | None = None
    fields_read: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.items is not None and self.vectors.shape[1] % self.items.shape[1]:
            raise ValueError(
                f"expected vectors of users to be one or more of the width of those of items, {self.items.shape[1]}, "
                f"got {self.vectors.shape[1]}: give the item vectors of the model that gave those of users"
            )

    @functools.cached_property
    def fingerprint(self) -> str:
        of_items = "none" if self.items is None else self.items
        return artifact.fingerprint(self.vectors, self.of_event, self.of_user, of_items)


class VectorSource(Protocol):
    """A frozen dataclass, bound in gin: `VectorFile`, `KnowledgeVectors`."""

    def read(self, stages: Stages) -> UserVectors:
        """Of the users and events of `stages.corpus`; what an event is told must know nothing of it or a later one."""


@dataclasses.dataclass(frozen=True)
class VectorFile:
    """A Parquet table of any model's: "user_id", "vector" (a list of numbers), and best "events" (integer).

    A row with "events" knows the user's first so many events, in the corpus's order, and is told to later ones alone; a
    user may have many such rows, and an event reads the newest. A table without that column is taken as known before
    every event: it must then come from other data than the training events, for vectors that have read what a ranker is
    asked about give it away in training and not later.

    Attributes:
      path: of the table.
      items_path: of the same model's vectors of items, a Parquet table of "item_id" and "vector"; None: none. The
        product of both is then an input.
    """

    path: str
    items_path: str | None = None

    def read(self, stages: Stages) -> UserVectors:
        """Ids that the corpus does not have are ignored; users without a row are unknown; both are counted in a line.

        Raises:
          CorpusError: no such file or column, vectors of several lengths or not finite, a user twice with as many
            events, or no user of the corpus at all.
        """
        corpus, frame = stages.corpus, self._frame()
        users = corpus.users.select(pl.col("user_id"), user=pl.int_range(pl.len()))
        found = frame.join(users, on="user_id", how="inner", maintain_order="left")
        if not found.height:
            raise CorpusError(
                f"none of its {frame['user_id'].n_unique():,} users (such as {frame['user_id'][0]!r}) is a user of "
                f"corpus {corpus.name!r} (such as {corpus.users['user_id'][0]!r}): it is a table of other users",
                file=self.path,
                field="user_id",
            )
        there = found["user"].n_unique()
        print(
            f"{self.path}: vectors of {there:,} of {corpus.num_users:,} users of {corpus.name}, "
            f"{frame.height - found.height:,} rows of others"
            + ("" if "events" in frame.columns else "; no column 'events': taken as known before every event")
        )
        events = found["events"] if "events" in found.columns else pl.Series(np.zeros(found.height, np.int64))
        found = found.with_columns(events=events.cast(pl.Int64)).sort("user", "events")
        twice = found.filter(pl.struct("user", "events").is_duplicated())
        if twice.height:
            raise CorpusError(
                f"user {twice['user_id'][0]!r} has {twice['events'][0]} events in two rows; expected one row for each "
                "user and number of events",
                file=self.path,
                field="user_id",
            )
        vectors = found["vector"].list.explode().cast(pl.Float32).to_numpy().reshape(found.height, -1)
        of_event, of_user = _newest_rows(corpus, found["user"].to_numpy(), found["events"].to_numpy())
        items = None
        if self.items_path is not None:
            items = FileEmbedding(self.items_path, "vectors", value_column="vector").compute(stages.split).values
        return UserVectors(vectors, of_event, of_user, items, self._fields_read())

    def _fields_read(self) -> tuple[str, ...]:
        """What the model has read, where the artefact beside the table says so; else ()."""
        manifest = epath.Path(self.path).parent / artifact.MANIFEST
        return tuple(json.loads(manifest.read_text())["config"].get(READ, ())) if manifest.exists() else ()

    def _frame(self) -> pl.DataFrame:
        path = epath.Path(self.path)
        if not path.exists():
            raise CorpusError("there is no such file: expected a Parquet table of user vectors", file=self.path)
        with path.open("rb") as file:
            frame = pl.read_parquet(file)
        for column in ("user_id", "vector"):
            if column not in frame.columns:
                raise CorpusError(
                    f"expected columns 'user_id', 'vector' and, best, 'events', got {frame.columns}",
                    file=self.path,
                    field=column,
                )
        vector = frame["vector"]
        if isinstance(vector.dtype, pl.Array):
            vector = vector.arr.to_list()
        if not (isinstance(vector.dtype, pl.List) and vector.dtype.inner.is_numeric()):
            raise CorpusError(f"expected lists of numbers, got {vector.dtype}", file=self.path, field="vector")
        frame = frame.with_columns(pl.col("user_id").cast(pl.String), vector=vector)
        length = vector.list.len().fill_null(0)
        finite = vector.list.eval(pl.element().cast(pl.Float64).is_finite()).list.all().fill_null(False)
        events = frame["events"].cast(pl.Int64, strict=False) if "events" in frame.columns else length
        for wrong, what in (
            (frame["user_id"].is_null(), "has no user_id"),
            ((events < 0).fill_null(True), "has a number of events that is missing or negative"),
            ((length != length[0]) | (length == 0), f"has a vector of another length than the first, {length[0]}"),
            (~finite, "has a number that is missing or not finite"),
        ):
            if wrong.any():
                row = int(wrong.arg_max() or 0)
                raise CorpusError(f"user {frame['user_id'][row]!r} {what}", file=self.path, row=row + 1)
        return frame


@dataclasses.dataclass(frozen=True)
class KnowledgeVectors:
    """What a user model answers before every event (`ranking.knowledge`), e.g. LUM: all answers side by side.

    Attributes:
      knowledge: the model; it is trained where it is not yet.
    """

    knowledge: Knowledge

    def read(self, stages: Stages) -> UserVectors:
        """A row an event. The newest one of a user is that before the user's last event."""
        known, corpus = self.knowledge.read(stages), stages.corpus
        known.require_for(corpus.num_events, corpus.num_items)
        vectors = known.queries.reshape(len(known.queries), -1).astype(np.float32)
        ends = corpus.history_offsets[1:]
        of_user = np.where(np.diff(corpus.history_offsets) > 0, ends - 1, UNKNOWN).astype(np.int32)
        rows, items = np.arange(len(vectors), dtype=np.int32), known.items.astype(np.float32)
        return UserVectors(vectors, rows, of_user, items, known.fields_read)


def write_vectors(stages: Stages, knowledge: Knowledge, directory: epath.PathLike) -> None:
    """A user model's as the artefact "user_vectors", two tables that `VectorFile` reads: `users.parquet` ("user_id",
    "events", "vector"), a row an event, and `items.parquet` ("item_id", "vector"). What is there already is left.

    Args:
      stages: of the run.
      knowledge: a user model; it is trained where it is not yet.
      directory: of the artefact.
    """
    known, corpus = knowledge.read(stages), stages.corpus
    known.require_for(corpus.num_events, corpus.num_items)
    config = {"conditions": known.condition_names, READ: known.fields_read}
    inputs = {"knowledge": known.fingerprint}
    if artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
        return
    user = corpus.events["user"].to_numpy()
    vectors = known.queries.reshape(len(user), -1).astype(np.float32)
    tables = {
        "users": {
            "user_id": corpus.users["user_id"].gather(user),
            "events": np.arange(len(user)) - corpus.history_offsets[user],
            "vector": _lists(vectors),
        },
        "items": {"item_id": corpus.items["item_id"], "vector": _lists(known.items.astype(np.float32))},
    }

    def write(aside: epath.Path) -> None:
        for name, columns in tables.items():
            write_frame(aside / f"{name}.parquet", pl.DataFrame(columns))

    made = artifact.fingerprint(vectors, known.items)
    artifact.write_artifact(directory, kind=KIND, fingerprint=made, config=config, inputs=inputs, write=write)


def _lists(vectors: np.ndarray) -> pl.Series:
    return pl.Series(vectors).arr.to_list()


def _newest_rows(corpus: Corpus, user: np.ndarray, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int32 [E] and [U]: of rows sorted by user and number of events, the last that an event, or a user, may know."""
    of_event = corpus.events["user"].to_numpy().astype(np.int64)
    before = np.arange(corpus.num_events) - corpus.history_offsets[of_event]
    wide = np.int64(corpus.num_events + 1)
    key = user.astype(np.int64) * wide + np.minimum(events, wide - 1)

    def last(users: np.ndarray, at_most: np.ndarray) -> np.ndarray:
        row = np.searchsorted(key, users * wide + at_most, side="right") - 1
        own = (row >= 0) & (user[np.maximum(row, 0)] == users)
        return np.where(own, row, UNKNOWN).astype(np.int32)

    return last(of_event, before), last(np.arange(corpus.num_users), np.full(corpus.num_users, wide - 1))
