"""What a directory of results holds, for the report and the figures: runs, fits, forecast, plan; any may be missing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.scaling.run_fields import FINISHED, OURS, RunsError
from plum_jax.scaling.run_tables import read_runs

# Of best_possible_<name> in the rows of a study whose source knows the best model there can be.
BEST_POSSIBLE = {"loss": "best_possible_loss", "recall": "best_possible_recall@10"}


@dataclasses.dataclass(frozen=True)
class StudyResults:
    """The files of a study's directory, or of the directory that `gin/run/fit.gin` writes.

    Attributes:
      directory: where they lie.
      rows: of results.jsonl as they are; [] for other people's runs.
      points: runs in the fields of `scaling.run_fields`, held-out and failed ones, too; no rows when there are none.
      fits: content of fits.json; None without.
      forecast: content of forecast.json; None without.
      score: content of forecast_score.json; None without.
      plan: content of plan.json; None without.
      missing: what is not there, a sentence each, with what would make it.
    """

    directory: epath.Path
    rows: tuple[dict[str, Any], ...]
    points: pl.DataFrame
    fits: Mapping[str, Any] | None
    forecast: Mapping[str, Any] | None
    score: Mapping[str, Any] | None
    plan: Mapping[str, Any] | None
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """The study's name, else the directory's."""
        named = [row["study"] for row in self.rows if row.get("study")]
        return str(named[0]) if named else self.directory.name

    def held_out_came(self) -> bool:
        """Whether a held-out run has finished."""
        return bool(((self.points["status"] == FINISHED) & self.points["held_out"]).any())

    @property
    def confidence(self) -> float:
        """Of all intervals in fits.json."""
        return float(self.fits["settings"]["confidence"]) if self.fits else 0.9

    def best_possible(self, what: str) -> float | None:
        """The loss or recall of the best model there can be, where the source of the data knows it."""
        found = {row[BEST_POSSIBLE[what]] for row in self.rows if row.get(BEST_POSSIBLE[what]) is not None}
        return float(found.pop()) if len(found) == 1 else None

    def methods(self) -> Sequence[Mapping[str, Any]]:
        """The fits of the loss side by side; [] without."""
        return self.fits["loss"]["methods"] if self.fits else []

    def law(self) -> Mapping[str, Any] | None:
        """The parametric law with its parameters' intervals; None without."""
        found = [m for m in self.methods() if m["parameters"]]
        return found[0] if found else None

    def parabolas(self, what: str = "loss") -> list[dict[str, Any]]:
        """Of each budget, with the runs that its gate left out as `rejected_runs`; [] without."""
        part = self.fits and self.fits[_PART[what]]
        if not part or not part["iso_flop"]:
            return []
        runs = _fitted_runs(self.fits["points"] if self.fits else [], what)
        return [
            {**parabola, "rejected_runs": [runs[int(i)] for i in parabola["rejected"]]}
            for parabola in part["iso_flop"]["parabolas"]
        ]

    def optima(self, what: str = "loss") -> list[Mapping[str, Any]]:
        """Of each budget by interpolation; [] without."""
        part = self.fits and self.fits[_PART[what]]
        return part["akima"]["optima"] if part and part["akima"] else []


_PART = {"loss": "loss", "recall": "rate"}


def read_study_results(directory: epath.PathLike) -> StudyResults:
    """Reads what is there.

    Raises:
      ArtifactError: no such directory, or a file in it that is no JSON.
    """
    directory = epath.Path(directory)
    if not directory.exists():
        raise artifact.ArtifactError(f"expected the directory of a study or of fits, but there is no {directory}")
    rows = _json_lines(directory / "results.jsonl")
    names = ("fits.json", "forecast.json", "forecast_score.json", "plan.json")
    fits, forecast, score, plan = (_json(directory / name) for name in names)
    missing = []
    if fits is None:
        missing.append("fits.json: no law is fitted yet (gin/run/study_fit.gin for a study, gin/run/fit.gin else)")
    if not rows and fits is None:
        missing.append("results.jsonl: no run is done yet (gin/run/study_run.gin)")
    points = _points(directory, rows, fits, missing)
    if forecast is None and rows:
        missing.append("forecast.json: nothing was forecast before the held-out runs (gin/run/study_forecast.gin)")
    if forecast is not None and score is None:
        missing.append("forecast_score.json: the forecast is not scored yet (gin/run/study_score.gin)")
    return StudyResults(directory, tuple(rows), points, fits, forecast, score, plan, tuple(missing))


def _points(
    directory: epath.Path, rows: Sequence[Mapping[str, Any]], fits: Mapping[str, Any] | None, missing: list[str]
) -> pl.DataFrame:
    """Rows of results.jsonl, else those of fits.json; what a fit left out is marked as it marked it."""
    fitted = pl.DataFrame(fits["points"] if fits else [], infer_schema_length=None)
    if not rows:
        return _with_all_columns(fitted)
    try:
        points = read_runs(directory / "results.jsonl").table
    except RunsError as error:
        if any(row.get("status") == FINISHED for row in rows):
            missing.append(f"results.jsonl: {error}")
        return _with_all_columns(_unread(rows))
    if fits is not None:
        newer = points.join(fitted.select("run", "status"), on=["run", "status"], how="anti")
        if len(newer):
            missing.append(f"fits.json was made before {len(newer)} of the runs were done (they are drawn, not fitted)")
        left_out = fitted.filter(pl.col("excluded").is_not_null()).select("run", "excluded").unique("run")
        points = points.drop("excluded").join(left_out, on="run", how="left", maintain_order="left")
    return _with_all_columns(points)


def _unread(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows that are no table of runs, since none got so far as to have tokens or FLOPs: what they are, and why."""
    kept = ("run", "size", "budget", "status", "reason", "held_out")
    named = [{field: row.get(OURS[field]) for field in kept} | {"row": i} for i, row in enumerate(rows, 1)]
    frame = pl.DataFrame(named, infer_schema_length=None, strict=False)
    return frame.with_columns(pl.col("budget").cast(pl.Float64), pl.col("held_out").fill_null(False))


def _with_all_columns(points: pl.DataFrame) -> pl.DataFrame:
    """The columns that every figure may ask for."""
    numbers = ("N", "D", "C", "loss")
    blank = {name: pl.Series(name, [], pl.Float64) for name in numbers}
    blank |= {name: pl.Series(name, [], pl.String) for name in ("run", "status", "excluded")}
    blank |= {"held_out": pl.Series("held_out", [], pl.Boolean), "row": pl.Series("row", [], pl.Int64)}
    if not len(points):
        return pl.DataFrame(list(blank.values()))
    return points.with_columns(
        pl.lit(None, series.dtype).alias(name) for name, series in blank.items() if name not in points.columns
    ).with_columns(pl.col("excluded").cast(pl.String))


def _fitted_runs(points: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """Run of each point that an iso-FLOP fit saw, in its order: what the indices of a parabola mean."""
    needed = ("N", "D", "C", "budget", what)
    whole = [
        p
        for p in points
        if p["status"] == "finished"
        and p["excluded"] is None
        and not p["held_out"]
        and all(p.get(name) is not None for name in needed)
    ]
    longest: dict[str, float] = {}
    for point in whole:
        longest[point["run"]] = max(point["D"], longest.get(point["run"], 0.0))
    return [p["run"] for p in sorted(whole, key=lambda p: p["row"]) if p["D"] == longest[p["run"]]]


def _json(path: epath.Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise artifact.ArtifactError(f"expected JSON in {path}, got {error}: make it again") from None
    return content


def _json_lines(path: epath.Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise artifact.ArtifactError(f"line {number} of {path} is not JSON ({error})") from None
    return rows
