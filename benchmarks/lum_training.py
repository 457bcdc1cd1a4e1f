"""Training LUM: packed histories against a row for each, and a step beside PyTorch's of the same network and loss."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import timing
import torch
from lum_queries import ITEMS, RATINGS, SIZES, transformer
from torch import nn
from torch.nn import functional

from plum_jax.allocator import keep_freed_memory
from plum_jax.feeds.histories import packed_rows
from plum_jax.systems.known import ItemSizes
from plum_jax.systems.lum.network import LumConfig
from plum_jax.systems.lum.scaling import random_batch
from plum_jax.systems.lum.system import Lum, initial_lum
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import Constant
from plum_jax.training.step import initial_state, make_train_step
from plum_jax.training.training_config import TrainingConfig

ROWS, LENGTH, HISTORIES, MEAN = 8, 256, 2000, 30
EPSILON = 1e-6

Batch = Mapping[str, np.ndarray]


def measure(quick: bool) -> dict[str, Any]:
    """The keys and seconds; prints a line for each size."""
    keep_freed_memory()
    names, rounds = (["d 64"], 3) if quick else (list(SIZES), 7)
    print(f"\na training step of {ROWS} rows of {LENGTH} events, InfoNCE over all of them (medians)")
    ratios = {name: _beside_torch(name, rounds) for name in names}
    return {"train_step_vs_torch": min(ratios.values()), "train_steps_vs_torch": ratios} | _packing(rounds)


def system_of(name: str) -> Lum:
    """LUM of a size, over items' own rows and one field of conditions."""
    training = TrainingConfig(optimizer=AdamW(schedule=Constant()))
    return Lum(LumConfig(transformer(*SIZES[name])), training=training, batch_size=ROWS, row_length=LENGTH)


def our_side(system: Lum, batch: Batch) -> Callable[[], None]:
    """A step of the trainer's."""
    network, mesh = system.network_of(ItemSizes((), ITEMS, 0, (RATINGS.size,))), system.training.mesh.build()
    optimizer, key = system.training.transformation(), jax.random.key(0)
    state = initial_state(functools.partial(initial_lum, network), optimizer, key, mesh)
    step, holder = make_train_step(system.objective.on(network, mesh), optimizer, 1, key, mesh, state), [state]

    def run() -> None:
        holder[0], sums = step(holder[0], batch)
        jax.block_until_ready(sums)

    return run


def _beside_torch(name: str, rounds: int) -> float:
    system = system_of(name)
    batch = random_batch(system, ItemSizes((), ITEMS, 0, (RATINGS.size,)))
    seconds = timing.interleaved({"ours": our_side(system, batch), "torch": torch_side(*SIZES[name], batch)}, rounds)
    ours, theirs = (statistics.median(seconds[side]) for side in ("ours", "torch"))
    ratio = timing.median_ratio(seconds["torch"], seconds["ours"])
    print(f"{name:8}{ours:>8.3f} s ours{theirs:>8.3f} s PyTorch{ratio:>8.2f} times as fast")
    return ratio


def _packing(rounds: int) -> dict[str, Any]:
    """A pass over short histories, packed or not: steps of one shape, and how many of them there are."""
    lengths = np.minimum(2 + np.random.default_rng(0).geometric(1 / (MEAN - 1), HISTORIES), LENGTH)
    packed = packed_rows(lengths.tolist(), LENGTH, 0)
    alone = {
        "decoder_segment_ids": (np.arange(LENGTH) < lengths[:, None]).astype(np.int32),
        "decoder_positions": np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (HISTORIES, LENGTH)).copy(),
    }
    system, sides, steps = system_of("d 64"), {}, {}
    for name, rows in (("packed", packed), ("alone", alone)):
        batch = random_batch(system, ItemSizes((), ITEMS, 0, (RATINGS.size,)))
        batch |= {key: rows[key][:ROWS] for key in ("decoder_segment_ids", "decoder_positions")}
        batch["decoder_loss_weights"] = (batch["decoder_segment_ids"] > 0).astype(np.float32)
        sides[name], steps[name] = our_side(system, batch), len(rows["decoder_positions"]) / ROWS
    seconds = timing.interleaved(sides, rounds)
    saving = 1 - timing.median_ratio(seconds["packed"], seconds["alone"]) * steps["packed"] / steps["alone"]
    told = f"{HISTORIES:,} histories of {lengths.mean():.0f} events in {steps['packed']:.0f} steps packed"
    print(f"\n{told}, {steps['alone']:.0f} one a row: {saving:.3f} saved")
    return {"packing_saving": saving}


class TorchLum(nn.Module):
    """The same network: pre-norm layers, rotary positions, gated MLP; a condition and an item for each event."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = width // 32, width
        self.items, self.fields = nn.Embedding(ITEMS, width), nn.Embedding(RATINGS.size, width)
        self.condition = nn.Parameter(torch.randn(width) * 0.02)
        self.log_scale = nn.Parameter(torch.tensor(3.0))
        self.layers = nn.ModuleList(nn.ModuleDict(self._layer(width)) for _ in range(layers))
        self.norm = nn.RMSNorm(width, EPSILON)
        for table in (self.items, self.fields):
            nn.init.normal_(table.weight, std=0.02)
        angles = torch.arange(2 * LENGTH)[:, None] * 10_000.0 ** (-torch.arange(16) / 16)
        self.register_buffer("cosine", torch.cos(angles).repeat(1, 2))
        self.register_buffer("sine", torch.sin(angles).repeat(1, 2))

    @staticmethod
    def _layer(width: int) -> dict[str, nn.Module]:
        return {
            "attention_norm": nn.RMSNorm(width, EPSILON),
            "qkv": nn.Linear(width, 3 * width, bias=False),
            "out": nn.Linear(width, width, bias=False),
            "mlp_norm": nn.RMSNorm(width, EPSILON),
            "gate_up": nn.Linear(width, 4 * width, bias=False),
            "down": nn.Linear(2 * width, width, bias=False),
        }

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean InfoNCE over all events of a batch without padding."""
        items = self.items(batch["decoder_target_tokens"])
        conditions = self.fields(batch["conditions"][..., 0]) + self.condition
        x = torch.stack([conditions, items], dim=2).reshape(len(items), -1, self.width) * self.width**0.5
        for layer in self.layers:
            x = x + self._attended(layer, layer["attention_norm"](x))
            gate, up = layer["gate_up"](layer["mlp_norm"](x)).chunk(2, dim=-1)
            x = x + layer["down"](functional.silu(gate) * up)
        users = functional.normalize(self.norm(x)[:, ::2].reshape(-1, self.width), dim=-1)
        vectors = functional.normalize(items.reshape(-1, self.width), dim=-1)
        targets = batch["decoder_target_tokens"].reshape(-1)
        scores = self.log_scale.exp() * users @ vectors.T - batch["target_log_q"].reshape(-1)
        same = (targets[:, None] == targets[None, :]).fill_diagonal_(False)
        return functional.cross_entropy(scores.masked_fill(same, float("-inf")), torch.arange(len(targets)))

    def _attended(self, layer: Any, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:2], 3, self.heads, 32)
        query, key, value = layer["qkv"](x).reshape(shape).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(self._turned(query), self._turned(key), value, is_causal=True)
        return layer["out"](found.transpose(1, 2).reshape(x.shape))

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self.cosine + torch.cat([-second, first], dim=-1) * self.sine


def torch_side(layers: int, width: int, batch: Batch) -> Callable[[], None]:
    """A step of PyTorch's, eager, with AdamW."""
    torch.set_num_threads(timing.THREADS)
    torch.manual_seed(0)
    model = TorchLum(layers, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    names = ("decoder_target_tokens", "conditions", "target_log_q")
    tensors = {name: torch.from_numpy(np.ascontiguousarray(batch[name])) for name in names}
    tensors |= {name: tensors[name].long() for name in names[:2]}

    def run() -> None:
        optimizer.zero_grad()
        loss = model(tensors)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run
