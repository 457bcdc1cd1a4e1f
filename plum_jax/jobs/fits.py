"""Jobs of `plum` on tables of runs: `gin/run/fit.gin`, `study_fit.gin`, `study_forecast.gin`, `study_score.gin`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from etils import epath

from plum_jax.scaling import forecast, forecast_score
from plum_jax.scaling.analyse import analyse, write_analysis
from plum_jax.scaling.fits_table import fits_text
from plum_jax.scaling.loss_analysis import Settings
from plum_jax.scaling.run_fields import FLOPS_PER_ND
from plum_jax.scaling.run_tables import Columns, read_runs
from plum_jax.scaling.run_values import OnBadRow


def fit_runs(
    model_dir: str,
    runs: str,
    columns: Columns | None = None,
    flops_per_nd: float = FLOPS_PER_ND,
    on_bad_row: OnBadRow = "error",
    settings: Settings | None = None,
) -> None:
    """Fits any table of runs and writes `fits.json` into the directory of the job.

    Args:
      model_dir: where `fits.json` goes.
      runs: .csv, .jsonl or .parquet.
      columns: field of `plum_jax.scaling.run_fields.FIELDS` -> the table's column, or (column, unit) with a unit
        ("millions") or a factor (1e6); None for the rows of a study of ours.
      flops_per_nd: gives the third of N, D and C where the table has two.
      on_bad_row: "error", or "skip" to count rows with a value that cannot be one and fit the others.
      settings: of the analysis.
    """
    analysis = analyse(read_runs(runs, columns, flops_per_nd, on_bad_row), settings)
    path = write_analysis(analysis, model_dir)
    print(fits_text(analysis))
    print(f"fits: {path}")


def seal_forecast(study_dir: str, settings: Settings | None = None, commit: str | None = None) -> None:
    """Writes `STUDY_DIR/forecast.json` before the first held-out run; refuses to do it twice or too late.

    Args:
      study_dir: of a study with a plan, whose other runs are in results.jsonl.
      settings: of the analysis.
      commit: of the code.
    """
    now = datetime.datetime.now(datetime.UTC)
    content = forecast.seal_forecast(study_dir, settings or Settings(), commit, now)
    for best in content["best"]:
        for metric in forecast.METRICS:
            if metric in best:
                print(f"best {metric} at {best['budget']:.3g} FLOPs: {_text(best[metric])}")
    print(f"{len(content['cells'])} held-out runs forecast and sealed: {epath.Path(study_dir) / forecast.FORECAST}")


def score_forecast(study_dir: str) -> None:
    """Scores the sealed forecast by the held-out runs that have finished; writes `STUDY_DIR/forecast_score.json`."""
    print(forecast_score.score_text(forecast_score.score_forecast(study_dir)))


def _text(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def fit_study(study_dir: str, settings: Settings | None = None) -> None:
    """Fits a study's finished runs but the held-out ones, and writes `STUDY_DIR/fits.json`."""
    fit_runs(study_dir, str(epath.Path(study_dir) / "results.jsonl"), settings=settings)
