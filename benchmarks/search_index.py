"""The index of product search, HNSW over 4-bit codes with a shortlist that is ranked once more, against exact search.

Vectors are drawn around centres, as towers' are; the curve of effort tells what more of it gives and costs.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from plum_jax.retrieval.ann_index import AnnIndex

WIDTH, CLUSTERS, SEARCHES, NEAREST = 64, 500, 1000, 10
EFFORTS = (32, 64, 128, 256, 512)
CHOSEN = 256, 100  # effort and shortlist of the figure


def measure(quick: bool) -> dict[str, Any]:
    """`ann_recall_vs_exact`, the share of the exact ten nearest that the index finds at the effort and with the
    shortlist of `CHOSEN`; the whole curve, with shortlist and without; bytes an item; searches a second on one core.
    """
    count = 20_000 if quick else 200_000
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLUSTERS, WIDTH))

    def clustered(number: int) -> np.ndarray:
        vectors = centres[random.integers(0, CLUSTERS, number)] + random.normal(size=(number, WIDTH)) * 0.7
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    items, searches = clustered(count), clustered(SEARCHES)
    began = time.perf_counter()
    exact = np.argpartition(-(searches @ items.T), NEAREST - 1, axis=1)[:, :NEAREST]
    exact_a_second = SEARCHES / (time.perf_counter() - began)
    began = time.perf_counter()
    index = AnnIndex().build(items, [str(number) for number in range(count)], "benchmark")
    built = time.perf_counter() - began
    size = {part: value / count for part, value in index.size_in_bytes.items()}
    print(
        f"\nHNSW over 4-bit codes, {count:,} items: built in {built:.1f} s, {size['total']:.0f} bytes an item "
        f"({size['codes']:.0f} codes, {size['links']:.0f} links, {size['vectors']:.0f} vectors; exact {4 * WIDTH})"
    )
    print(f"{'effort':>8}{'shortlist':>11}{'of exact@10':>13}{'searches/s':>12}")
    curve = {}
    for effort, shortlist in [*((effort, CHOSEN[1]) for effort in EFFORTS), (CHOSEN[0], 0)]:
        began = time.perf_counter()
        _, found = index.search(searches, NEAREST, effort, shortlist)
        a_second = SEARCHES / (time.perf_counter() - began)
        recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))
        curve[f"{effort}.{shortlist}"] = {"of_exact": recall, "searches_per_second": a_second}
        print(f"{effort:>8}{shortlist:>11}{recall:>13.4f}{a_second:>12,.0f}")
    print(f"{'exact':>8}{'':>11}{1:>13.4f}{exact_a_second:>12,.0f}")
    return {
        "ann_recall_vs_exact": curve[f"{CHOSEN[0]}.{CHOSEN[1]}"]["of_exact"],
        "ann_curve": curve,
        "ann_bytes_an_item": size,
        "exact_searches_per_second": exact_a_second,
    }
