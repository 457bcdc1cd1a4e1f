"""The leak guard: no held-out interaction reaches training, features, co-watch pairs, codebooks or popularity."""

from __future__ import annotations

import polars as pl

from plum_jax.corpus.schema import Corpus


class LeakError(ValueError):
    """A consumer of interactions was given one that is held out for evaluation.

    Attributes:
      used_by: the consumer.
      user_id, item_id: the interaction.
      row: 0-based row of the events that the consumer was given.
    """

    def __init__(self, used_by: str, user_id: str, item_id: str, row: int, event: int, more: int):
        self.used_by, self.user_id, self.item_id, self.row = used_by, user_id, item_id, row
        others = f", and {more} more rows like it" if more else ""
        super().__init__(
            f"leak: {used_by} was given an interaction that is held out for evaluation: user {user_id!r}, item "
            f"{item_id!r} (row {row} of its events, event {event} of the corpus){others}; it may learn from "
            "Split.training_events() only"
        )


def check_no_leak(held_out: pl.DataFrame, corpus: Corpus, events: pl.DataFrame, used_by: str) -> None:
    """Raises if one of `events` is one of `held_out`.

    A row is a held-out interaction if it has the same user, item and time, so that data read again or rows written
    twice are caught, whatever their "event" says. Where the row or the corpus has no time, its "event" (row number in
    `corpus.events`, checked against user and item) decides; where there is none of either, user and item alone, which
    suspects a repeated watch: keep "event" or "time" in corpora that have those.

    Args:
      held_out: "user", "item", "time", "event" of all held-out events.
      corpus: what they are from.
      events: "user" and "item" as indexes, optional "time" (Int64) and "event" (Int64).
      used_by: who learns from them.

    Raises:
      LeakError: as said.
      ValueError: no "user" or "item", or an "event" that is another interaction in this corpus.
    """
    for column in ("user", "item"):
        if column not in events.columns:
            raise ValueError(f"check_no_leak of {used_by} needs the column {column!r} (index), got {events.columns}")
    rows = events.select(
        pl.col("user", "item").cast(pl.Int32),
        *(
            pl.col(column).cast(pl.Int64) if column in events.columns else pl.lit(None, pl.Int64).alias(column)
            for column in ("time", "event")
        ),
    ).with_row_index("row")
    if corpus.clock == "order":
        rows = rows.with_columns(time=pl.lit(None, pl.Int64))
    _check_event_numbers(corpus, rows, used_by)
    leaked = pl.concat([_by_event(held_out, rows), _by_identity(held_out, rows, corpus.num_items)])
    if leaked.height:
        first = leaked.sort("row", "held_out").row(0, named=True)
        raise LeakError(
            used_by,
            user_id=corpus.users["user_id"][first["user"]],
            item_id=corpus.items["item_id"][first["item"]],
            row=first["row"],
            event=first["held_out"],
            more=leaked["row"].n_unique() - 1,
        )


def _by_event(held_out: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose event number is held out."""
    found = rows.join(held_out.select("event", held_out="event"), on="event", how="inner")
    return found.select("row", "user", "item", "held_out")


def _by_identity(held_out: pl.DataFrame, rows: pl.DataFrame, num_items: int) -> pl.DataFrame:
    """Rows with user, item and time of a held-out event; without the time where a row has neither time nor event."""
    # One integer key first: few rows survive it, so the join over three columns is over next to nothing.
    key = pl.col("user").cast(pl.Int64) * num_items + pl.col("item")
    suspects = rows.join(held_out.select(key=key), left_on=key, right_on="key", how="semi")
    timed = suspects.filter(pl.col("time").is_not_null()).join(
        held_out.select("user", "item", "time", held_out="event"), on=["user", "item", "time"], how="inner"
    )
    bare = suspects.filter(pl.col("time").is_null() & pl.col("event").is_null()).join(
        held_out.select("user", "item", held_out="event"), on=["user", "item"], how="inner"
    )
    return pl.concat([frame.select("row", "user", "item", "held_out") for frame in (timed, bare)])


def _check_event_numbers(corpus: Corpus, rows: pl.DataFrame, used_by: str) -> None:
    """Event numbers must be those of this corpus, else they prove nothing."""
    numbered = rows.filter(pl.col("event").is_not_null())
    outside = numbered.filter((pl.col("event") < 0) | (pl.col("event") >= corpus.num_events))
    if outside.height:
        raise ValueError(
            f"check_no_leak of {used_by}: event {outside['event'][0]} in row {outside['row'][0]} is no event of corpus "
            f"{corpus.name!r}, which has {corpus.num_events}"
        )
    there = corpus.events.select("user", "item")[numbered["event"]]
    wrong = numbered.filter((numbered["user"] != there["user"]) | (numbered["item"] != there["item"]))
    if wrong.height:
        row = wrong.row(0, named=True)
        raise ValueError(
            f"check_no_leak of {used_by}: row {row['row']} says that event {row['event']} is user {row['user']}, item "
            f"{row['item']}, but corpus {corpus.name!r} has another there: 'event' must be the row of corpus.events"
        )
