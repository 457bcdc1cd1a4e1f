"""Tables of a study's results, for the report and for a README: text in rows and columns, what is missing as None."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from plum_jax.scaling.plots.ledger import FATES, with_spent
from plum_jax.scaling.plots.look import power_of_ten, readable
from plum_jax.scaling.study_results import StudyResults


@dataclasses.dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
      header: of each column.
      rows: cells; None is missing.
      words: whether cells are sentences, which may be broken into lines.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    words: bool = False


def methods_table(results: StudyResults) -> Table:
    """The fits of the loss side by side."""
    header = ("fit of the loss", "a: N* ~ C^a", "b: D* ~ C^b", "E", "alpha", "beta", "remarks")
    rows = []
    for method in results.methods():
        remarks = "; ".join([method["why_not"], *method["warnings"]] if method["why_not"] else method["warnings"])
        of_law = (interval_text(method["parameters"].get(name)) for name in ("E", "alpha", "beta"))
        law = tuple(of_law) if method["parameters"] else ("", "", "")
        rows.append((method["name"], interval_text(method["a"]), interval_text(method["b"]), *law, remarks or ""))
    return Table(header, tuple(rows))


def parabolas_table(results: StudyResults, what: str = "loss") -> Table:
    """The best size of each budget by parabolas, and why one was refused."""
    header = ("budget (FLOPs)", "runs", "best N", "tokens there", what, "accepted")
    rows = [
        (
            power_of_ten(p["budget"], 3),
            str(len(p["points"])),
            None if p["N"] is None else readable(p["N"]),
            None if p["D"] is None else readable(p["D"]),
            None if p["value"] is None else f"{p['value']:.4g}",
            "yes" if p["accepted"] else f"no: {p['reason']}",
        )
        for p in results.parabolas(what)
    ]
    return Table(header, tuple(rows))


def forms_table(results: StudyResults) -> Table:
    """The forms of recall: how each predicted the largest fitted budget, and its irreducible miss rate."""
    rate = results.fits and results.fits["rate"]
    header = ("form of recall@10", "predicted", "observed", "error", "irreducible miss rate", "lack of fit (sd)")
    rows = []
    for form in rate["forms"] if rate else []:
        trial, fit, profile = form["trial"] or {}, form["fit"] or {}, form["profile"]
        irreducible: str | None = "" if profile is None else "{:.3f} to {:.3f}".format(*profile["interval"])
        if profile is not None and not profile["identified"]:
            irreducible = f"not identified ({irreducible})"
        name = form["form"] + (" (chosen)" if rate and form["form"] == rate["chosen"] else "")
        figures = [number(trial.get(key), 4) for key in ("predicted", "observed")]
        error = trial.get("error")
        lack = None if form["why_not"] else number(fit.get("lack_of_fit_sd"), 4)
        rows.append((name, *figures, None if error is None else f"{error:+.4f}", form["why_not"] or irreducible, lack))
    return Table(header, tuple(rows))


def sensitivity_table(results: StudyResults) -> Table:
    """Exponents under other conventions."""
    header = ("change", "runs", "a", "a by parabolas", "alpha", "beta", "E", "remarks")
    rows = [
        (
            row["change"],
            str(row["runs"]),
            *(number(row[key]) for key in ("a", "iso_flop_a", "alpha", "beta", "E")),
            row["why_not"],
        )
        for row in (results.fits["sensitivity"] if results.fits else [])
    ]
    return Table(header, tuple(rows))


def deadweight_table(results: StudyResults) -> Table:
    """Compute that the sizes of the other methods would waste at the largest fitted budget."""
    header = ("size chosen by", "at (FLOPs)", "N", "compute wasted, were the parametric law true")
    found = results.fits["deadweight"] if results.fits else {}
    rows = [
        (name, power_of_ten(d["flops"], 3), readable(d["N"]), interval_text(d["share"], percent=True))
        for name, d in found.items()
    ]
    return Table(header, tuple(rows))


def forecast_table(results: StudyResults) -> Table:
    """What was forecast, what came, and the two baselines; every held-out run below the best of its budget."""
    header = ("held out", "metric", "forecast", "observed", "error", "inside", "baselines")
    rows: list[tuple[str | None, ...]] = []
    if results.score is not None:
        baselines = {
            (best["budget"], metric): "; ".join(
                f"{name} {figures[metric]:.4f}"
                for name, figures in sorted(best["baselines"].items())
                if metric in figures
            )
            for best in (results.forecast or {"best": []})["best"]
            for metric in ("loss", "recall")
        }
        by_name = {f"best at {budget:.3g} FLOPs": budget for budget, _ in baselines}
        for scored in [*results.score["best"], *results.score["cells"]]:
            beside = baselines.get((by_name.get(scored["what"], 0.0), scored["metric"]), "")
            inside = "yes" if scored["inside"] else "no"
            observed, error = f"{scored['observed']:.4f}", f"{scored['error']:+.4f}"
            rows.append(
                (scored["what"], scored["metric"], _forecast_text(scored, "predicted"), observed, error, inside, beside)
            )
    elif results.forecast is not None:
        for best in results.forecast["best"]:
            for metric in ("loss", "recall"):
                if best.get(metric):
                    beside = "; ".join(f"{name} {f[metric]:.4f}" for name, f in sorted(best["baselines"].items()))
                    what = f"best at {best['budget']:.3g} FLOPs"
                    rows.append((what, metric, _forecast_text(best[metric], "value"), None, None, None, beside))
    return Table(header, tuple(rows))


def _forecast_text(interval: Mapping[str, Any], key: str) -> str:
    return f"{interval[key]:.4f} [{interval['low']:.4f}, {interval['high']:.4f}]"


def cells_table(results: StudyResults) -> Table:
    """Every run: what it was, what it cost, what it reached."""
    header = ("run", "N", "tokens", "epochs", "FLOPs", "learning rate", "loss", "recall@10", "status")
    rows = []
    for run in results.points.sort("row").iter_rows(named=True):
        status = "held out" if run["status"] == "finished" and run["held_out"] else run["status"]
        recall = run.get("recall")
        rows.append(
            (
                run["run"],
                None if run["N"] is None else readable(run["N"]),
                None if run["D"] is None else readable(run["D"]),
                number(run.get("epochs"), 2),
                None if run["C"] is None else power_of_ten(run["C"], 3),
                number(run.get("learning_rate")),
                number(run["loss"], 4),
                None if recall is None else f"{recall:.4f}",
                status if run["excluded"] is None else f"{status}; {run['excluded']}",
            )
        )
    return Table(header, tuple(rows))


def failures_table(results: StudyResults) -> Table:
    """Runs that did not finish, and those of the plan that have no row."""
    table = results.points.filter(pl.col("status") != "finished").sort("row")
    rows = [(row["run"], row["status"], row.get("reason")) for row in table.iter_rows(named=True)]
    done = set(results.points["run"])
    planned = results.plan["cells"] if results.plan else []
    for cell in planned:
        if cell["cell_id"] not in done:
            waiting = "held out, not run" if cell["held_out"] else "not run"
            rows.append((cell["cell_id"], waiting, "no row in results.jsonl"))
    return Table(("run", "status", "reason"), tuple(rows), words=True)


def ledger_table(results: StudyResults) -> Table:
    """Runs, FLOPs and time by what became of them."""
    header = ("", "runs", "FLOPs", "share", "wall time")
    if not len(results.points):
        return Table(header, ())
    spent = with_spent(results.points)
    total = float(spent["spent"].sum())
    rows = []
    for fate in FATES:
        here = spent.filter(pl.col("fate") == fate)
        if len(here):
            rows.append((fate, str(len(here)), *_cost(here, total)))
    rows.append(("all", str(len(spent)), *_cost(spent, total)))
    return Table(header, tuple(rows))


def _cost(runs: pl.DataFrame, total: float) -> tuple[str | None, ...]:
    flops = float(runs["spent"].sum())
    seconds = float(runs["wall_seconds"].sum()) if "wall_seconds" in runs.columns else None
    return (
        power_of_ten(flops, 3) if flops else None,
        f"{flops / total:.1%}" if total else None,
        None if seconds is None else f"{seconds / 3600:.2f} h",
    )


def interval_text(interval: Mapping[str, Any] | None, digits: int = 3, percent: bool = False) -> str | None:
    """ "0.49 [0.46, 0.51]"; None for None."""
    if interval is None or interval["value"] is None:
        return None
    scale, unit = (100, "%") if percent else (1, "")
    value, *ends = (
        None if interval[key] is None else f"{scale * interval[key]:.{digits}g}{unit}"
        for key in ("value", "low", "high")
    )
    return f"{value} [{ends[0]}, {ends[1]}]" if None not in ends else f"{value} [no interval]"


def number(value: float | None, digits: int = 3) -> str | None:
    """So many digits; None for None."""
    return None if value is None else f"{value:.{digits}g}"


def markdown(table: Table) -> str:
    """The table as Markdown, what is missing as "missing"."""
    lines: list[Sequence[str | None]] = [table.header, ["---", *("---:" for _ in table.header[1:])], *table.rows]
    if table.words:
        lines[1] = ["---" for _ in table.header]
    return "\n".join(
        "| " + " | ".join("missing" if c is None else c.replace("|", "/") for c in row) + " |" for row in lines
    )
