"""Constrained beams without a model: `SidTrie` against STATIC, time of a step and memory of the index.

Both sides get the same log-probabilities, 8 levels x 2,048 codes, and give the beams: mask, candidates, top-k, codes so
far. A step is an eighth of the search. A third side is free: the same search over all codes.
"""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
from static_trie import StaticIndex, static_search
from tqdm import tqdm

from plum_jax.retrieval.sorted_sids import SortedSids
from plum_jax.retrieval.top_k import top_k
from plum_jax.retrieval.trie import SidTrie

SIZE, LEVELS, BEAMS = 2048, 8, 70
BATCHES = (2, 64)
CATALOGUES = (1_000_000, 10_000_000, 20_000_000)


@jax.jit
def trie_search(trie: SidTrie, log_probs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """Beams over `log_probs`, for each level `[B, M, W]`, inside the trie: codes int32 `[B, M, L]` and scores."""
    batch, width, _ = log_probs[0].shape
    state, scores = trie.root(batch), jnp.zeros((batch, 1))
    codes = jnp.zeros((batch, 1, 0), jnp.int32)
    for level, given in enumerate(log_probs):
        candidates = scores[:, :, None] + trie.scores(level, state, given[:, : codes.shape[1]])
        scores, parent, place = _best(candidates, width)
        code, state = trie.take(level, state, parent, place)
        codes = _longer(codes, parent, code)
    return codes, scores


@jax.jit
def free_search(log_probs: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
    """The same without any constraint."""
    batch, width, _ = log_probs[0].shape
    scores, codes = jnp.zeros((batch, 1)), jnp.zeros((batch, 1, 0), jnp.int32)
    for given in log_probs:
        scores, parent, place = _best(scores[:, :, None] + given[:, : codes.shape[1]], width)
        codes = _longer(codes, parent, place)
    return codes, scores


def _best(candidates: jax.Array, width: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    batch, _, fan_out = candidates.shape
    scores, place = top_k(candidates.reshape(batch, -1), width)
    return scores, *jnp.divmod(place, fan_out)


def _longer(codes: jax.Array, parent: jax.Array, code: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.take_along_axis(codes, parent[:, :, None], axis=1), code[:, :, None]], axis=2)


def measure(quick: bool) -> dict[str, Any]:
    """Keys `mask_time_vs_static_max`, `index_memory_vs_static_max`, and each case; `quick`: a million items alone."""
    catalogues = CATALOGUES[:1] if quick else CATALOGUES
    cases = {f"{items:,} items, batch {batch}": row for items, batch, row in measured(catalogues, BATCHES, quick)}
    return {
        "mask_time_vs_static_max": max(row["ratio"] for row in cases.values()),
        "index_memory_vs_static_max": max(row["index_ratio"] for row in cases.values()),
        "masks": cases,
    }


def measured(
    catalogues: Sequence[int], batches: Sequence[int], quick: bool
) -> Iterator[tuple[int, int, dict[str, float]]]:
    """Items, batch and figures of each case, which are printed too; either build starts from sorted SIDs."""
    print(f"\nConstrained beams without a model, {LEVELS} x {SIZE} codes, {BEAMS} beams, ms a step (medians)")
    heads = "".join(f"{name:>10}" for name in ("batch", "ours", "STATIC", "ratio", "CPU ratio", "free"))
    print(f"{'items':>12}{heads}   index MB, ratio; build s; peak MB of the build")
    for items in tqdm(catalogues, desc="masks", unit="catalogue", leave=False):
        sids = SortedSids.from_codes(random_codes(items), (SIZE,) * LEVELS)
        trie, ours = measured_build(functools.partial(SidTrie.build, sids))
        static, theirs = measured_build(functools.partial(StaticIndex.build, sids.columns, SIZE))
        index = {
            "index_bytes": float(trie.num_bytes),
            "static_bytes": float(static.num_bytes),
            "index_ratio": trie.num_bytes / static.num_bytes,
            **{f"{name}_ours": value for name, value in ours.items()},
            **{f"{name}_static": value for name, value in theirs.items()},
        }
        for batch in batches:
            row = _times(trie, static, batch, rounds=_rounds(batch, quick)) | index
            times = "".join(f"{row[name]:>10.3f}" for name in ("ours", "static", "ratio", "cpu_ratio", "free"))
            tqdm.write(f"{items:>12,}{batch:>10}{times}   {_index_text(row)}")
            yield items, batch, row
        del trie, static, sids


def _index_text(row: dict[str, float]) -> str:
    pairs = [
        f"{row[ours] * scale:.{digits}f} / {row[static] * scale:.{digits}f}"
        for ours, static, scale, digits in (
            ("index_bytes", "static_bytes", 1e-6, 0),
            ("build_seconds_ours", "build_seconds_static", 1, 1),
            ("build_peak_bytes_ours", "build_peak_bytes_static", 1e-6, 0),
        )
    ]
    return f"{pairs[0]}, {row['index_ratio']:.3f}; {pairs[1]}; {pairs[2]}"


def random_codes(items: int) -> np.ndarray:
    """int32 `[items, LEVELS]`, uniform, as in the paper's benchmark."""
    return np.random.default_rng(0).integers(0, SIZE, (items, LEVELS), dtype=np.int32)


def measured_build(build: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `build` gives, its seconds, and by how many bytes the process grew at the most meanwhile."""
    before, peak, done = resident_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    built = jax.block_until_ready(build())
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    return built, {"build_seconds": seconds, "build_peak_bytes": float(max(peak[0], resident_bytes()) - before)}


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


def _rounds(batch: int, quick: bool) -> int:
    """More of the short ones: a millisecond is soon lost to other work on the cores."""
    return (5 if quick else 11) * (1 if batch > 8 else 4)


def _times(trie: SidTrie, static: StaticIndex, batch: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a step, medians, and the median over rounds of ours over STATIC's; "cpu": of processor time."""
    keys = jax.random.split(jax.random.key(batch), LEVELS)
    log_probs = tuple(jax.nn.log_softmax(jax.random.uniform(key, (batch, BEAMS, SIZE))) for key in keys)
    sides = {
        "ours": lambda: jax.block_until_ready(trie_search(trie, log_probs)),
        "static": lambda: jax.block_until_ready(static_search(static, log_probs)),
        "free": lambda: jax.block_until_ready(free_search(log_probs)),
    }
    result = {}
    for prefix, clock in (("", time.perf_counter), ("cpu_", time.process_time)):
        seconds = timing.interleaved(sides, rounds, clock)
        result |= {f"{prefix}{name}": statistics.median(values) / LEVELS * 1e3 for name, values in seconds.items()}
        result[f"{prefix}ratio"] = timing.median_ratio(seconds["ours"], seconds["static"])
    return result


if __name__ == "__main__":
    import json
    import sys

    timing.bound_threads()
    print(timing.machine())
    print(json.dumps(timing.rounded(measure("--quick" in sys.argv))))
