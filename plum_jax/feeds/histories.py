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
    lengths = np.array([len(window) - 1 for window in windows])
    row_of = best_fit_rows(lengths, row_length)
    row_of = np.random.default_rng(seed).permutation(row_of.max() + 1)[row_of]
    rows = {name: np.zeros((row_of.max() + 1, row_length), dtype) for name, dtype in COLUMNS.items()}
    used = np.zeros(len(rows["decoder_positions"]), np.int64)
    segments = np.zeros_like(used)
    for window, row, length in zip(windows, row_of, lengths, strict=True):
        place = slice(used[row], used[row] + length)
        segments[row] += 1
        rows["decoder_input_tokens"][row, place] = window[:-1]
        rows["decoder_target_tokens"][row, place] = window[1:]
        rows["decoder_loss_weights"][row, place] = 1.0
        rows["decoder_segment_ids"][row, place] = segments[row]
        rows["decoder_positions"][row, place] = np.arange(length)
        used[row] += length
    return rows


def latest_items(histories: Sequence[np.ndarray], history_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The last items of each history: int32 [U, history_length] with zeros on the right, and int32 [U] how many."""
    lengths = np.array([min(len(history), history_length) for history in histories], np.int32)
    items = np.zeros((len(histories), history_length), np.int32)
    for row, (history, length) in enumerate(zip(histories, lengths, strict=True)):
        items[row, :length] = history[len(history) - length :]
    return items, lengths
