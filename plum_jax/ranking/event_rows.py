"""Whole histories as packed rows of events: those that train, and those that are asked about at every event."""

from __future__ import annotations

import numpy as np

from plum_jax.corpus.splits import Split
from plum_jax.feeds.histories import event_windows, overlapping_windows, packed_rows


def training_rows(split: Split, history_length: int, row_length: int, seed: int, used_by: str) -> dict[str, np.ndarray]:
    """Every training event once, guarded against leaks: int32 [R, row_length] "events" (rows of `corpus.events`, 0 at
    padding), "decoder_segment_ids" and "decoder_positions".

    Args:
      split: whose training events they are.
      history_length: longest window; histories are cut from their ends backwards.
      row_length: positions of a row; several windows share one.
      seed: of the order of the rows.
      used_by: who learns from them, for the guard.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by=used_by)
    lengths = events.group_by("user", maintain_order=True).len()["len"].to_list()
    windows = event_windows(lengths, history_length)
    rows = packed_rows([len(window) for window in windows], row_length, seed)
    order = np.concatenate([windows[number] for number in rows.pop("window")])
    real = rows["decoder_segment_ids"] > 0
    rows["events"] = np.zeros(real.shape, np.int32)
    rows["events"][real] = events["event"].to_numpy()[order]
    return rows


def rows_of_all(split: Split, history_length: int) -> dict[str, np.ndarray]:
    """Every event of the corpus, whatever its fold: as `training_rows`, and "answered" bool, where an event is asked
    about: once, with all events of its user before it up to `history_length`, and at least half as many where there
    are more (windows overlap by a half). To read is not to learn.
    """
    windows, first_answered = overlapping_windows(np.diff(split.corpus.history_offsets), history_length)
    rows = packed_rows([len(window) for window in windows], history_length, seed=0)
    order = rows.pop("window")
    real = rows["decoder_segment_ids"] > 0
    rows["events"], rows["answered"] = np.zeros(real.shape, np.int32), np.zeros(real.shape, bool)
    rows["events"][real] = np.concatenate([windows[number] for number in order])
    rows["answered"][real] = np.concatenate([np.arange(len(windows[n])) >= first_answered[n] for n in order])
    return rows
