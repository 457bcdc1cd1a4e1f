"""Asking LUM: a group of conditions against each by itself; and the neighbour search against the exact one."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import timing

from plum_jax.corpus.event_fields import EventFields, Numbers
from plum_jax.evaluation.nearest import Neighbours
from plum_jax.model.config import DecoderConfig
from plum_jax.systems.known import Known
from plum_jax.systems.lum.asking import Asker
from plum_jax.systems.lum.network import LumConfig, LumNetwork
from plum_jax.systems.lum.system import initial_lum
from plum_jax.training.processes import to_host

EVENTS, CONDITIONS, ITEMS, USERS = 256, 10, 3416, 64
SIZES = {"d 64": (2, 64), "d 128": (4, 128), "d 256": (4, 256)}  # layers and width
RATINGS = Numbers((1.0, 2.0, 3.0, 4.0, 5.0))
GROUPS = (1, 3, 10, 30, 100)
NEAREST, CLUSTERS, WIDTH = 10, 500, 64


def measure(quick: bool) -> dict[str, Any]:
    """The keys, and seconds; prints a line for each size."""
    names = ["d 64"] if quick else list(SIZES)
    print(f"\n{CONDITIONS} conditions about each of {USERS} users after {EVENTS} events")
    savings = {name: _group(name, *SIZES[name], 3 if quick else 7) for name in names}
    found = {"group_query_saving": min(savings.values()), "group_query_savings": savings}
    return found | ({} if quick else _cost_by_conditions()) | _neighbours(quick)


def transformer(layers: int, width: int) -> DecoderConfig:
    """Of the user encoder."""
    return DecoderConfig(
        num_layers=layers,
        d_model=width,
        num_heads=width // 32,
        num_kv_heads=width // 32,
        head_dim=32,
        mlp_dim=2 * width,
        scan_layers=False,
    )


def _group(name: str, layers: int, width: int, rounds: int) -> float:
    """The saving; prints its line."""
    network = LumNetwork(LumConfig(transformer(layers, width)), (), ITEMS, 0, (RATINGS.size,))
    params = to_host(jax.tree.map(_unboxed, initial_lum(network, jax.random.key(0)), is_leaf=_is_boxed))
    asker, histories = asker_of(network)
    conditions = np.arange(CONDITIONS, dtype=np.int32)[:, None] % RATINGS.size

    def separate() -> None:
        for number in range(CONDITIONS):
            asker.answers(params, histories, conditions[number : number + 1])

    sides: dict[str, Callable[[], object]] = {
        "group": functools.partial(asker.answers, params, histories, conditions),
        "separate": separate,
    }
    seconds = timing.interleaved(sides, rounds)
    saving = 1 - timing.median_ratio(seconds["group"], seconds["separate"])
    group, alone = (statistics.median(seconds[side]) for side in ("group", "separate"))
    print(f"{name:8}{USERS / group:>9.0f} users/s in a group{USERS / alone:>9.0f} one by one{saving:>9.3f} saved")
    return saving


def _cost_by_conditions() -> dict[str, Any]:
    """Seconds of a group of N conditions, in units of a single one."""
    network = LumNetwork(LumConfig(transformer(*SIZES["d 64"])), (), ITEMS, 0, (RATINGS.size,))
    params = to_host(jax.tree.map(_unboxed, initial_lum(network, jax.random.key(0)), is_leaf=_is_boxed))
    asker, histories = asker_of(network)
    sides = {
        str(number): functools.partial(
            asker.answers, params, histories, np.arange(number, dtype=np.int32)[:, None] % RATINGS.size
        )
        for number in GROUPS
    }
    seconds = timing.interleaved(sides, 7)
    cost = {name: timing.median_ratio(values, seconds["1"]) for name, values in seconds.items()}
    print("cost of N conditions: " + ", ".join(f"{name}: {value:.2f}" for name, value in cost.items()))
    return {"cost_by_conditions": cost}


def asker_of(network: LumNetwork) -> tuple[Asker, list[np.ndarray]]:
    """A network over random events, and the rows of each user's."""
    random, count = np.random.default_rng(0), USERS * EVENTS
    buckets = random.integers(1, RATINGS.size, (count, 1)).astype(np.int32)
    known = Known(
        None, np.zeros((ITEMS, 0), np.float32), np.ones(ITEMS, bool), EventFields(("rating",), (RATINGS,), buckets)
    )
    item = random.integers(0, ITEMS, count).astype(np.int32)
    return Asker(network, known, item, EVENTS), list(np.arange(count).reshape(USERS, EVENTS))


def _neighbours(quick: bool) -> dict[str, Any]:
    """Recall of HNSW's ten nearest, and users a second of either side."""
    random, count = np.random.default_rng(0), 50_000 if quick else 200_000
    centres = random.normal(size=(CLUSTERS, WIDTH))

    def clustered(number: int) -> np.ndarray:
        vectors = centres[random.integers(0, CLUSTERS, number)] + random.normal(size=(number, WIDTH)) * 0.7
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    items, users, search = clustered(count), clustered(1000), Neighbours()
    exact = np.argsort(-(users @ items.T), axis=1)[:, :NEAREST]
    began = time.perf_counter()
    index = search.index(items)
    built = time.perf_counter() - began
    began = time.perf_counter()
    found = search.search(index, users, NEAREST)[1]
    a_second = len(users) / (time.perf_counter() - began)
    recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
    print(
        f"\nHNSW over {count:,} items: built in {built:.1f} s, {a_second:,.0f} users/s, recall@10 of exact {recall:.4f}"
    )
    return {"recall_vs_exact": recall, "neighbours_per_second": a_second}


def _is_boxed(x: Any) -> bool:
    return hasattr(x, "unbox")


def _unboxed(x: Any) -> Any:
    return x.unbox() if _is_boxed(x) else x
