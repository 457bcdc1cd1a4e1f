"""Item histories as rows: a user's training events, one position an item, packed like tokens into rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plum_jax.feeds.packing import COLUMNS, best_fit_rows


def history_rows(
    histories: Sequence[np.ndarray], history_length: int, row_length: int, seed: int
) -> dict[str, np.ndarray]:
    """Rows [R, row_length] in which every item but a history's first is learnt once, in the names of packed tokens.

    A history is cut into windows of `history_length` inputs from its end backwards; the target of an input is the item
    after it. An item's context is what stands before it in its window. The first item of all is no target: nothing
    stands before it.

    Args:
      histories: int [n] item indexes each, oldest first; shorter than two teaches nothing.
      history_length: longest window, at most `row_length`.
      row_length: positions of a row; several windows share one, as segments that do not see each other.
      seed: of the order of the rows.

    Raises:
      ValueError: a window longer than a row, or no history with two items.
    """
    if history_length > row_length:
        raise ValueError(f"expected history_length of at most row_length {row_length}, got {history_length}")
    windows = [
        history[max(0, end - history_length) : end + 1]
        for history in histories
        for end in range(len(history) - 1, 0, -history_length)
    ]
    if not windows:
        raise ValueError("expected a user with at least two training events, found none: nothing can be learnt")
    rows = packed_rows([len(window) - 1 for window in windows], row_length, seed)
    real = rows["decoder_segment_ids"] > 0
    for name, part in (("decoder_input_tokens", slice(None, -1)), ("decoder_target_tokens", slice(1, None))):
        rows[name] = np.zeros(real.shape, np.int32)
        rows[name][real] = np.concatenate([windows[number][part] for number in rows["window"]])
    rows["decoder_loss_weights"] = real.astype(np.float32)
    return {name: rows[name] for name in COLUMNS}


def event_windows(lengths: Sequence[int], history_length: int) -> list[np.ndarray]:
    """Windows that train: each history of so many events cut from its end backwards, as places in all of them."""
    ends, windows = np.cumsum(lengths), []
    for length, end in zip(lengths, ends, strict=True):
        windows += [
            np.arange(max(stop - history_length, end - length), stop)
            for stop in range(end, end - length, -history_length)
        ]
    return windows


def overlapping_windows(lengths: Sequence[int] | np.ndarray, most: int) -> tuple[list[np.ndarray], list[int]]:
    """Windows of at most so many events of each user, and the place in each from which on it answers: where the window
    before it ended. It begins half a window earlier. Windows are places in all events of all users.
    """
    windows, answered = [], []
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        start = done = end - length
        while done < end:
            stop = min(start + most, end)
            windows.append(np.arange(start, stop))
            answered.append(done - start)
            start, done = stop - most // 2, stop
    return windows, answered


def packed_rows(lengths: Sequence[int], row_length: int, seed: int) -> dict[str, np.ndarray]:
    """Windows of these lengths laid into as few rows as best fit finds: segments and positions, int32 [R, row_length]
    each, and "window", int64 [windows]: which one each segment is, in the order of the rows and of their segments.

    Args:
      lengths: of the windows, at most `row_length` and at least 1.
      row_length: positions of a row.
      seed: of the order of the rows.
    """
    row_of = best_fit_rows(np.array(lengths), row_length)
    row_of = np.random.default_rng(seed).permutation(row_of.max() + 1)[row_of]
    order = np.argsort(row_of, kind="stable")
    names = ("decoder_segment_ids", "decoder_positions")
    rows = {name: np.zeros((row_of.max() + 1, row_length), np.int32) for name in names}
    last, used, segment = -1, 0, 0
    for window in order.tolist():
        row, length = int(row_of[window]), int(lengths[window])
        if row != last:
            last, used, segment = row, 0, 0
        segment += 1
        rows["decoder_segment_ids"][row, used : used + length] = segment
        rows["decoder_positions"][row, used : used + length] = np.arange(length)
        used += length
    return rows | {"window": order}


def latest_items(histories: Sequence[np.ndarray], history_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The last items of each history: int32 [U, history_length] with zeros on the right, and int32 [U] how many."""
    lengths = np.array([min(len(history), history_length) for history in histories], np.int32)
    items = np.zeros((len(histories), history_length), np.int32)
    for row, (history, length) in enumerate(zip(histories, lengths, strict=True)):
        items[row, :length] = history[len(history) - length :]
    return items, lengths
