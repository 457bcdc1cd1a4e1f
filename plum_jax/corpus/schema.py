"""Corpus: items and user histories, the first artefact of every pipeline, and the error its readers raise."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact

KIND = "corpus"
ENGAGEMENT = {"rating": pl.Float32, "watch_ratio": pl.Float32, "watch_time": pl.Float32, "event_type": pl.String}
FOLD = "fold"
Clock = Literal["absolute", "relative", "order"]


class CorpusError(ValueError):
    """A file of the user's cannot be read as asked: names file, row and field, and says what to do.

    Attributes:
      file: path of the file, or None where there is no file.
      row: 1-based row of the file, or None. A text file's header is row 1; rows are its lines, unless quoted fields
        before it hold line breaks.
      field: column, in the file's own words, or None.
    """

    def __init__(
        self, problem: str, *, file: epath.PathLike | None = None, row: int | None = None, field: str | None = None
    ):
        self.file = None if file is None else str(file)
        self.row = row
        self.field = field
        where = [self.file] if self.file else []
        where += [f"row {row}"] if row is not None else []
        where += [f"field {field!r}"] if field is not None else []
        super().__init__(": ".join(filter(None, [", ".join(where), problem])))


@dataclasses.dataclass(frozen=True)
class Corpus:
    """Items and users by index, and every event of every user in order.

    Attributes:
      name: what the reports call it.
      items: row number = item index, 0..N-1. "item_id" String, unique; text fields String (null allowed); features
        String, List(String) or numbers; optional "publish_time" and "end_time" Int64 (unix seconds, null allowed).
      users: row number = user index, 0..U-1. "user_id" String, unique; user features.
      events: sorted by user, then by time (file order where times are equal or not known). "user" Int32, "item"
        Int32, "time" Int64 (see `clock`); optional engagement columns (`ENGAGEMENT`), context features, and "fold"
        String where the data come split (`splits.Given`).
      text_fields: columns of `items` that are text.
      item_features: categorical columns of `items` (String or List(String)).
      user_features: columns of `users`.
      context_features: columns of `events` that describe the request, not the engagement.
      clock: what "time" means. "absolute": unix seconds. "relative": seconds since the same user's first event, so that
        times of two users cannot be compared. "order": only the order is known, every time is null.
      problems: bad rows by kind, counted where the user asked to skip them.
    """

    name: str
    items: pl.DataFrame
    users: pl.DataFrame
    events: pl.DataFrame
    text_fields: tuple[str, ...] = ()
    item_features: tuple[str, ...] = ()
    user_features: tuple[str, ...] = ()
    context_features: tuple[str, ...] = ()
    clock: Clock = "absolute"
    problems: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for field in ("text_fields", "item_features", "user_features", "context_features"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        _check_ids(self.items, "items", "item_id")
        _check_ids(self.users, "users", "user_id")
        _check_columns(self.items, "items", (*self.text_fields, *self.item_features))
        _check_columns(self.users, "users", self.user_features)
        _check_columns(self.events, "events", self.context_features)
        _check_events(self)

    @property
    def num_items(self) -> int:
        return self.items.height

    @property
    def num_users(self) -> int:
        return self.users.height

    @property
    def num_events(self) -> int:
        return self.events.height

    @functools.cached_property
    def history_offsets(self) -> np.ndarray:
        """int64 [U+1]: the events of user u are rows history_offsets[u] .. history_offsets[u+1]-1."""
        return np.searchsorted(self.events["user"].to_numpy(), np.arange(self.num_users + 1))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the content: equal items, users, events and roles of columns give equal fingerprints."""
        roles = (self.text_fields, self.item_features, self.user_features, self.context_features, self.clock)
        frames = (self.items, self.users, self.events)
        return artifact.fingerprint(*roles, *(part for frame in frames for part in _frame_parts(frame)))

    def save(self, directory: epath.PathLike, config: Any, inputs: Mapping[str, str]) -> artifact.Manifest:
        """Writes the artefact "corpus": three Parquet files and `corpus.json`."""

        def write(aside: epath.Path) -> None:
            for name in ("items", "users", "events"):
                getattr(self, name).write_parquet(str(aside / f"{name}.parquet"))
            artifact.write_json(aside / "corpus.json", self._metadata())

        return artifact.write_artifact(
            directory, kind=KIND, fingerprint=self.fingerprint, config=config, inputs=inputs, write=write
        )

    @classmethod
    def load(cls, directory: epath.PathLike) -> Corpus:
        """Reads what `save` wrote.

        Raises:
          ArtifactError: no complete corpus there, or its files are not those that the manifest speaks of.
        """
        directory = epath.Path(directory)
        manifest = artifact.read_manifest(directory, KIND)
        items, users, events = (
            pl.read_parquet(str(directory / f"{name}.parquet"), glob=False) for name in ("items", "users", "events")
        )
        metadata = json.loads((directory / "corpus.json").read_text())
        corpus = cls(items=items, users=users, events=events, **metadata)
        if corpus.fingerprint != manifest.fingerprint:
            raise artifact.ArtifactError(
                f"{directory} holds corpus {corpus.fingerprint}, its manifest says {manifest.fingerprint}: "
                "its files were changed; delete the directory and read the corpus again"
            )
        return corpus

    def _metadata(self) -> dict[str, Any]:
        names = ("name", "text_fields", "item_features", "user_features", "context_features", "clock", "problems")
        return {name: artifact.describe(getattr(self, name)) for name in names}


def _check_ids(frame: pl.DataFrame, name: str, column: str) -> None:
    if frame.schema.get(column) != pl.String:
        raise CorpusError(f"{name} need a String column {column!r}, got {dict(frame.schema)}", field=column)
    if frame[column].null_count() or frame[column].n_unique() != frame.height:
        raise CorpusError(f"{column} of {name} must be unique and never null", field=column)


def _check_columns(frame: pl.DataFrame, name: str, wanted: tuple[str, ...]) -> None:
    for column in wanted:
        if column not in frame.columns:
            raise CorpusError(f"{name} have no column {column!r}; they have {frame.columns}", field=column)


def _check_events(corpus: Corpus) -> None:
    events = corpus.events
    for column, dtype in {"user": pl.Int32, "item": pl.Int32, "time": pl.Int64, **ENGAGEMENT}.items():
        if column in ENGAGEMENT and column not in events.columns:
            continue
        if events.schema.get(column) != dtype:
            raise CorpusError(f"events need {column!r} as {dtype}, got {dict(events.schema)}", field=column)
    if FOLD in events.columns and (events.schema[FOLD] != pl.String or events[FOLD].null_count()):
        raise CorpusError(f"events need {FOLD!r} as String, never null, got {events.schema[FOLD]}", field=FOLD)
    for column, size in (("user", corpus.num_users), ("item", corpus.num_items)):
        outside = events.filter(pl.col(column).is_null() | (pl.col(column) < 0) | (pl.col(column) >= size))
        if outside.height:
            raise CorpusError(f"event has {column} {outside[column][0]}, expected 0..{size - 1}", field=column)
    if corpus.clock == "order" and events["time"].null_count() < events.height:
        raise CorpusError("clock is 'order', so every event's time must be null", field="time")
    if corpus.clock != "order" and events["time"].null_count():
        raise CorpusError(f"clock is {corpus.clock!r}, so no event's time may be null", field="time")
    if not events["user"].is_sorted():
        raise CorpusError("events must be sorted by user, then by time", field="user")
    if events.select(((pl.col("user").diff() == 0) & (pl.col("time").diff() < 0)).any()).item():
        raise CorpusError("events of a user must be sorted by time", field="time")


def _frame_parts(frame: pl.DataFrame) -> list[Any]:
    """What a frame's hash is made of: exact, and the same whichever Polars holds the frame."""
    parts: list[Any] = []
    for name, dtype in frame.schema.items():
        series = frame[name]
        if isinstance(dtype, pl.List):
            parts.append(series.list.len().cast(pl.Int64).fill_null(-1).to_numpy())
            series = series.explode(empty_as_null=False, keep_nulls=False)
        parts += [name, str(series.dtype), np.packbits(series.is_null().to_numpy())]
        if series.dtype == pl.String:
            parts.append(series.str.len_bytes().cast(pl.Int64).fill_null(0).to_numpy())
            parts.append(series.str.join("", ignore_nulls=True).item().encode())
        else:
            parts.append(series.fill_null(0 if series.dtype.is_numeric() else False).to_numpy())
    return parts
