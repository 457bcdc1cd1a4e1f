"""All figures of a study that its results allow, each with its caption, or with why it is not there."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl
from etils import epath
from matplotlib.figure import Figure

from plum_jax import artifact
from plum_jax.report import page_svg
from plum_jax.scaling.plots import (
    conventions,
    draws,
    frontier,
    held_out,
    iso_flop,
    learning_rate,
    ledger,
    look,
    loss,
    recall,
    residuals,
)
from plum_jax.scaling.study_results import StudyResults

LOSS_LABEL = "held-out loss (nats a token)"
RECALL_LABEL = "recall@10"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure, or why there is none.

    Attributes:
      name: of its files.
      caption: one line.
      figure: None where `why_not` says why.
      why_not: "" where there is a figure.
    """

    name: str
    caption: str
    figure: Figure | None
    why_not: str = ""


class NotThere(Exception):
    """A figure cannot be drawn from what there is; the message says what is missing."""


def pictures(results: StudyResults) -> list[Picture]:
    """Every figure, in the order of the page."""
    return [_picture(name, caption, make, results) for name, (caption, make) in _FIGURES.items()]


def as_svg(picture: Picture) -> str:
    """The figure as an SVG file of its own, for light and for dark pages.

    Raises:
      ValueError: there is no figure.
    """
    if picture.figure is None:
        raise ValueError(f"there is no figure {picture.name}: {picture.why_not}")
    return page_svg.standalone(look.for_page(picture.figure, picture.caption))


def save_all(results: StudyResults, directory: epath.PathLike | None = None) -> list[epath.Path]:
    """Writes every figure as PNG, SVG and PDF into the directory and returns the paths; None: the study's `plots`."""
    directory = results.directory / "plots" if directory is None else epath.Path(directory)
    return save_pictures(pictures(results), directory)


def save_pictures(
    made: list[Picture], directory: epath.PathLike, formats: Sequence[str] = look.FORMATS
) -> list[epath.Path]:
    """Writes the figures that are there in each format and returns the paths."""
    directory = epath.Path(directory)
    paths = []
    for picture in made:
        if picture.figure is not None:
            for ending in formats:
                content = io.BytesIO()
                look.write_figure(picture.figure, content, ending)
                path = directory / f"{picture.name}.{ending}"
                artifact.write_bytes(path, content.getvalue())
                paths.append(path)
    return paths


def _picture(name: str, caption: str, make: Callable[[StudyResults], Figure], results: StudyResults) -> Picture:
    try:
        figure = make(results)
    except NotThere as error:
        return Picture(name, "", None, str(error))
    look.settle(figure)
    return Picture(name, caption.format(confidence=f"{100 * results.confidence:g}%"), figure)


def _require(there: object, why_not: str) -> None:
    if not there:
        raise NotThere(why_not)


def _finished(results: StudyResults, value: str) -> pl.DataFrame:
    """Finished runs with this value."""
    if value not in results.points.columns:
        raise NotThere(f"no run has a {value}")
    shown = results.points.filter(pl.col("status") == "finished").drop_nulls(["N", "D", "C", value])
    _require(len(shown), f"no finished run has a {value}")
    return shown


def _iso_flop(what: str, label: str) -> Callable[[StudyResults], Figure]:
    def make(results: StudyResults) -> Figure:
        shown = _finished(results, what)
        _require("budget" in shown.columns and shown["budget"].is_not_null().any(), "the runs have no budgets")
        parabolas = results.parabolas(what)
        return iso_flop.iso_flop_curves(
            results.points, parabolas, value=what, label=label, confidence=results.confidence
        )

    return make


def _optimum(results: StudyResults) -> Figure:
    _require(results.fits, "fits.json is not there")
    _require(any(m["frontier"] for m in results.methods()), "no method has exponents (the table below says why)")
    arguments = (results.methods(), results.parabolas(), results.optima(), results.points)
    return frontier.optimum_against_compute(*arguments, band=results.confidence)


def _law(results: StudyResults) -> Mapping[str, Any]:
    """The parametric law; refuses without."""
    law = results.law()
    if law is None:
        raise NotThere("no parametric law is fitted")
    return law


def _forecast(results: StudyResults) -> Sequence[Mapping[str, Any]]:
    return results.forecast["best"] if results.forecast else ()


def _loss(results: StudyResults) -> Figure:
    _finished(results, "loss")
    return loss.loss_against_compute(
        results.points,
        results.law(),
        forecast=_forecast(results),
        best_possible=results.best_possible("loss"),
        band=results.confidence,
        label=LOSS_LABEL,
    )


def _reducible(results: StudyResults) -> Figure:
    _finished(results, "loss")
    return loss.reducible_loss(results.points, _law(results), band=results.confidence)


def _residuals(results: StudyResults) -> Figure:
    _finished(results, "loss")
    seed_sd = results.fits["loss"]["seed_sd"] if results.fits else None
    return residuals.residual_plots(results.points, _law(results)["parameters"], seed_sd)


def _learning_rates(results: StudyResults) -> Figure:
    trials = learning_rate.trials_of(results.points)
    _require(trials, "no size was run with three learning rates at one budget")
    return learning_rate.learning_rate_curves(trials, LOSS_LABEL)


def _pairs(results: StudyResults) -> Figure:
    law = _law(results)
    found = (results.fits or {}).get("law_draws")
    _require(found, "fits.json has no draws of the law")
    return draws.bootstrap_pairs(found or [], law["parameters"], law["a"]["value"])


def _profiles(results: StudyResults) -> Figure:
    found = results.fits["loss"]["profiles"] if results.fits else []
    _require(found, "fits.json has no profiles")
    return draws.profiles(found)


def _recall_against_loss(results: StudyResults) -> Figure:
    _finished(results, "recall")
    return recall.recall_against_loss(results.points, best_possible=results.best_possible("recall"), label=RECALL_LABEL)


def _recall_against_compute(results: StudyResults) -> Figure:
    _finished(results, "recall")
    rate = (results.fits["rate"] if results.fits else None) or {"flops": [], "forms": [], "chosen": ""}
    return recall.recall_against_compute(
        results.points,
        rate["flops"],
        rate["forms"],
        rate["chosen"],
        forecast=_forecast(results),
        best_possible=results.best_possible("recall"),
        band=results.confidence,
        label=RECALL_LABEL,
    )


def _held_out(results: StudyResults) -> Figure:
    if results.forecast is None:
        raise NotThere("nothing was forecast")
    came = set(results.points.filter(pl.col("status") == "finished", pl.col("held_out"))["run"])
    _require(
        came & {cell["name"] for cell in results.forecast["cells"]}, "no held-out run of the forecast has finished"
    )
    return held_out.predicted_against_observed(results.forecast, results.points)


def _conventions(results: StudyResults) -> Figure:
    _require(results.fits and results.fits["sensitivity"], "fits.json is not there")
    law = results.law()
    return conventions.convention_forest((results.fits or {})["sensitivity"], law["a"] if law else None)


def _ledger(results: StudyResults) -> Figure:
    _require(len(results.points), "no run is done")
    return ledger.compute_ledger(results.points)


_FIGURES: dict[str, tuple[str, Callable[[StudyResults], Figure]]] = {
    "iso_flop_loss": (
        "Loss against size at equal compute; the best size of each budget with its {confidence} interval.",
        _iso_flop("loss", LOSS_LABEL),
    ),
    "optimum": ("The best size and its tokens against compute, by every method.", _optimum),
    "loss": ("Loss against compute: every run, the best size of each budget, the law and the forecast.", _loss),
    "reducible_loss": (
        "Loss above the irreducible one: straight along the frontier if the law's form holds; dashed and dotted: the "
        "best runs, were E at an end of its interval.",
        _reducible,
    ),
    "recall": ("Recall@10 against compute: every run, every form, the forecast.", _recall_against_compute),
    "recall_of_loss": ("Recall@10 against loss: one curve for all sizes, or not?", _recall_against_loss),
    "iso_flop_recall": (
        "Recall@10 against size at equal compute; the best size of each budget with its {confidence} interval.",
        _iso_flop("recall", RECALL_LABEL),
    ),
    "held_out": (
        "Held-out runs: what was forecast before they ran against what came; the baselines beside it.",
        _held_out,
    ),
    "residuals": ("What the parametric law leaves over, against size, tokens, compute and seed.", _residuals),
    "learning_rates": (
        "Loss against learning rate, where trials were run; the best should be an inner one.",
        _learning_rates,
    ),
    "profiles": ("Objective against one parameter fixed, all others fitted; shaded: {confidence}.", _profiles),
    "bootstrap": ("Parameters of the law over the bootstrap of runs, in pairs; orange: the fit.", _pairs),
    "conventions": (
        "The exponent under other conventions; shaded: its {confidence} interval as analysed.",
        _conventions,
    ),
    "ledger": ("Where the compute went. A run that failed counts with its whole budget.", _ledger),
}
