"""Tables of the study, from the results beside this file: `python experiments/relevance/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences on the same
queries with an interval of 95%, of the queries, drawn anew, and of the seeds. Writes curve.svg.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plum_jax.report import charts, page_svg
from plum_jax.report.figures import difference_over_users, mean_and_error, plain

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
Runs = Mapping[str, Sequence[Row]]  # name of a model -> a row a seed
METRICS = {"accuracy": "accuracy", "ndcg@10": "nDCG@10", "ndcg@20": "nDCG@20"}
KINDS = {
    "short": "2 words or less",
    "middle": "3 or 4",
    "long": "5 or more",
    "known_words": "known words",
    "new_words": "a new word",
}
GROUPS = {
    "SmolLM2 and parts": ("teacher", "assistant", "depth"),
    "all-MiniLM and parts": ("minilm",),
    "small cross-encoders": ("cross",),
    "bi-encoders": ("labels", "distilled", "by_"),
}


def main() -> None:
    """Prints a block of tables for each data set, and draws the first."""
    rows = [json.loads(row) for row in (HERE / "results.jsonl").read_text().splitlines()]
    for number, data in enumerate(dict.fromkeys(row["data"] for row in rows)):
        of_data = [row for row in rows if row["data"] == data]
        runs = {
            name: [row for row in of_data if row["name"] == name] for name in dict.fromkeys(r["name"] for r in of_data)
        }
        print(costs(data, runs), differences(data, runs), kinds(data, runs), sep="\n\n", end="\n\n")
        if number == 0:
            (HERE / "curve.svg").write_text(page_svg.standalone(curve(runs)))


def costs(data: str, runs: Runs) -> str:
    """What each model is worth, and what it costs."""
    columns = [*METRICS.values(), "nats", "ms, 20 items", "ms, 100", "pairs/s", "MB", "parameters", "train s", "seeds"]
    lines = [f"| {data} | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 1)}"]
    for name, some in runs.items():
        worth = [mean_and_error([row[m] for row in some]) if m in some[0] else "" for m in (*METRICS, "cross_entropy")]
        cost = [""] * 6
        if "ms_20" in some[0]:
            mean = {
                key: np.mean([row.get(key, 0.0) for row in some])
                for key in ("ms_20", "ms_100", "bytes", "train_seconds")
            }
            rate = np.mean([row["pairs_per_second"] for row in some])
            cost = [f"{mean['ms_20']:,.1f}", f"{mean['ms_100']:,.1f}", f"{rate:,.0f}", f"{mean['bytes'] / 1e6:,.1f}"]
            cost += [f"{some[0]['parameters']:,}", f"{mean['train_seconds']:,.0f}" if mean["train_seconds"] else ""]
        lines.append(f"| {name} | {' | '.join([*worth, *cost, str(len(some))])} |")
    return "\n".join(lines)


def differences(data: str, runs: Runs) -> str:
    """Each model less its base."""
    lines = [f"| {data} | less | {' | '.join(METRICS.values())} | largest change of a logit |", f"|{'---|' * 6}"]
    for name, some in runs.items():
        if "base" in some[0]:
            cells = [
                difference_over_users(some, f"{metric}_difference") if f"{metric}_difference" in some[0] else ""
                for metric in METRICS
            ]
            moved = plain(max(row["logit_error"] for row in some), 3) if "logit_error" in some[0] else ""
            lines.append(f"| {name} | {some[0]['base']} | {' | '.join([*cells, moved])} |")
    return "\n".join(lines)


def kinds(data: str, runs: Runs) -> str:
    """Accuracy and nDCG@10 by kinds of queries."""
    there = {kind: title for kind, title in KINDS.items() if next(iter(runs.values()))[0][f"{kind}_queries"]}
    counts = next(iter(runs.values()))[0]
    heads = [f"{title} ({counts[f'{kind}_queries']:,})" for kind, title in there.items()]
    lines = [f"| {data}, nDCG@10 (accuracy) by query | {' | '.join(heads)} |", f"|{'---|' * (len(there) + 1)}"]
    for name, some in runs.items():
        cells = []
        for kind in there:
            ndcg, accuracy = (
                [row[f"{kind}_{metric}"] for row in some if f"{kind}_{metric}" in row]
                for metric in ("ndcg@10", "accuracy")
            )
            cells.append(plain(np.mean(ndcg)) + (f" ({plain(np.mean(accuracy), 3)})" if accuracy else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def curve(runs: Runs) -> str:
    """nDCG@10 against milliseconds."""
    series = {
        group: {
            name: tuple(float(np.mean([row[key] for row in runs[name]])) for key in ("ms_20", "ndcg@10", "ndcg@10_se"))
            for name in runs
            if name.startswith(starts) and "ms_20" in runs[name][0]
        }
        for group, starts in GROUPS.items()
    }
    shown = {group: of_group for group, of_group in series.items() if of_group}
    return charts.trade_off(shown, xlabel="milliseconds for a query with 20 items", ylabel="nDCG@10")


if __name__ == "__main__":
    main()
