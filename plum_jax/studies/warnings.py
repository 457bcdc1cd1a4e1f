"""What a reviewer would say of a plan: too many epochs, too few steps, too narrow a range, optima at the edge."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from plum_jax.scaling.design import Law, optimum

MOST_EPOCHS = 4  # up to which repeated data is about as good as new (arXiv 2305.16264)
FEWEST_STEPS = 100
FEWEST_DECADES = 1.5
FEWEST_SIZES = 5  # of an iso-FLOP curve, for a parabola with something to check it by


def plan_warnings(rows: Sequence[dict[str, Any]], law: Law) -> list[str]:
    """Sentences about the cells of a plan; `law` is the guess that the plan reckons with."""
    return [*_cells(rows), *_ranges(rows), *_groups(rows, law), *_machine(rows), *_noise(rows)]


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    repeated = [row for row in rows if row["epochs"] is not None and row["epochs"] > MOST_EPOCHS]
    if repeated:
        worst = max(repeated, key=lambda row: row["epochs"])
        yield (
            f"{len(repeated)} cells see the data more than {MOST_EPOCHS} times ({worst['cell_id']}: "
            f"{worst['epochs']:.1f}): fit them with the data-constrained law, or bring more data"
        )
    short = [row for row in rows if row["steps"] < FEWEST_STEPS]
    if short:
        worst = min(short, key=lambda row: row["steps"])
        yield (
            f"{len(short)} cells take fewer than {FEWEST_STEPS} steps ({worst['cell_id']}: {worst['steps']}): a "
            "warm-up is most of such a run; lower batch_size there, or set min_steps"
        )


def _ranges(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    fitted = [row for row in rows if not row["held_out"]]
    if not fitted:
        yield "every group is held out: there is nothing to fit"
        return
    decades = math.log10(max(r["flops"] for r in fitted) / min(r["flops"] for r in fitted))
    if decades < FEWEST_DECADES:
        yield (
            f"the fitted budgets span {decades:.2f} decades, less than {FEWEST_DECADES}: exponents will be loose; "
            "widening the range helps more than seeds"
        )
    if len(fitted) == len(rows):
        yield "no group is held out: nothing will show whether the fit extrapolates"


def _groups(rows: Sequence[dict[str, Any]], law: Law) -> Iterator[str]:
    for group in sorted({row["group"] for row in rows}):
        of_group = [row for row in rows if row["group"] == group]
        if of_group[0]["horizon"] is not None:
            continue
        sizes = sorted({row["parameters"] for row in of_group})
        name = f"budget {of_group[0]['budget']:.3g}"
        if len(sizes) < FEWEST_SIZES:
            yield f"{name} has {len(sizes)} sizes, fewer than {FEWEST_SIZES}: its minimum will not be found surely"
        per_nd = sum(row["flops"] / row["parameters"] / row["tokens"] for row in of_group) / len(of_group)
        best = optimum(law, of_group[0]["budget"], per_nd)[0]
        if not sizes[0] < best < sizes[-1]:
            yield (
                f"{name}: the guessed law has its minimum at {best:,.0f} parameters, outside of the sizes "
                f"{sizes[0]:,} to {sizes[-1]:,}: a minimum at the edge is none (is the guess right?)"
            )


def _machine(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    too_large = sorted({row["size"] for row in rows if row["fits"] is False})
    if too_large:
        yield (
            f"{', '.join(too_large)} do not fit into a chip's memory at their largest batch, and have no time or cost "
            "here: see gin/run/compile.gin for what would fit"
        )


def _noise(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    seeds: dict[tuple[str, int, float], set[int]] = {}
    for row in rows:
        seeds.setdefault((row["size"], row["group"], row["learning_rate_factor"]), set()).add(row["seed"])
    if all(len(of_place) < 2 for of_place in seeds.values()):
        yield "no place of the grid has two seeds: the noise of the seed will not be known"
