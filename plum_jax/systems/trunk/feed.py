"""What the trunk is trained on: windows of histories in packed rows, with the next n items of each event."""

from __future__ import annotations

import numpy as np

from plum_jax.corpus.event_fields import UNKNOWN
from plum_jax.corpus.splits import Split
from plum_jax.feeds.array_batches import ArrayBatches, MixedEpochs
from plum_jax.feeds.histories import packed_rows
from plum_jax.feeds.item_columns import DrawnItems, ItemColumns
from plum_jax.feeds.windows import Windows
from plum_jax.systems.trunk.known import TrunkKnown


def trunk_feed(
    split: Split,
    known: TrunkKnown,
    windows: Windows,
    *,
    tokens: int,
    row_length: int,
    batch_size: int,
    num_drawn: int,
    seed: int,
    counted: np.ndarray | None = None,
) -> ItemColumns:
    """Batches for `objectives.next_items`, reshuffled each epoch; guarded against leaks.

    Every training event but a user's last is read, and the `tokens` training events behind it are its targets, also
    where they lie behind the window.

    Args:
      split: whose training events they are.
      known: fields of events.
      windows: which of them are in a row.
      tokens: n.
      row_length: positions of a row, at least `windows.length`; several windows share one.
      batch_size: rows of a batch, at most those that there are.
      num_drawn: negatives of a batch, at least one a row; as many as there are items and more: every item once.
      seed: of the orders and the draws.
      counted: bool [E] by row of `corpus.events`, which events are targets; None: all.

    Raises:
      ValueError: a window longer than a row, or no history with two events.
    """
    if windows.length > row_length:
        raise ValueError(f"expected windows of at most row_length {row_length} events, got {windows.length}")
    events = split.training_events()
    split.check_no_leak(events, used_by="the trunk")
    user, item, row = (events[name].to_numpy() for name in ("user", "item", "event"))
    ends = np.flatnonzero(np.diff(user, append=-1))
    lengths = np.diff(ends, prepend=-1) - 1  # that are read of each user: behind the last there is nothing
    if not lengths.any():
        raise ValueError("expected a user with at least two training events, found none: nothing can be learnt")
    read = np.delete(np.arange(len(user)), ends)
    kinds = {"latest": ("latest",), "sliding": ("sliding",), "mixed": ("latest", "sliding")}[windows.kind]
    packed = [_rows(getattr(windows, kind)(lengths.tolist()), read, row_length, seed) for kind in kinds]
    size = min(batch_size, *(len(rows["places"]) for rows in packed))
    parts = [ArrayBatches(rows, size, seed) for rows in packed]
    offsets = np.arange(1, tokens + 1)
    there = np.arange(len(user))[:, None] + offsets
    same = (there < len(user)) & (user[np.minimum(there, len(user) - 1)] == user[:, None])
    targets = row[np.where(same, there, 0)]
    weights = same if counted is None else same & counted[targets]
    if not weights[:, 0].any():
        raise ValueError("expected training events that are targets, found none that count: choose another label")
    following = np.where(same[:, :1], known.request.buckets[targets[:, 0]], UNKNOWN)
    columns = {
        "decoder_input_tokens": item.astype(np.int32),
        "post": known.post.buckets[row],
        "request": following.astype(np.int32),
        "target_items": split.corpus.events["item"].to_numpy()[targets].astype(np.int32),
        "target_weights": weights.astype(np.float32),
        "auxiliary": np.where(same[:, :1], known.auxiliary.buckets[targets[:, 0]], UNKNOWN).astype(np.int32),
    }
    # Place 0 is that of padding: what stands there is no target.
    values = {name: ("places", np.concatenate([np.zeros_like(array[:1]), array])) for name, array in columns.items()}
    trained = np.flatnonzero(known.items.in_training)
    drawn = DrawnItems(drawn_a_row(num_drawn, len(known.items.ages), size), trained, seed)
    return ItemColumns(parts[0] if len(parts) == 1 else MixedEpochs(*parts), values, drawn)


def drawn_a_row(num_drawn: int, num_items: int, batch_size: int) -> int:
    """Negatives that each row of a batch brings."""
    return -(-min(num_drawn, num_items) // batch_size)


def _rows(windows: list[np.ndarray], read: np.ndarray, row_length: int, seed: int) -> dict[str, np.ndarray]:
    """Packed rows with "places" int32, 1 + the place of each event among the training events; 0: padding."""
    rows = packed_rows([len(window) for window in windows], row_length, seed)
    order = rows.pop("window")
    real = rows["decoder_segment_ids"] > 0
    rows["places"] = np.zeros(real.shape, np.int32)
    rows["places"][real] = 1 + read[np.concatenate([windows[number] for number in order])]
    return rows
