"""How far the exponents move when a convention is another: which N, which FLOPs, which runs, which objective.

The convention moves the exponent a by 0.1 to 0.3, the fitter by 0.01 (2406.19146): the table stands beside every fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import polars as pl

from plum_jax.scaling.iso_flop import fit_iso_flop
from plum_jax.scaling.loss_analysis import EVERY_START, Settings, iso_flop_points
from plum_jax.scaling.parametric_law import chinchilla_starts, fit_parametric
from plum_jax.scaling.run_fields import RunsError
from plum_jax.scaling.runs import Runs

OTHER_PARAMETERS = ("N_non_embedding", "N_activated", "N_activated_non_embedding")
OTHER_DELTAS = (1e-4, 1e-2, float("inf"))
# Of the runs, that the row "largest losses left out" leaves out, at least one.
LARGEST_LOSSES = 0.02
# In the power of N with which FLOPs a token go, a difference from 1 that is not told.
LEAST_BEND = 0.005


@dataclasses.dataclass(frozen=True)
class Row:
    """The figures under one set of conventions.

    Attributes:
      change: against the first row.
      runs: that were fitted.
      a: exponent of N* by the parametric law; None where it could not be fitted (`why_not`).
      iso_flop_a: the same by parabolas; None without budgets or accepted parabolas.
    """

    change: str
    runs: int
    a: float | None
    alpha: float | None
    beta: float | None
    E: float | None
    iso_flop_a: float | None
    why_not: str = ""


def sensitivity(everything: Runs, settings: Settings) -> list[Row]:
    """One change at a time.

    Args:
      everything: all runs, none left out yet.
      settings: those of the first row.
    """
    size = len(everything.usable("loss"))
    changes = list(_changes(everything, settings))
    rows = [_row(change, runs, delta, by_budget, size) for change, runs, delta, by_budget in changes]
    return [rows[0], *_own_flops(rows[0], changes[0][1]), *rows[1:]]


def _own_flops(row: Row, runs: Runs) -> list[Row]:
    """The exponent with the table's FLOPs as they go with size: C ~ N^p D gives a = beta / (alpha + p beta).

    Attention and head are not in proportion to N, so p is not 1 for exact FLOPs of small models.
    """
    table = runs.usable("loss")
    size, per_token = np.log(table["N"].to_numpy()), np.log((table["C"] / table["D"]).to_numpy())
    if row.alpha is None or row.beta is None or np.ptp(size) == 0:
        return []
    power = float(np.polyfit(size, per_token, 1)[0])
    if abs(power - 1) < LEAST_BEND:
        return []
    change = f"C is {runs.flops_convention}, which goes as N^{power:.2f} D"
    return [dataclasses.replace(row, change=change, a=row.beta / (row.alpha + power * row.beta))]


def _changes(everything: Runs, settings: Settings) -> Iterator[tuple[str, Runs, float, bool]]:
    """(what is changed, runs, delta, whether every budget weighs the same)."""
    runs = everything.with_best_learning_rates() if settings.best_learning_rates else everything
    if settings.drop_largest_losses:
        runs = runs.without_largest_losses(settings.drop_largest_losses)
    yield f"as analysed: N is {runs.parameter_convention}, C is {runs.flops_convention}", runs, settings.delta, False
    seen = [runs.table["N"]]
    for name in OTHER_PARAMETERS:
        if name in runs.table.columns and not any(runs.table[name].equals(other) for other in seen):
            seen.append(runs.table[name])
            yield f"N is {name}", runs.under(name, "C"), settings.delta, False
    if "learning_rate" in runs.table.columns and len(everything.usable()) != len(
        everything.with_best_learning_rates().usable()
    ):
        other = everything if settings.best_learning_rates else everything.with_best_learning_rates()
        yield (
            "all learning rates" if settings.best_learning_rates else "best learning rates",
            other,
            settings.delta,
            False,
        )
    count = max(1, round(LARGEST_LOSSES * len(runs.usable())))
    if settings.drop_largest_losses:
        yield "nothing left out for its loss", everything, settings.delta, False
    else:
        which = "largest loss" if count == 1 else f"{count} largest losses"
        yield f"without the {which}", runs.without_largest_losses(count), settings.delta, False
    for delta in OTHER_DELTAS:
        if delta != settings.delta:
            yield "least squares of log loss" if delta == np.inf else f"Huber delta {delta:g}", runs, delta, False
    if "budget" in runs.table.columns:
        yield "every budget weighs the same", runs, settings.delta, True


def _row(change: str, runs: Runs, delta: float, by_budget: bool, size: int) -> Row:
    try:
        table = runs.usable("loss")
    except RunsError as error:
        return Row(change, 0, None, None, None, None, None, str(error))
    iso_flop_a = None
    if "budget" in table.columns:
        line = fit_iso_flop(iso_flop_points(table, "loss"), draws=1).N
        iso_flop_a = line.exponent if line else None
    weights = np.ones(len(table))
    if by_budget:
        weights = 1 / table.select(pl.len().over("budget"))["len"].to_numpy().astype(float)
    # Filled up to one length with rows that weigh nothing: one length, one compilation.
    fill = np.minimum(np.arange(max(size, len(table))), len(table) - 1)
    weights = np.where(np.arange(len(fill)) < len(table), weights[fill], 0.0)
    N, D, loss = (table[name].to_numpy()[fill] for name in ("N", "D", "loss"))
    try:
        if len(table) < 6:
            raise ValueError(f"{len(table)} runs; the law has 5 parameters")
        fit = fit_parametric(N, D, loss, weights=weights, delta=delta, starts=chinchilla_starts()[::EVERY_START])
    except ValueError as error:
        return Row(change, len(table), None, None, None, None, iso_flop_a, str(error))
    return Row(change, len(table), fit.exponent_a, fit.alpha, fit.beta, fit.E, iso_flop_a)
