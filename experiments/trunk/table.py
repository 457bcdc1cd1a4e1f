"""Tables and picture of the study, from the results beside this file: `python experiments/trunk/table.py`.

Prints the Markdown that README.md shows: means over seeds with their standard errors, and differences to the base of
the same seeds, with intervals of 95% over seeds (Student's t). Writes scaling.svg: what trunks of a scaling study give
to applications against their pre-training loss.
"""

from __future__ import annotations

import itertools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from plum_jax.report import charts, page_svg
from plum_jax.report.figures import signed

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
Step = tuple[str, Any, Any]  # column, from, to
T95 = {2: 12.706, 3: 4.303}  # Student's, of two and three seeds
NEXT = ("base", "last", "concat", "tokens4", "tokens4_third", "latest", "sliding", "auxiliary", "no_request")
TARGETS = {
    "recall@10_unseen_0_behind": "next",
    "recall@10_unseen_5_behind": "5 behind it",
    "recall@10_unseen_1_days": "a day later",
}
COLD = {"recall@10": "R@10", "cold_recall@10": "new films: R@10", "cold_users": "users"}
RANK = {"auc": "AUC", "gauc": "GAUC", "log_loss": "log loss"}
# arXiv 2409.14517: recall less that of fixed latest windows; its mixed windows reach 500 events back.
PAPER = {"sliding": "+7.0%", "base": "+13.9%"}
# What an application gains: a trunk's figure, and what it is compared with: popularity's lists, or a ranker of the same
# shape from scratch.
GAINS = {
    "next film, R@10": ("recall@10_unseen_0_behind", None),
    "5 behind it, R@10": ("recall@10_unseen_5_behind", None),
    "a day later, R@10": ("recall@10_unseen_1_days", None),
    "rating, AUC": ("auc", "scratch_auc"),
    "rating, GAUC": ("gauc", "scratch_gauc"),
}
VERSIONS = {f"kept_{how}": how.replace("_", " ") for how in ("unaligned", "orthogonal", "low_rank", "retrained")}


def main() -> None:
    """Prints a table for each part of the study that has rows."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    by_name = {name: [row for row in rows if row["name"] == name] for name in dict.fromkeys(r["name"] for r in rows)}
    for data in dict.fromkeys(row["data"] for row in rows if row["name"].endswith("_horizons")):
        of_data = {name: [row for row in some if row.get("data") == data] for name, some in by_name.items()}
        horizons = {name: of_data[f"{name}_horizons"] for name in NEXT if of_data.get(f"{name}_horizons")}
        header = [f"{said} | less base" for said in TARGETS.values()]
        print_head(f"{data}: R@10, seen removed", *header, "seeds", "seconds")
        for name, some in horizons.items():
            cells = (f"{figure(some, metric)} | {less(some, horizons['base'], metric)}" for metric in TARGETS)
            print(f"| {name} | {' | '.join(cells)} | {len(some)} | {seconds(some)} |")
        if "latest" in horizons:
            print()
            print_head(f"{data}: windows", "R@10 of the next less that of latest windows", "the paper's")
            for name in (name for name in PAPER if name in horizons):
                found = less(horizons[name], horizons["latest"], "recall@10_unseen_0_behind")
                print(f"| {'mixed' if name == 'base' else name} | {found} | {PAPER[name]} |")
        print()
    section(
        by_name, ("cold_sum", "cold_age", "cold_sum_warm", "cold_age_warm"), COLD, "films that arrive after training"
    )
    of_cold(by_name)
    ranked = ("from_scratch", "frozen_mixture", "frozen_last", "frozen_concat", "learning")
    section(by_name, ranked, RANK, "a label on top of the trunk")
    liked = ("base_liked", "fine_tuned_liked", "from_scratch_liked")
    section(by_name, liked, {"recall@10": "R@10", "recall@10_unseen": "seen removed"}, "what is liked next")
    section(
        by_name,
        tuple(f"versions_{name}" for name in ("base", "last", "concat")),
        VERSIONS,
        "first ten that an old consumer keeps",
    )
    of_scaling([json.loads(line) for line in (HERE / "scaling.jsonl").read_text().splitlines()])


def of_cold(by_name: dict[str, list[Row]]) -> None:
    """What mixing by age, and warm rows, change."""
    print_head("films that arrive after training", "less", "R@10", "new films: R@10")
    for name, base in (("cold_age", "cold_sum"), ("cold_sum_warm", "cold_sum"), ("cold_age_warm", "cold_age")):
        of_base = {row["seed"]: row for row in by_name[base]}
        pairs = [(row, of_base[row["seed"]]) for row in by_name[name]]
        cells = (interval([row[m] - other[m] for row, other in pairs]) for m in ("recall@10", "cold_recall@10"))
        print(f"| {name} | {base} | {' | '.join(cells)} |")
    print()


def of_scaling(rows: list[Row]) -> None:
    """Gains of each size and number of events, how they hang on the loss, and the picture."""
    popularity = next(row for row in rows if row["name"] == "popularity")
    cells = [row for row in rows if "loss" in row]
    for row in cells:
        row["gains"] = {
            said: row[metric] - (popularity[metric] if base is None else row[base])
            for said, (metric, base) in GAINS.items()
        }
    places = sorted({(row["horizon"], row["parameters"]) for row in cells})
    by_place = {place: [r for r in cells if (r["horizon"], r["parameters"]) == place] for place in places}
    print_head("scaling: width x layers", "parameters", "events", "loss, nats", *GAINS, "seeds")
    for (_, parameters), some in by_place.items():
        gains = (spread([row["gains"][said] for row in some], signed) for said in GAINS)
        events, size = f"{some[0]['horizon']:,.0f}", some[0]["size"].lstrip("d0")
        loss = spread([row["loss"] for row in some], "{:.3f}".format)
        print(f"| {size} | {parameters:,} | {events} | {loss} | {' | '.join(gains)} | {len(some)} |")
    print()
    steps = steps_of(cells)
    print_head("what the gain hangs on", "rank correlation with loss", "for a nat less", *(said for said, _ in steps))
    for said in GAINS:
        ranks, slopes = zip(*(by_loss(seed, said) for seed in of_seeds(cells)), strict=True)
        changes = (interval([change(seed, said, step) for seed in of_seeds(cells)]) for _, step in steps)
        print(f"| {said} | {plain(ranks)} | {interval(slopes)} | {' | '.join(changes)} |")
    print()
    (HERE / "scaling.svg").write_text(page_svg.standalone(picture(by_place)))


def of_seeds(cells: Sequence[Row]) -> list[list[Row]]:
    """The cells of each seed."""
    return [[row for row in cells if row["seed"] == seed] for seed in sorted({row["seed"] for row in cells})]


def by_loss(cells: Sequence[Row], said: str) -> tuple[float, float]:
    """Spearman's correlation of loss and gain, and the least-squares slope of the gain over falling loss."""
    loss, gain = ([value(row) for row in cells] for value in (lambda row: row["loss"], lambda row: row["gains"][said]))
    ranks = [np.argsort(np.argsort(values)) for values in (loss, gain)]
    return float(np.corrcoef(*ranks)[0, 1]), -float(np.polyfit(loss, gain, 1)[0])


def steps_of(cells: Sequence[Row]) -> list[tuple[str, Step]]:
    """From each number of events, and each width, to the next: what it is called, the column, and both values."""
    events, sizes = ([*dict.fromkeys(row[name] for row in cells)] for name in ("horizon", "size"))
    found = [(f"{a:,.0f} to {b:,.0f} events", ("horizon", a, b)) for a, b in itertools.pairwise(sorted(events))]
    sizes.sort()
    return found + [
        (f"{a[1:4].lstrip('0')} to {b[1:4].lstrip('0')} wide", ("size", a, b)) for a, b in itertools.pairwise(sizes)
    ]


def change(cells: Sequence[Row], said: str, step: Step) -> float:
    """What a step changes of a gain, all else the same: the mean over the places of one seed that have both ends."""
    column, first, second = step
    other = "size" if column == "horizon" else "horizon"
    gains = {(row[column], row[other]): row["gains"][said] for row in cells}
    return float(np.mean([gains[second, rest] - gains[first, rest] for rest in {row[other] for row in cells}]))


def picture(by_place: dict[tuple[float, int], list[Row]]) -> str:
    """A panel a task, a line a number of events, a point a size: mean of the seeds, with 95% by Student's t."""
    panels: dict[str, dict[str, list[tuple[float, float, float]]]] = {said: {} for said in GAINS}
    for some in by_place.values():
        loss, series = float(np.mean([row["loss"] for row in some])), f"{some[0]['horizon']:,.0f} events"
        for said, of_task in panels.items():
            values = [row["gains"][said] for row in some]
            of_task.setdefault(series, []).append((loss, float(np.mean(values)), half_of(values)))
    return charts.points(panels, xlabel="pre-training loss, nats", falling=True)


def half_of(values: Sequence[float]) -> float:
    """Half of the 95% interval over seeds."""
    return float(T95[len(values)] * np.std(values, ddof=1) / np.sqrt(len(values)))


def interval(values: Sequence[float]) -> str:
    """The mean over seeds and its 95% interval."""
    mean, half = float(np.mean(values)), half_of(values)
    return f"{signed(mean)} [{signed(mean - half)}, {signed(mean + half)}]"


def plain(values: Sequence[float]) -> str:
    """The mean of the seeds, and the least and the greatest."""
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})".replace("-", "−")


def spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    """The mean with its standard error over seeds."""
    text = write(float(np.mean(values)))
    if len(values) == 1:
        return text
    error = write(float(np.std(values, ddof=1) / np.sqrt(len(values))))
    return f"{text} ± {error.lstrip('+')}"


def section(by_name: dict[str, list[Row]], names: Sequence[str], metrics: dict[str, str], said: str) -> None:
    """A table of some rows, where there are any."""
    there = [name for name in names if name in by_name]
    if not there:
        return
    print_head(said, *metrics.values(), "seeds", "seconds")
    for name in there:
        some = by_name[name]
        print(f"| {name} | {' | '.join(figure(some, m) for m in metrics)} | {len(some)} | {seconds(some)} |")
    print()


def print_head(*titles: str) -> None:
    """The head of a table; a title may be of two columns."""
    text = " | ".join(titles)
    print(f"| {text} |\n|{'---|' * (text.count('|') + 1)}")


def figure(rows: Sequence[Row], metric: str) -> str:
    """The mean, with its standard error over seeds where there are several; a count as it is."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return ""
    if np.mean(values) > 1:
        return f"{np.mean(values):,.0f}"
    text = f"{np.mean(values):.4f}"
    text = text[1:] if text.startswith("0") else text
    if len(values) == 1:
        return text
    return f"{text} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.4f}".replace("± 0", "± ")


def less(rows: Sequence[Row], base: Sequence[Row], metric: str) -> str:
    """The mean difference to the base of the same seeds with its interval, and what it is of the base in percent."""
    of_base = {row["seed"]: row[metric] for row in base}
    found = np.array([row[metric] - of_base[row["seed"]] for row in rows if row["seed"] in of_base])
    if rows is base or not len(found):
        return ""
    share = f"{100 * found.mean() / np.mean(list(of_base.values())):+.1f}%"
    if len(found) == 1:
        return f"{signed(found.mean())}, {share}".replace("-", "−")
    half = T95[len(found)] * np.std(found, ddof=1) / np.sqrt(len(found))
    low, high = signed(found.mean() - half), signed(found.mean() + half)
    return f"{signed(found.mean())} [{low}, {high}], {share}".replace("-", "−")


def seconds(rows: Sequence[Row]) -> str:
    """Of training, the mean; where it is known."""
    values = [row["train_seconds"] for row in rows if "train_seconds" in row]
    return f"{np.mean(values):,.0f}" if values else ""


if __name__ == "__main__":
    main()
