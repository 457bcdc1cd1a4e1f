"""STUDY_DIR/report.html: one page with what a study says, its figures, its tables, and how to make it again.

Reads only what is in the directory, of a study of ours or of a fit of other people's runs. What is missing is named.
"""

from __future__ import annotations

import importlib.metadata
import json
import pathlib
import re
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
from etils import epath

from plum_jax import artifact
from plum_jax.report import page_svg
from plum_jax.scaling import study_tables
from plum_jax.scaling.headlines import headlines, scope
from plum_jax.scaling.plots import gallery, look
from plum_jax.scaling.study_results import StudyResults, read_study_results

REPORT = "report.html"
PACKAGES = ("plum_jax", "jax", "jaxlib", "numpy", "scipy", "polars", "matplotlib")
# What a row says of where it was made.
PROVENANCE = ("commit", "machine", "python", "jax")
# A cell's command ends in what makes it one cell of the study's.
ONE_CELL = re.compile(r" '?--gin_file=gin/run/study_one_cell\.gin'?.*$")


def write_study_report(study_dir: epath.PathLike, formats: Sequence[str] = look.FORMATS) -> epath.Path:
    """Writes `report.html` and the figures in `plots/`, and returns the page's path.

    Args:
      study_dir: of a study, or where `gin/run/fit.gin` wrote fits.json; any file in it may be missing.
      formats: of the files in `plots/`; with () there are none.

    Raises:
      ArtifactError: no such directory, or a file in it that cannot be read.
    """
    results = read_study_results(study_dir)
    pictures = gallery.pictures(results)
    gallery.save_pictures(pictures, results.directory / "plots", formats)
    found = headlines(results)
    page = _template().render(
        name=results.name,
        scope=scope(results),
        said=found.said,
        not_identified=found.not_identified,
        pictures=[{"name": p.name, "caption": p.caption, "why_not": p.why_not, "svg": _inline(p)} for p in pictures],
        tables=_tables(results),
        again=_again(results),
    )
    path = results.directory / REPORT
    artifact.write_text(path, page)
    return path


def _inline(picture: gallery.Picture) -> str | None:
    return None if picture.figure is None else look.for_page(picture.figure, picture.caption)


def _tables(results: StudyResults) -> list[dict[str, Any]]:
    """Title, note, table; tables without rows say what they lack."""
    confidence = f"{100 * results.confidence:g}%"
    made = [
        ("Fits side by side", f"In brackets: {confidence} intervals.", study_tables.methods_table(results)),
        (
            "The sealed forecast",
            f"Written before the first held-out run; in brackets: {confidence} intervals.",
            study_tables.forecast_table(results),
        ),
        ("Best size of each budget, by loss", "", study_tables.parabolas_table(results)),
        ("Best size of each budget, by recall@10", "", study_tables.parabolas_table(results, "recall")),
        (
            "Forms of recall",
            "Each fitted without the largest budget, and judged on it.",
            study_tables.forms_table(results),
        ),
        (
            "Other conventions",
            "How far the exponents move when one choice is another.",
            study_tables.sensitivity_table(results),
        ),
        ("Compute wasted by another choice of size", "", study_tables.deadweight_table(results)),
        ("Failed, or not run", "", study_tables.failures_table(results)),
        ("Ledger", "A run that failed counts with its whole budget.", study_tables.ledger_table(results)),
        ("Runs", "", study_tables.cells_table(results)),
    ]
    return [{"title": title, "note": note, "table": table, "long": len(table.rows) > 20} for title, note, table in made]


def _again(results: StudyResults) -> dict[str, Any]:
    """Commands, where the runs were made, settings of the fit, versions of what wrote the page."""
    directory = shlex.quote(f"'{results.directory}'")
    commands = _distinct(ONE_CELL.sub("", row["command"]) for row in results.rows if row.get("command"))
    commands += [f"plum --gin_file=gin/run/study_report.gin --gin.STUDY_DIR={directory}"]
    made = {
        name: ", ".join(_distinct(str(row[name]) for row in results.rows if row.get(name) is not None)) or None
        for name in PROVENANCE
    }
    return {
        "commands": commands,
        "source": results.fits["source"] if results.fits else None,
        "made": made if results.rows else {},
        "settings": json.dumps(results.fits["settings"], indent=1) if results.fits else None,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _template() -> jinja2.Template:
    folders = [pathlib.Path(__file__).parent, page_svg.STYLE_SHEET.parent]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study_report.html")
