"""The picture of `docs/trie.md`: what a constrained step costs as the catalogue grows, on a log axis.

`python benchmarks/retrieval_cost.py docs/retrieval_cost.svg [LARGEST]`, some minutes: builds and times both tries from
a thousand to twenty million SIDs, or up to LARGEST.
"""

from __future__ import annotations

import json
import pathlib
import sys

import timing

CATALOGUES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 20_000_000)
BATCH = 64
NAMES = {"ours": "SidTrie", "static": "STATIC", "free": "no constraint"}
COLOURS = {"ours": "#1f6feb", "static": "#d29922", "free": "#8b949e"}


def draw(rows: dict[int, dict[str, float]], path: pathlib.Path) -> None:
    """Two charts beside each other: milliseconds of processor time a step, and bytes of the index."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "plum_jax", "svg.fonttype": "none"})
    from matplotlib import pyplot

    figure, (time_axes, memory_axes) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for side, name in NAMES.items():
        steps = [row[f"cpu_{side}"] for row in rows.values()]
        time_axes.plot(list(rows), steps, marker="o", markersize=4, color=COLOURS[side], label=name)
    time_axes.set(xscale="log", xlabel="SIDs", ylabel="ms of processor a step", ylim=(0, None))
    time_axes.set_title(f"one of 8 steps, {BATCH} users x 70 beams", fontsize=10)
    for side, key in (("ours", "index_bytes"), ("static", "static_bytes")):
        sizes = [row[key] / 1e6 for row in rows.values()]
        memory_axes.plot(list(rows), sizes, marker="o", markersize=4, color=COLOURS[side], label=NAMES[side])
    memory_axes.set(xscale="log", yscale="log", xlabel="SIDs", ylabel="MB")
    memory_axes.set_title("index", fontsize=10)
    for axes in (time_axes, memory_axes):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})


def main(path: str, largest: str = "20_000_000") -> None:
    """Measures and draws."""
    timing.bound_threads()
    import retrieval_masks

    print(timing.machine())
    sizes = [items for items in CATALOGUES if items <= int(largest)]
    cases = list(retrieval_masks.measured(sizes, retrieval_masks.BATCHES, quick=True))
    draw({items: row for items, batch, row in cases if batch == BATCH}, pathlib.Path(path))
    rows = {f"{items:,} items, batch {batch}": row for items, batch, row in cases}
    print(json.dumps(timing.rounded(rows)))


if __name__ == "__main__":
    main(*sys.argv[1:])
