"""An epoch of SASRec with cross-entropy over all items: ours, and in the shape of RecBole's published code.

RecBole (1.2, arXiv 2011.01731) makes an example of every prefix of a history, padded to 50 items, and scores all items
behind its last position; 2,048 examples a batch. Its network, loss and data are written here in plain PyTorch, for its
package brings some forty others. Ours packs histories into rows and learns at every position. Equal are histories,
width, layers, heads, MLP, dropout, catalogue and loss; an epoch learns every target once on both sides.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import timing
import torch

from plum_jax.allocator import keep_freed_memory
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.feeds.histories import history_rows
from plum_jax.model.config import DecoderConfig
from plum_jax.systems.sasrec import SasRec
from plum_jax.training.initial import initial_params
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import Constant
from plum_jax.training.step import initial_state, make_train_step
from plum_jax.training.training_config import TrainingConfig

ITEMS, USERS, MEAN_HISTORY, LONGEST = 12_101, 22_363, 6.9, 50  # Amazon Beauty's, of training events
WIDTH, LAYERS, HEADS, MLP, DROPOUT = 64, 2, 2, 256, 0.5
ROWS, ROW_LENGTH = 16, 100
RECBOLE_BATCH = 2048


def measure(quick: bool) -> dict[str, Any]:
    """The key and the seconds of either side's step and epoch; prints a line for each."""
    keep_freed_memory()
    rng = np.random.default_rng(0)
    lengths = np.minimum(3 + rng.geometric(1 / (MEAN_HISTORY - 2), USERS), LONGEST)
    histories = [rng.integers(0, ITEMS, length).astype(np.int32) for length in lengths]
    ours, our_steps = _ours(histories)
    theirs, their_steps = _recbole(histories)
    seconds = timing.interleaved({"ours": ours, "recbole": theirs}, 3 if quick else 9)
    epoch = {
        "ours": our_steps * statistics.median(seconds["ours"]),
        "recbole": their_steps * statistics.median(seconds["recbole"]),
    }
    ratio = timing.median_ratio(seconds["recbole"], seconds["ours"]) * their_steps / our_steps
    print(f"\nSASRec, cross-entropy over {ITEMS:,} items, {sum(lengths - 1):,} targets an epoch (medians of steps)")
    for name, steps in (("ours", our_steps), ("recbole", their_steps)):
        step = statistics.median(seconds[name])
        print(f"{name:10}{step:>8.2f} s a step{steps:>6} steps{epoch[name]:>9.1f} s an epoch")
    return {"sasrec_vs_recbole_train": ratio, "sasrec_epoch_seconds": epoch}


def _ours(histories: list[np.ndarray]) -> tuple[Callable[[], object], int]:
    """A step of the trainer's, and the steps of an epoch."""
    sizes = {"num_heads": HEADS, "num_kv_heads": HEADS, "head_dim": WIDTH // HEADS, "mlp_dim": MLP}
    config = DecoderConfig(num_layers=LAYERS, d_model=WIDTH, dropout_rate=DROPOUT, scan_layers=False, **sizes)
    training = TrainingConfig(optimizer=AdamW(schedule=Constant()))
    system = SasRec(config, training=training, batch_size=ROWS, row_length=ROW_LENGTH)
    network, mesh, key = system.network(ITEMS), training.mesh.build(), jax.random.key(0)
    optimizer = training.transformation()
    state = initial_state(initial_params(network), optimizer, key, mesh)
    step = make_train_step(system.objective.on(network, mesh), optimizer, 1, key, mesh, state)
    rows = history_rows(histories, LONGEST, ROW_LENGTH, 0)
    feed, holder = ArrayBatches(rows, ROWS).make_iterator(), [state]

    def run() -> None:
        holder[0], sums = step(holder[0], next(feed))
        jax.block_until_ready(sums)

    return run, len(rows["decoder_positions"]) // ROWS


class RecBoleSasRec(torch.nn.Module):
    """RecBole's `SASRec`: learned positions, norms behind the branches, GELU, the item table as head."""

    def __init__(self) -> None:
        super().__init__()
        self.items = torch.nn.Embedding(ITEMS + 1, WIDTH, padding_idx=0)
        self.positions = torch.nn.Embedding(LONGEST, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(
            WIDTH, HEADS, MLP, DROPOUT, activation="gelu", layer_norm_eps=1e-12, batch_first=True
        )
        self.layers = torch.nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = torch.nn.LayerNorm(WIDTH, eps=1e-12)
        self.dropout = torch.nn.Dropout(DROPOUT)
        for module in (self.items, self.positions):
            torch.nn.init.normal_(module.weight, std=0.02)

    def forward(self, items: torch.Tensor, lengths: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch: items [B, 50], padded with 0 on the right."""
        x = self.dropout(self.norm(self.items(items) + self.positions.weight))
        causal = torch.nn.Transformer.generate_square_subsequent_mask(LONGEST)
        x = self.layers(x, mask=causal, is_causal=True)
        last = x[torch.arange(len(x)), lengths - 1]
        return torch.nn.functional.cross_entropy(last @ self.items.weight.T, targets)


def _recbole(histories: list[np.ndarray]) -> tuple[Callable[[], object], int]:
    """A step of RecBole's, and the steps of an epoch."""
    torch.set_num_threads(timing.THREADS)
    torch.manual_seed(0)
    model = RecBoleSasRec()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    examples = [(history, end) for history in histories for end in range(1, len(history))]
    order = np.random.default_rng(1).permutation(len(examples))
    place = 0

    def run() -> None:
        nonlocal place
        chosen = order.take(range(place, place + RECBOLE_BATCH), mode="wrap")
        place += RECBOLE_BATCH
        items = np.zeros((RECBOLE_BATCH, LONGEST), np.int64)
        lengths, targets = np.zeros((2, RECBOLE_BATCH), np.int64)
        for row, number in enumerate(chosen):
            history, end = examples[number]
            items[row, :end], lengths[row], targets[row] = history[:end] + 1, end, history[end] + 1
        optimizer.zero_grad()
        model(*(torch.from_numpy(array) for array in (items, lengths, targets))).backward()
        optimizer.step()

    return run, -(-len(examples) // RECBOLE_BATCH)
