"""Tables and picture of the study, from the rows beside this file: `python experiments/days/table.py`.

Prints the Markdown that README.md shows and writes days.svg. A figure of a seed is over all its days, each user and day
once; then means over seeds. Intervals of 95%: over seeds by Student's t; for hits on new items also over users, by the
paired errors of the rows, seeds and days taken for independent.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
T95 = {2: 12.706, 3: 4.303}  # Student's, of two and three seeds
ARMS = {"never": "never updated", "daily": "updated daily", "scratch": "from scratch"}
AGES = {
    "new": "came since the last day learnt",
    "young": "came since the base, watched",
    "old": "of the base",
    "all": "all of these",
    "cold": "of the new and young: no watch in training",
}
WHOLE = ("new", "young", "old")
RECALL, UNSEEN = "recall@10", "recall@10_unseen"


def main() -> None:
    """Prints a table for each part of the study that has rows, and draws the days."""
    rows = read("results.jsonl")
    for data in dict.fromkeys(row["data"] for row in rows):
        some = [row for row in rows if row["data"] == data]
        seeds = sorted({row["seed"] for row in some})
        print(f"{data}, {len(seeds)} seeds, updates {span(some, 'daily')}:\n")
        whole(some)
        last(some)
        by_age(some)
        by_day(some)
    for row_file in ("results_gap.jsonl",):
        gap = read(row_file)
        if gap:
            far = gap[0]["judged_day"] - gap[0]["day"] - 1
            print(
                f"{gap[0]['data']}, {far} days between what is learnt and what judges, updates {span(gap, 'daily')}:\n"
            )
            whole(gap)
    draw(rows)


def read(name: str) -> list[Row]:
    """The rows of a file, with what all ages come to; none where it is not there."""
    path = HERE / name
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for row in rows:
        row["all_targets"] = sum(row[f"{age}_targets"] for age in WHOLE)
        for name in (f"all_{RECALL}", f"all_{RECALL}_less_never"):
            parts = {age: name.replace("all", age, 1) for age in WHOLE}
            there = {age: row[part] * row[f"{age}_targets"] for age, part in parts.items() if part in row}
            row |= {name: sum(there.values()) / row["all_targets"]} if there else {}
    return rows


def span(rows: Sequence[Row], arm: str) -> str:
    """The days of an arm."""
    days = [row["day"] for row in rows if row["arm"] == arm]
    return f"{min(days)} to {max(days)}"


def whole(rows: Sequence[Row]) -> None:
    """Never and daily over all updates: recall, the difference, and what an update costs."""
    head("R@10", "seen removed", "less never", "FLOPs an update", "FLOPs in all", "seconds an update")
    for arm in ("never", "daily"):
        some = [row for row in rows if row["arm"] == arm and row["day"] > 0]
        figures = [over_seeds(pooled(some, name, "users")) for name in (RECALL, UNSEEN)]
        less = "" if arm == "never" else interval(pooled(some, f"{UNSEEN}_less_never", "users"))
        print(line(arm, *figures, less, *cost(rows, some)))
    print()


def last(rows: Sequence[Row]) -> None:
    """All three ways on the days on which one began from scratch."""
    days = sorted({row["day"] for row in rows if row["arm"] == "scratch"})
    if not days:
        return
    print(f"Update {', '.join(map(str, days))}, beside one that begins anew:\n")
    head("R@10", "seen removed", "less never", "FLOPs of the update", "FLOPs in all", "seconds of the update")
    for arm in ARMS:
        some = [row for row in rows if row["arm"] == arm and row["day"] in days]
        figures = [over_seeds(pooled(some, name, "users")) for name in (RECALL, UNSEEN)]
        less = "" if arm == "never" else interval(pooled(some, f"{UNSEEN}_less_never", "users"))
        print(line(arm, *figures, less, *cost(rows, some)))
    print()


def cost(rows: Sequence[Row], some: Sequence[Row]) -> list[str]:
    """FLOPs of an update and of everything up to the last, seconds of training an update."""
    final = max(row["day"] for row in some)
    total = np.mean([row["train_flops"] for row in some if row["day"] == final])
    if not sum(row["update_flops"] for row in some):
        return ["0", power(total), "0"]
    seconds = np.mean([row["train_seconds"] for row in some])
    return [power(float(np.mean([row["update_flops"] for row in some]))), power(total), f"{seconds:,.0f}"]


def by_age(rows: Sequence[Row]) -> None:
    """Everything that is watched on the days, by the age of the item."""
    chance = np.mean([row["chance@10"] for row in rows if row["day"] > 0])
    print(f"What is watched on a day, by the age of the item (seen removed; chance {decimal(chance)}):\n")
    print(
        "| items | watched | never updated | updated daily | daily less never | over users |\n|---|---|---|---|---|---|"
    )
    for age, said in AGES.items():
        found = {
            arm: [r for r in rows if r["arm"] == arm and r["day"] > 0 and r[f"{age}_targets"]]
            for arm in ("never", "daily")
        }
        if not found["daily"]:
            continue
        watched = sum(row[f"{age}_targets"] for row in found["daily"])
        name = f"{age}_{RECALL}"
        figures = [interval(pooled(found[arm], name, f"{age}_targets"), signed=False) for arm in found]
        less = interval(pooled(found["daily"], f"{name}_less_never", f"{age}_targets"))
        cells = (*figures, less, "" if age == "all" else users(found["daily"], f"{name}_less_never", age))
        print(f"| {said} | {watched:,} | {' | '.join(cells)} |")
    print()


def by_day(rows: Sequence[Row]) -> None:
    """Each day: what came, how far it drifted, and recall."""
    titles = ("events", "new items", "error, new / old", "verdict", "users", "never updated", "updated daily")
    print(f"| update | {' | '.join(titles)} | less never |\n|{'---|' * 9}")
    for day in sorted({row["day"] for row in rows if row["day"] > 0}):
        never, daily = ([row for row in rows if row["arm"] == arm and row["day"] == day] for arm in ("never", "daily"))
        events, texts, people = (np.mean([row[name] for row in daily]) for name in ("events", "texts", "users"))
        drifted = [row["drift_error_ratio"] for row in daily if "drift_error_ratio" in row]
        verdicts = dict.fromkeys(row["drift_verdict"] for row in daily if "drift_verdict" in row)
        recall = [over_seeds(pooled(some, UNSEEN, "users"), error=False) for some in (never, daily)]
        less = interval(pooled(daily, f"{UNSEEN}_less_never", "users"))
        ratio = f"{np.mean(drifted):.2f}" if drifted else ""
        cells = (f"{events:,.0f}", f"{texts:,.0f}", ratio, ", ".join(verdicts), f"{people:,.0f}", *recall, less)
        print(f"| {day} | {' | '.join(cells)} |")
    print()


def pooled(rows: Sequence[Row], name: str, weight: str) -> np.ndarray:
    """float64 [seeds]: the figure of each seed over its days, each counted by `weight`."""
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        some = [row for row in rows if row["seed"] == seed]
        weights = np.array([row[weight] for row in some], float)
        found.append(float((np.array([row[name] for row in some]) * weights).sum() / weights.sum()))
    return np.array(found)


def users(rows: Sequence[Row], name: str, age: str) -> str:
    """The interval of a pooled difference over users, seeds and days taken for independent."""
    known = [row for row in rows if np.isfinite(row[f"{name}_se"])]
    weights = np.array([row[f"{age}_targets"] for row in known], float)
    mean = (np.array([row[name] for row in known]) * weights).sum() / weights.sum()
    error = np.sqrt(((np.array([row[f"{name}_se"] for row in known]) * weights) ** 2).sum()) / weights.sum()
    return f"[{plus(mean - 1.96 * error)}, {plus(mean + 1.96 * error)}]"


def over_seeds(values: np.ndarray, error: bool = True) -> str:
    """The mean over seeds with its standard error."""
    if len(values) < 2 or not error:
        return decimal(values.mean())
    return f"{decimal(values.mean())} ± {decimal(values.std(ddof=1) / np.sqrt(len(values)))}"


def interval(values: np.ndarray, signed: bool = True) -> str:
    """The mean over seeds with Student's interval."""
    write = plus if signed else decimal
    if len(values) < 2:
        return write(values.mean())
    half = T95[len(values)] * values.std(ddof=1) / np.sqrt(len(values))
    low, high = (values.mean() - half, values.mean() + half)
    return f"{write(values.mean())} [{write(low)}, {write(high)}]"


def head(*titles: str) -> None:
    """The head of a table of arms."""
    print(f"| | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 1)}")


def line(arm: str, *cells: str) -> str:
    """A row of a table of arms."""
    return f"| {ARMS[arm]} | {' | '.join(cells)} |"


def decimal(value: float) -> str:
    """As the pages write it: no zero before the point."""
    return f"{value:.4f}".replace("0.", ".", 1).replace("-", "−")


def plus(value: float) -> str:
    """The same with a sign."""
    return f"{value:+.4f}".replace("0.", ".", 1).replace("-", "−")


def power(value: float) -> str:
    """FLOPs in two figures."""
    return f"{value:.1e}".replace("e+", "e").replace("e0", "e")


def draw(rows: Sequence[Row]) -> None:
    """Recall of each day that judges, and of its young items, a line a way."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "days", "svg.fonttype": "none"}
    from matplotlib import pyplot

    corpora = list(dict.fromkeys(row["data"] for row in rows))
    figure, axes = pyplot.subplots(len(corpora), 2, figsize=(9, 3 * len(corpora)), layout="constrained", squeeze=False)
    panels = ((UNSEEN, "users", "next item"), (f"young_{RECALL}", "young_targets", AGES["young"]))
    for (left, right), data in zip(axes, corpora, strict=True):
        for axis, (name, weight, said) in zip((left, right), panels, strict=True):
            for arm, label in ARMS.items():
                some = [row for row in rows if row["data"] == data and row["arm"] == arm and row[weight]]
                days = sorted({row["judged_day"] for row in some})
                of_day = [pooled([row for row in some if row["judged_day"] == day], name, weight) for day in days]
                mean = [values.mean() for values in of_day]
                error = [values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0 for values in of_day]
                axis.errorbar(days, mean, yerr=error, marker="o", markersize=4, capsize=2, label=label)
            if name != UNSEEN:
                chance = np.mean([row["chance@10"] for row in rows if row["data"] == data])
                axis.axhline(chance, color="grey", linestyle="--", linewidth=0.8, label="chance")
            axis.set(title=f"{data}: {said}", xlabel="day that judges", ylim=(0, None))
        left.set_ylabel("Recall@10, seen removed")
        right.legend()
    figure.savefig(HERE / "days.svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
