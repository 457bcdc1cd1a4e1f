"""What a history costs with one position an item and with one a level: FLOPs of training, speed of search."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import timing
from tqdm import tqdm

from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import train_step_flops
from plum_jax.model.decoder import Decoder
from plum_jax.model.item_history import ItemHistoryConfig, ItemHistoryNetwork
from plum_jax.model.item_history_decoder import ItemHistoryDecoder, search_params
from plum_jax.ragged import from_rows
from plum_jax.retrieval.recommend import Recommender
from plum_jax.semantic_ids.table import SidTable
from plum_jax.systems.item_history.counts import item_history_flops_parts
from plum_jax.systems.item_history.ranking import CodeTokens
from plum_jax.systems.item_history.system import initial_item_history
from plum_jax.systems.known import ItemSizes

ITEMS, CODEBOOKS, HISTORY, BEAMS = 12_101, (256, 256, 256, 64), 50, 32
ROWS, DRAWN = 16, 512  # of a training batch
WIDTHS = {64: 2, 128: 4, 256: 4}  # and layers
USERS, QUICK_USERS = 512, 128


@dataclasses.dataclass(frozen=True)
class Size:
    """One Transformer, in both places; the depth decoder has its width and one layer."""

    width: int
    layers: int

    @property
    def config(self) -> DecoderConfig:
        heads = self.width // 32
        sizes = {"num_heads": heads, "num_kv_heads": heads, "head_dim": 32, "mlp_dim": 2 * self.width}
        return DecoderConfig(num_layers=self.layers, d_model=self.width, scan_layers=False, **sizes)

    @property
    def network(self) -> ItemHistoryConfig:
        return ItemHistoryConfig(self.config, dataclasses.replace(self.config, num_layers=1))

    def flops(self) -> tuple[float, float]:
        """Training FLOPs of a history: with one position a level, and with one an item."""
        vocab, length = sum(CODEBOOKS), HISTORY * len(CODEBOOKS)
        flat = train_step_flops(self.config, vocab, 1, length, causal=True)
        parts = item_history_flops_parts(
            self.network, sizes(), HISTORY, generative=1.0, drawn=DRAWN, positions=ROWS * HISTORY
        )
        return flat, HISTORY * sum(parts.values())


def sizes() -> ItemSizes:
    """Of the catalogue, whose items have no features."""
    return ItemSizes(CODEBOOKS, ITEMS, 0)


def measure(quick: bool) -> dict[str, Any]:
    """Both keys, and each size; prints a table."""
    rng = np.random.default_rng(0)
    codes = np.stack([rng.integers(0, size, ITEMS) for size in CODEBOOKS], axis=1)
    table = SidTable.create(codes, CODEBOOKS, [f"item-{n}" for n in range(ITEMS)])
    histories = rng.integers(0, ITEMS, (QUICK_USERS if quick else USERS, HISTORY)).astype(np.int32)
    chosen = [Size(width, layers) for width, layers in WIDTHS.items() if not quick or width == 128]
    print(f"\nhistories of {HISTORY} items, {len(CODEBOOKS)} levels, {BEAMS} beams, {timing.THREADS} threads (medians)")
    print(f"{'':16}{'MFLOPs, level':>15}{'item':>10}{'ratio':>8}{'users/s, level':>16}{'item':>8}{'ratio':>8}")
    details = {}
    for size in tqdm(chosen, desc="item positions", unit="size", leave=False):
        details[f"d {size.width}"] = row = _measure_size(size, table, histories, 3 if quick else 7)
        tqdm.write(
            f"d {size.width}, {size.layers} layers {row['flat_flops'] / 1e6:>13,.0f}{row['item_flops'] / 1e6:>10,.0f}"
            f"{row['flops_ratio']:>8.3f}{row['flat_users_per_second']:>16,.0f}{row['item_users_per_second']:>8,.0f}"
            f"{row['users_ratio']:>8.2f}"
        )
    return {
        "item_vs_flat_train_flops_per_history": max(row["flops_ratio"] for row in details.values()),
        "item_vs_flat_users_per_second": min(row["users_ratio"] for row in details.values()),
        "item_positions": details,
    }


def _measure_size(size: Size, table: SidTable, histories: np.ndarray, rounds: int) -> dict[str, float]:
    flat_flops, item_flops = size.flops()
    sides = {"flat": _flat(size, table, histories), "item": _item(size, table, histories)}
    seconds = timing.interleaved(sides, rounds)
    per_second = {name: len(histories) / statistics.median(values) for name, values in seconds.items()}
    return {
        "flat_flops": flat_flops,
        "item_flops": item_flops,
        "flops_ratio": item_flops / flat_flops,
        "flat_users_per_second": per_second["flat"],
        "item_users_per_second": per_second["item"],
        "users_ratio": timing.median_ratio(seconds["flat"], seconds["item"]),
    }


def _flat(size: Size, table: SidTable, histories: np.ndarray) -> Any:
    """A search by the flat decoder, whose tokens are the codes."""
    tokens = CodeTokens(CODEBOOKS)
    decoder = Decoder(size.config, tokens.vocab_size)
    one = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(decoder.init)(jax.random.key(0), one, one, jnp.ones((1, 1, 1), bool)))["params"]
    prompts = from_rows([(table.codes[items] + tokens.sid_offsets).ravel() for items in histories])
    search = Recommender(decoder, tokens, table, BEAMS, batch_size=16)
    return functools.partial(search.search, params, prompts)


def _item(size: Size, table: SidTable, histories: np.ndarray) -> Any:
    """A search by the item-level network, with the vectors of all items made once."""
    network = ItemHistoryNetwork(size.network, CODEBOOKS, ITEMS, 0)
    params = nn.unbox(jax.jit(functools.partial(initial_item_history, network))(jax.random.key(0)))
    vectors = jax.random.normal(jax.random.key(1), (ITEMS, size.width)) * 0.02
    decoder = ItemHistoryDecoder(network.config, CODEBOOKS, ITEMS)
    search = Recommender(decoder, CodeTokens(CODEBOOKS), table, BEAMS, batch_size=256)
    return functools.partial(search.search, search_params(params, vectors), from_rows(list(histories)))
