"""Assignment, items a second: our `assign` against the matrix products that it cannot do without, and in a stream."""

from __future__ import annotations

import concurrent.futures
import functools
import resource
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import threadpoolctl
import timing
from tqdm import tqdm

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.semantic_ids.assignment import assign
from plum_jax.semantic_ids.codec import Codec, LinearEncoder
from plum_jax.semantic_ids.inputs import fit_inputs

DIM = 256
SIZES = {"3 x 256 codes": (3, 256, 1 << 16), "4 x 2048 codes": (4, 2048, 1 << 14)}  # levels, codes, items
CHUNK = 1 << 16  # items of the stream that are in memory together


def measure(quick: bool) -> dict[str, float | dict]:
    """The bound's time over ours, least over the sizes, each size's rates, and a stream; prints a table.

    The bound is the plain float32 products [N, 256] @ [256, W] of all levels in numpy and nothing else, by the fastest
    of three: threads inside the product, one thread, or blocks of rows on as many threads as we use.
    """
    print(f"\nAssignment of {DIM} floats, items a second ({timing.THREADS} threads, medians of interleaved rounds)")
    print(f"{'':24}{'assign':>12}{'bound':>12}{'share':>8}")
    details: dict[str, dict[str, float]] = {}
    for name, (levels, codes, items) in tqdm(SIZES.items(), desc="assignment", unit="size", leave=False):
        items = items // 4 if quick else items
        latents, codebooks = _latents_and_codebooks(items, levels, codes)
        products = _products(latents, codebooks)
        ours = functools.partial(assign, latents, codebooks, threads=timing.THREADS)
        seconds = timing.interleaved({"ours": ours, **products}, rounds=3 if quick else 21)
        bound = min((seconds[product] for product in products), key=statistics.median)
        row = {
            "items_per_second": items / statistics.median(seconds["ours"]),
            "bound_items_per_second": items / statistics.median(bound),
            "share_of_bound": timing.median_ratio(bound, seconds["ours"]),
        }
        details[name] = row
        tqdm.write(
            f"{name:24}{row['items_per_second']:>12,.0f}{row['bound_items_per_second']:>12,.0f}"
            f"{row['share_of_bound']:>8.2f}"
        )
    share = min(row["share_of_bound"] for row in details.values())
    return {"assignment_share_of_bound": share, "assignment": details, "stream": stream(quick)}


def _latents_and_codebooks(items: int, levels: int, codes: int) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    scales = 0.5 ** np.arange(levels, dtype=np.float32)
    codebooks = [scale * rng.standard_normal((codes, DIM), dtype=np.float32) for scale in scales]
    return rng.standard_normal((items, DIM), dtype=np.float32), codebooks


def _products(latents: np.ndarray, codebooks: list[np.ndarray]) -> dict[str, Callable[[], object]]:
    factors = [np.ascontiguousarray(codebook.T) for codebook in codebooks]
    whole = np.empty((len(latents), factors[0].shape[1]), np.float32)
    rows = 512

    def in_one(threads: int) -> None:
        with threadpoolctl.threadpool_limits(threads, "blas"):
            for factor in factors:
                np.matmul(latents, factor, out=whole)

    def in_blocks() -> None:
        starts = iter(range(0, len(latents), rows))

        def work(number: int) -> None:
            scores = whole[number * rows : (number + 1) * rows]
            for start in starts:
                for factor in factors:
                    np.matmul(latents[start : start + rows], factor, out=scores)

        with (
            threadpoolctl.threadpool_limits(1, "blas"),
            concurrent.futures.ThreadPoolExecutor(timing.THREADS) as pool,
        ):
            list(pool.map(work, range(timing.THREADS)))

    return {"threads inside": lambda: in_one(timing.THREADS), "one thread": lambda: in_one(1), "blocks": in_blocks}


def stream(quick: bool) -> dict[str, float]:
    """Seconds and growth of the peak memory for 10 million items of 256 floats (300 thousand with `quick`).

    A codec of one linear block and 3 x 256 codes reads pieces of 65,536 items. The pieces are drawn in turn from four
    that are made beforehand: making random numbers is not measured. Encoding (scaling rows to length 1, centring) is.
    """
    items = 300_000 if quick else 10_000_000
    rng = np.random.default_rng(0)
    pool = [_features(rng.standard_normal((CHUNK, DIM), dtype=np.float32)) for _ in range(4)]
    codebooks = tuple(
        np.float32(0.5**level / 16) * rng.standard_normal((256, DIM), dtype=np.float32) for level in range(3)
    )
    codec = Codec(LinearEncoder(fit_inputs(pool[0])), codebooks)
    codec.assign(codec.encode(pool[0]), threads=timing.THREADS)
    before, began = _peak_megabytes(), time.perf_counter()
    counts = np.zeros((3, 256), np.int64)
    for features in _chunks(pool, items):
        codes = codec.assign(codec.encode(features), threads=timing.THREADS).codes
        counts += [np.bincount(code, minlength=256) for code in codes.T]
    seconds, growth = time.perf_counter() - began, _peak_megabytes() - before
    if counts.sum() != 3 * items:
        raise ValueError(f"expected {items} items to be assigned, got {counts.sum() // 3}")
    print(f"\nStream of {items:,} items of {DIM} floats through codec and assignment: {seconds:.1f} s,")
    print(
        f"{items / seconds:,.0f} items a second; peak memory {before:.0f} MB after a piece, {growth:+.0f} MB at the end"
    )
    return {"items": items, "seconds": seconds, "items_per_second": items / seconds, "peak_growth_megabytes": growth}


def _chunks(pool: list[ItemFeatures], items: int) -> Iterator[ItemFeatures]:
    for number, start in enumerate(tqdm(range(0, items, CHUNK), desc="stream", unit="piece", leave=False)):
        features = pool[number % len(pool)]
        yield features if start + CHUNK <= items else features.take(np.arange(items - start))


def _features(values: np.ndarray) -> ItemFeatures:
    return ItemFeatures((FeatureBlock("vectors", values, np.ones(len(values), bool)),))


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
