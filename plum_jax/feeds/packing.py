"""Packing: several short sequences in one row, so that a fixed-length batch is nearly all tokens."""

from __future__ import annotations

import numpy as np

from plum_jax.feeds import token_records

# The columns of a batch of packed rows, each [rows, length], in T5X's names: what training, pods and timing agree on.
COLUMNS: dict[str, type[np.generic]] = {
    "decoder_input_tokens": np.int32,
    "decoder_target_tokens": np.int32,
    "decoder_loss_weights": np.float32,
    "decoder_segment_ids": np.int32,
    "decoder_positions": np.int32,
}


def random_rows(batch_size: int, length: int, vocab_size: int) -> dict[str, np.ndarray]:
    """A batch of random tokens, one full segment a row: for timing steps, where values play no part."""
    tokens = np.random.default_rng(0).integers(0, vocab_size, (batch_size, length))
    rows = {name: np.ones(tokens.shape, dtype) for name, dtype in COLUMNS.items()}
    rows["decoder_input_tokens"][:] = rows["decoder_target_tokens"][:] = tokens
    rows["decoder_positions"][:] = np.arange(length)
    return rows


def best_fit_rows(lengths: np.ndarray, length: int) -> np.ndarray:
    """Row of each sequence, [R]: best fit by decreasing length; ties keep their order.

    The longest sequences are placed first, each in the fullest row that still has room.
    """
    rows = np.empty(len(lengths), np.int64)
    by_room: list[list[int]] = [[] for _ in range(length + 1)]  # rows that have exactly this much room
    occupied = 0  # bit r is set where by_room[r] is not empty: the best fit is one shift and one lowest bit away
    num_rows = 0
    for sequence in np.argsort(-lengths, kind="stable").tolist():
        needed = int(lengths[sequence])
        fits = occupied >> needed
        if fits:
            room = needed + (fits & -fits).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                occupied ^= 1 << room
        else:
            room, row = length, num_rows
            num_rows += 1
        rows[sequence] = row
        by_room[room - needed].append(row)
        occupied |= 1 << (room - needed)
    return rows


def fill_rows(
    records: list[bytes], rows: np.ndarray, num_rows: int, length: int, start_token: int
) -> dict[str, np.ndarray]:
    """Lays records into rows: a dict of arrays [num_rows, length], in T5X's names.

    In a row the sequences have segment ids 1, 2, ... (0 is padding) in the order they come, and positions that start at
    0 in each. Inputs are the targets shifted right by one within the segment, with
    `start_token` first.
    """
    order = np.argsort(rows, kind="stable")
    lengths, tokens, weights = token_records.unpack([records[i] for i in order])
    row_of = rows[order]
    ends = np.cumsum(lengths)
    new_row = np.flatnonzero(np.diff(row_of, prepend=-1))  # the first sequence of each row
    sequences_in_row = np.diff(new_row, append=len(row_of))
    segment = np.arange(len(row_of)) - np.repeat(new_row, sequences_in_row) + 1
    row_starts = np.repeat((ends - lengths)[new_row], sequences_in_row)
    column = ends - lengths - row_starts
    positions = np.arange(len(tokens)) - np.repeat(ends - lengths, lengths)
    at = np.repeat(row_of * length + column, lengths) + positions

    inputs = np.roll(tokens, 1)
    inputs[positions == 0] = start_token

    columns = {
        "decoder_input_tokens": inputs,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": weights,
        "decoder_segment_ids": np.repeat(segment, lengths),
        "decoder_positions": positions,
    }
    laid = {name: np.zeros(num_rows * length, dtype) for name, dtype in COLUMNS.items()}
    for name, values in columns.items():
        laid[name][at] = values
    return {name: values.reshape(num_rows, length) for name, values in laid.items()}
