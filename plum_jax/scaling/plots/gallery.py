"""All figures of a study that its results allow, each with its caption, or with why it is not there."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence

import polars as pl
from etils import epath
from matplotlib.figure import Figure

from plum_jax import artifact
from plum_jax.scaling.plots import frontier, iso_flop, ledger, look
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


def _ledger(results: StudyResults) -> Figure:
    _require(len(results.points), "no run is done")
    return ledger.compute_ledger(results.points)


_FIGURES: dict[str, tuple[str, Callable[[StudyResults], Figure]]] = {
    "iso_flop_loss": (
        "Loss against size at equal compute; the best size of each budget with its {confidence} interval.",
        _iso_flop("loss", LOSS_LABEL),
    ),
    "optimum": ("The best size and its tokens against compute, by every method.", _optimum),
    "iso_flop_recall": (
        "Recall@10 against size at equal compute; the best size of each budget with its {confidence} interval.",
        _iso_flop("recall", RECALL_LABEL),
    ),
    "ledger": ("Where the compute went. A run that failed counts with its whole budget.", _ledger),
}
