"""Jobs of `plum` on tables of runs: `gin/run/fit.gin`, `gin/run/study_fit.gin`."""

from __future__ import annotations

from collections.abc import Mapping

from etils import epath

from plum_jax.scaling.analyse import analyse, write_analysis
from plum_jax.scaling.fits_table import fits_text
from plum_jax.scaling.loss_analysis import Settings
from plum_jax.scaling.runs import FLOPS_PER_ND, read_runs


def fit_runs(
    model_dir: str,
    runs: str,
    columns: Mapping[str, str] | None = None,
    flops_per_nd: float = FLOPS_PER_ND,
    settings: Settings | None = None,
) -> None:
    """Fits any table of runs and writes `fits.json` into the directory of the job.

    Args:
      model_dir: where `fits.json` goes.
      runs: .csv, .jsonl or .parquet.
      columns: field of `plum_jax.scaling.runs.FIELDS` -> the table's column; None for the rows of a study of ours.
      flops_per_nd: gives the third of N, D and C where the table has two.
      settings: of the analysis.
    """
    analysis = analyse(read_runs(runs, columns, flops_per_nd), settings)
    path = write_analysis(analysis, model_dir)
    print(fits_text(analysis))
    print(f"fits: {path}")


def fit_study(study_dir: str, settings: Settings | None = None) -> None:
    """Fits a study's finished runs but the held-out ones, and writes `STUDY_DIR/fits.json`."""
    fit_runs(study_dir, str(epath.Path(study_dir) / "results.jsonl"), settings=settings)
