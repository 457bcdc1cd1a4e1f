"""Events of a file, one event a row or one user a row, as one frame with ids as categoricals (four bytes each)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import polars as pl

from plum_jax.corpus.schema import ENGAGEMENT, FOLD, Clock, CorpusError
from plum_jax.corpus.sources import times, values
from plum_jax.corpus.sources.bad_rows import BadRows
from plum_jax.corpus.sources.files import ROW, DataFile

Layout = Literal["events", "users"]
_MISSING = "expected an id, got nothing; mend the row"


@dataclasses.dataclass(frozen=True)
class EventColumns:
    """Which columns of the file are what. With one user a row, all but `user` and `context` hold lists.

    Attributes:
      user, item: ids.
      time: of the event; or
      gap: time since the same user's event before; or
      order: a number to sort the user's events by. All three None: events are in order.
      time_unit: "s", "ms", "us" or "ns", of `time` and `gap`.
      time_format: strptime format of `time`, for dates.
      engagement: name in `schema.ENGAGEMENT` -> column.
      context: context feature -> column.
      numbers: those context features that are numbers; the others are text.
      fold: the fold that the data have the event in.
    """

    user: str
    item: str
    time: str | None = None
    gap: str | None = None
    order: str | None = None
    time_unit: str = "s"
    time_format: str | None = None
    engagement: Mapping[str, str] = dataclasses.field(default_factory=dict)
    context: Mapping[str, str] = dataclasses.field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    fold: str | None = None

    def __post_init__(self) -> None:
        if sum(column is not None for column in (self.time, self.gap, self.order)) > 1:
            raise CorpusError("name one of time, gap and order, not more: they all say when an event was")
        if self.time_unit not in times.NANOSECONDS:
            raise CorpusError(f"time_unit must be one of {list(times.NANOSECONDS)}, got {self.time_unit!r}")

    @property
    def clock(self) -> Clock:
        return "absolute" if self.time is not None else "relative" if self.gap is not None else "order"

    @property
    def when(self) -> str | None:
        return self.time or self.gap or self.order

    def sources(self) -> dict[str, str]:
        """Name in the corpus -> column of the file."""
        when = {} if self.when is None else {"time": self.when}
        fold = {} if self.fold is None else {FOLD: self.fold}
        return {"user_id": self.user, "item_id": self.item, **when, **self.engagement, **self.context, **fold}


def read_events(
    file: DataFile, columns: EventColumns, layout: Layout, separator: str, bad_rows: BadRows
) -> pl.DataFrame:
    """Columns `ROW`, "user_id", "item_id" (Categorical), "time", engagement, context; in the file's order.

    "time" is Int64 nanoseconds, or the number of `order`: what events are sorted by is as precise as it came.

    Args:
      separator: between the elements of a list, where the file has lists as text ("users" layout).
    """
    if layout not in ("events", "users"):
        raise CorpusError(f"layout must be 'events' or 'users', got {layout!r}")
    sources = columns.sources()
    lazy = file.select(sources)
    dtypes = {name: file.dtype(column) for name, column in sources.items()}
    if layout == "users":
        lazy, dtypes = _one_event_a_row(file, lazy, dtypes, columns, separator, bad_rows)
    typed = {name: _typed(name, dtypes[name], columns) for name in sources}
    frame = lazy.select(ROW, "__fault", **typed).collect(engine="streaming")
    frame = bad_rows.drop_broken(frame, file)
    for name in ("user_id", "item_id"):
        frame = bad_rows.drop(
            frame, pl.col(name).is_null(), kind="missing id", file=file, field=sources[name], problem=_MISSING
        )
    frame = _drop_bad_values(frame, file, columns, bad_rows)
    frame = values.integral(frame, columns.numbers)
    if columns.gap is not None:
        first = pl.col("user_id").is_first_distinct()
        gaps = frame.select("user_id", gap=pl.when(first).then(0).otherwise("time"))
        frame = frame.with_columns(gaps.select(time=pl.col("gap").cum_sum().over("user_id")).to_series())
    return frame if columns.when is not None else frame.with_columns(time=pl.lit(None, pl.Int64))


def _typed(name: str, dtype: pl.DataType, columns: EventColumns) -> pl.Expr:
    column = pl.col(name)
    if name in ("user_id", "item_id"):
        return values.text(column).cast(pl.Categorical)
    if name == "time" and columns.order is not None:
        if dtype.is_integer():
            return column.cast(pl.Int64)
        value = values.number(column, dtype)
        return pl.when(value.is_finite()).then(value)
    if name == "time":
        return times.nanoseconds(column, dtype, columns.time_unit, columns.time_format)
    if columns.engagement.get(name) is not None and ENGAGEMENT[name] == pl.Float32:
        return values.number(column, dtype).cast(pl.Float32)
    if name in columns.numbers:
        return values.number(column, dtype)
    return values.text(column)


def _drop_bad_values(frame: pl.DataFrame, file: DataFile, columns: EventColumns, bad_rows: BadRows) -> pl.DataFrame:
    if columns.when is not None:
        advice = times.ADVICE if columns.order is None else "expected a number to sort by, got {value}; mend it"
        frame = bad_rows.drop(
            frame, pl.col("time").is_null(), kind="bad time", file=file, field=columns.when, problem=advice
        )
    if columns.fold is not None:
        problem = "expected the name of a fold, got nothing; mend the row"
        frame = bad_rows.drop(
            frame, pl.col(FOLD).is_null(), kind="missing fold", file=file, field=columns.fold, problem=problem
        )
    for name, column in {**columns.engagement, **columns.context}.items():
        if frame.schema[name].is_float():
            frame = bad_rows.drop(
                frame,
                pl.col(name).is_nan(),
                kind="bad number",
                file=file,
                field=column,
                problem="expected a number or nothing, got {value}; mend it",
            )
    return frame


def _one_event_a_row(
    file: DataFile,
    lazy: pl.LazyFrame,
    dtypes: dict[str, pl.DataType],
    columns: EventColumns,
    separator: str,
    bad_rows: BadRows,
) -> tuple[pl.LazyFrame, dict[str, pl.DataType]]:
    """Unrolls the lists of a file with one user a row, after checking that a user's lists are equally long."""
    lists = [name for name in dtypes if name != "user_id" and name not in columns.context]
    lazy = lazy.with_columns(**{name: values.elements(pl.col(name), dtypes[name], separator) for name in lists})
    lengths = lazy.select(
        ROW, "__fault", user_id=values.text(pl.col("user_id")), **{name: pl.col(name).list.len() for name in lists}
    ).collect(engine="streaming")
    before = lengths.height
    lengths = bad_rows.drop_broken(lengths, file)
    lengths = bad_rows.drop(
        lengths,
        pl.col("user_id").is_not_null() & ~pl.col("user_id").is_first_distinct(),
        kind="duplicate id",
        file=file,
        field=columns.user,
        problem="the user {value} has a row already; put a user's events in one row",
    )
    lengths = bad_rows.drop(
        lengths,
        pl.col("item_id").fill_null(0) == 0,
        kind="empty history",
        file=file,
        field=columns.item,
        problem=f"expected at least one item id (separated by {separator!r}), got {{value}}; mend or delete the row",
    )
    for name in lists[1:]:
        lengths = bad_rows.drop(
            lengths,
            pl.col(name).fill_null(0) != pl.col("item_id"),
            kind="lists of unequal length",
            file=file,
            field=columns.sources()[name],
            problem=f"expected one element for each element of {columns.item!r}, got {{value}}; mend the row",
        )
    if lengths.height < before:
        lazy = lazy.filter(pl.col(ROW).is_in(lengths[ROW].implode()))
    inner = {name: lazy.collect_schema()[name].inner for name in lists}  # type: ignore[attr-defined]
    return lazy.explode(lists), dtypes | inner
