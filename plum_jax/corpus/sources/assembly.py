"""A Corpus from what the files gave: ids become indexes, unknown ids are found, events are put in order."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import polars as pl

from plum_jax.corpus.schema import ENGAGEMENT, FOLD, Clock, Corpus, CorpusError
from plum_jax.corpus.sources import values
from plum_jax.corpus.sources.bad_rows import BadRows
from plum_jax.corpus.sources.files import ROW, DataFile
from plum_jax.corpus.sources.times import SECOND

Duplicates = Literal["drop", "keep"]


@dataclasses.dataclass(frozen=True)
class Side:
    """Items or users of a file: one row each, "item_id" or "user_id" first, `ROW` last."""

    frame: pl.DataFrame
    text_fields: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


def read_side(
    file: DataFile,
    bad_rows: BadRows,
    *,
    id_name: str,
    id_column: str,
    text_fields: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    list_separators: Mapping[str, str] | None = None,
    numbers: Sequence[str] = (),
    publish_time: pl.Expr | None = None,
    publish_column: str | None = None,
    repeated_ids: bool = False,
) -> Side:
    """Items or users, checked: no id is missing and none comes twice.

    Args:
      text_fields, features: name in the corpus -> column.
      list_separators: feature -> separator of its elements; such features become lists.
      numbers: features that are numbers.
      publish_time: Int64 seconds of column "publish_time", which is the file's `publish_column`.
      repeated_ids: the file has a row for each event: take an id's first row.
    """
    text_fields, features = text_fields or {}, features or {}
    list_separators = list_separators or {}
    sources = {id_name: id_column, **text_fields, **features}
    if publish_column is not None:
        sources["publish_time"] = publish_column
    typed = {id_name: values.text(pl.col(id_name)), **{name: values.text(pl.col(name)) for name in text_fields}}
    for name, column in features.items():
        dtype = file.dtype(column) if column in file.schema else pl.String()
        if name in list_separators or isinstance(dtype, pl.List):
            typed[name] = values.texts(pl.col(name), dtype, list_separators.get(name, " "))
        else:
            typed[name] = values.number(pl.col(name), dtype) if name in numbers else values.text(pl.col(name))
    if publish_time is not None:
        typed["publish_time"] = publish_time
    lazy = file.select(sources).select(ROW, "__fault", **typed)
    if repeated_ids:  # read_events finds what is wrong with such rows
        lazy = lazy.filter(pl.col(id_name).is_not_null(), pl.col("__fault") == 0)
        lazy = lazy.unique(id_name, keep="first", maintain_order=True)
    frame = bad_rows.drop_broken(lazy.collect(engine="streaming"), file)
    missing = "expected an id, got nothing; mend the row"
    frame = bad_rows.drop(
        frame, pl.col(id_name).is_null(), kind="missing id", file=file, field=id_column, problem=missing
    )
    frame = bad_rows.drop(
        frame,
        ~pl.col(id_name).is_first_distinct(),
        kind="duplicate id",
        file=file,
        field=id_column,
        problem="{value} has a row already; give each id one row",
    )
    for name in numbers:
        if name in features:
            frame = bad_rows.drop(
                frame,
                pl.col(name).is_nan(),
                kind="bad number",
                file=file,
                field=features[name],
                problem="expected a number or nothing, got {value}; mend it",
            )
    frame = values.integral(frame, [name for name in numbers if name in features])
    return Side(frame, tuple(text_fields), tuple(features))


def assemble(
    name: str,
    events: pl.DataFrame,
    events_file: DataFile,
    *,
    user_column: str,
    item_column: str,
    bad_rows: BadRows,
    clock: Clock,
    items: Side | None = None,
    users: Side | None = None,
    context_features: Sequence[str] = (),
    minimum_history: int = 1,
    minimum_item_events: int = 0,
    duplicates: Duplicates = "keep",
) -> Corpus:
    """Events of `read_events` with items and users of `read_side` (None: those that the events speak of).

    Args:
      minimum_history, minimum_item_events: users and items with fewer events are left out, again and again until none
        is (both k: the k-core). With `minimum_item_events` 0, items without any event stay.
      duplicates: whether copies of an event (same user, item and time, in one fold) stay or go; both are counted.
    """
    events = drop_unknown(
        events, events_file, {"item_id": (item_column, items), "user_id": (user_column, users)}, bad_rows
    )
    if clock != "order":
        events = _without_copies(events, name, duplicates)
    events = _core(events, minimum_history, minimum_item_events)
    if not events.height:
        raise CorpusError(
            f"no event is left of those read (minimum_history={minimum_history}, "
            f"minimum_item_events={minimum_item_events}, left out: {bad_rows.problems}); lower the minimums or look "
            "at the file",
            file=events_file.path,
        )
    item_frame = _indexed(items, events["item_id"], "item_id", keep_unseen=minimum_item_events == 0)
    user_frame = _indexed(users, events["user_id"], "user_id", keep_unseen=False)
    for frame, column in ((item_frame, "item"), (user_frame, "user")):
        index = frame.select(pl.col(f"{column}_id").cast(pl.Categorical)).with_row_index(column)
        events = events.join(index, on=f"{column}_id", how="left", maintain_order="left")
    events = events.sort("time", maintain_order=True).sort("user", maintain_order=True)  # faster than at once
    if clock != "order":
        _say_ties(events, name)
    time = pl.lit(None, pl.Int64) if clock == "order" else pl.col("time") // SECOND
    order = [column for column in (*ENGAGEMENT, *context_features, FOLD) if column in events.columns]
    return Corpus(
        name=name,
        items=item_frame,
        users=user_frame,
        events=events.select(pl.col("user", "item").cast(pl.Int32), time.alias("time"), *order),
        text_fields=items.text_fields if items else (),
        item_features=items.features if items else (),
        user_features=users.features if users else (),
        context_features=tuple(context_features),
        clock=clock,
        problems=bad_rows.report(name),
    )


def _without_copies(events: pl.DataFrame, name: str, duplicates: Duplicates) -> pl.DataFrame:
    """Events without copies of them, where these are to go. A copy in another fold stays: the split refuses it."""
    if duplicates not in get_args(Duplicates):
        raise CorpusError(f"duplicates must be one of {get_args(Duplicates)}, got {duplicates!r}")
    of_event = [column for column in ("user_id", "item_id", "time", FOLD) if column in events.columns]
    first = events.select(pl.struct(of_event).is_first_distinct()).to_series()
    copies = events.height - int(first.sum())
    if not copies:
        return events
    done = "left out" if duplicates == "drop" else "kept"
    print(f"{name}: {done} {copies:,} copies of events (same user, item and time; duplicates={duplicates!r})")
    return events.filter(first) if duplicates == "drop" else events


def _say_ties(events: pl.DataFrame, name: str) -> None:
    """How much of the order of events hangs on the order of the file; said where a corpus is read."""
    neighbours = events.select(
        same_user=pl.col("user") == pl.col("user").shift(), tied=pl.col("time") == pl.col("time").shift()
    )
    pairs = int(neighbours["same_user"].sum())
    tied = neighbours.filter("same_user", "tied").height
    if pairs:
        print(
            f"{name}: {tied / pairs:.1%} of neighbouring events of a user have the same time and keep the file's order",
            file=sys.stderr,
        )


def drop_unknown(
    events: pl.DataFrame, events_file: DataFile, sides: Mapping[str, tuple[str, Side | None]], bad_rows: BadRows
) -> pl.DataFrame:
    """Events whose items and users are known.

    Args:
      sides: "item_id" and "user_id" -> the events file's column, and those that are known (None: all).
    """
    for id_name, (column, side) in sides.items():
        if side is not None:
            unknown = ~pl.col(id_name).is_in(side.frame[id_name].cast(pl.Categorical).implode())
            kind = id_name.removesuffix("_id")
            problem = f"{{value}} is not among the {kind}s; add it to the file of {kind}s"
            events = bad_rows.drop(
                events, unknown, kind=f"unknown {kind}", file=events_file, field=column, problem=problem
            )
    return events


def first_of_each(sides: Sequence[Side], id_name: str) -> Side:
    """Items or users that several files speak of: each as the first file has it."""
    if len(sides) == 1:
        return sides[0]
    frame = pl.concat([side.frame for side in sides], how="vertical_relaxed")
    return dataclasses.replace(sides[0], frame=frame.unique(id_name, keep="first", maintain_order=True))


def _core(events: pl.DataFrame, minimum_history: int, minimum_item_events: int) -> pl.DataFrame:
    while True:
        enough = (pl.len().over("user_id") >= minimum_history) & (pl.len().over("item_id") >= minimum_item_events)
        kept = events.filter(enough)
        if kept.height == events.height:
            return kept
        events = kept


def _indexed(side: Side | None, ids: pl.Series, id_name: str, keep_unseen: bool) -> pl.DataFrame:
    """One row for each index: in the order of the file of items or users, else of first appearance."""
    seen = ids.unique(maintain_order=True)
    if side is None:
        return pl.DataFrame({id_name: seen.cast(pl.String)})
    frame = side.frame.drop(ROW)
    return frame if keep_unseen else frame.filter(pl.col(id_name).cast(pl.Categorical).is_in(seen.implode()))
