"""Tables and picture of the study, from results.jsonl beside this file: `python experiments/steering/table.py`.

Prints the Markdown that README.md shows: what a request in words does to lists, how true reasons are, who finds films
that nobody has watched, and what watch-next tables save; means over seeds. Writes recall against FLOPs as a picture.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report import charts, page_svg
from plum_jax.report.figures import difference, difference_over_users, mean_and_error, plain

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]
ITEMS = 3883  # films, of which ten at random hold the next one in 10 / ITEMS of the lists
ARMS = {
    "without_cpt": "random start, no CPT",
    "with_cpt": "CPT, which was told of the new films",
    "without_cpt_new_items": "no CPT, two places of ten for new films",
    "with_cpt_new_items": "CPT, two places of ten for new films",
}
SAID = {
    "removal": "the costliest to remove (the bound)",
    "newest": "the newest",
    "shared": "shares the rarest values, by metadata",
    "said": "what the model says",
}


def main() -> None:
    """Prints the tables, and draws the picture."""
    rows = [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]
    steering([row for row in rows if row["name"].startswith("steering")])
    cold([row for row in rows if row["name"] in ARMS])
    reasons([row for row in rows if row["name"] == "faithfulness"])
    offline([row for row in rows if row["name"] == "offline_recall"])


def steering(records: Sequence[Row]) -> None:
    """One line for each value."""
    titles = 'films | share of the first ten | with "more" | times | with "not" | targets | recall of them'
    titles += ' | with "more" | by the trie'
    print(f"| asked for | {titles} | recall of all users, change |\n|{'---|' * 11}")
    by_value: dict[str, list[Row]] = {}
    for record in records:
        for row in record["rows"]:
            by_value.setdefault(row["value"], []).append(row)
    for value, rows in sorted(by_value.items(), key=lambda pair: pair[1][0]["items"]):
        shares = [mean_and_error([row[f"share_{of}"] for row in rows], 3) for of in ("plain", "asked")]
        times = np.mean([row["share_asked"] for row in rows]) / np.mean([row["share_plain"] for row in rows])
        recalls = [plain(pooled(rows, f"recall_{of}"), 3) for of in ("plain", "asked", "filtered")]
        change = difference_over_users(rows, "loss_all")
        cells = [*shares, f"{times:.1f}", mean_and_error([row["share_refused"] for row in rows], 3)]
        cells += [str(sum(row["targets"] for row in rows)), *recalls, change]
        print(f"| {value} | {rows[0]['items']} | {' | '.join(cells)} |")


def pooled(rows: Sequence[Row], name: str) -> float:
    """A recall over the targets of all seeds."""
    return sum(row[name] * row["targets"] for row in rows) / sum(row["targets"] for row in rows)


def cold(rows: Sequence[Row]) -> None:
    """One line for each arm, seen items removed, and what CPT makes of new films."""
    titles = "R@10, all users | users whose next film is new | R@10 of them | 95%, all seeds | seeds"
    print(f"\n| seen items removed | {titles} |\n|{'---|' * 6}")
    for name, said in ARMS.items():
        some = [row for row in rows if row["name"] == name]
        users, hits = (sum(row[key] for row in some) for key in ("cold_users", "cold_hits@10_unseen"))
        low, high = wilson(hits, users)
        everybody = mean_and_error([row["recall@10_unseen"] for row in some])
        of_new = f"{users:,} | {plain(hits / users)} | [{plain(low)}, {plain(high)}]"
        print(f"| {said} | {everybody} | {of_new} | {len(some)} |")
    print(f"| ten films at random | | | {plain(10 / ITEMS)} | | |")
    seeds = sorted({row["seed"] for row in rows})
    of = {(row["name"], row["seed"]): row["cold_recall@10_unseen"] for row in rows}
    found = [of["with_cpt_new_items", seed] - of["without_cpt_new_items", seed] for seed in seeds]
    print(f"\nWith two places, CPT less no CPT on new films, paired by seed (Student's 95%): {difference(found)}.")


def wilson(hits: int, users: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    z, share = 1.96, hits / users
    middle, half = share + z**2 / (2 * users), z * np.sqrt(share * (1 - share) / users + z**2 / (4 * users**2))
    return (middle - half) / (1 + z**2 / users), (middle + half) / (1 + z**2 / users)


def reasons(records: Sequence[Row]) -> None:
    """One line for each way to name a reason."""
    titles = "named for | loss without it, nats | without another | difference, 95% | the costliest of all | by chance"
    print(f"\n| the named film | {titles} |\n|{'---|' * 7}")
    for way, said in SAID.items():
        rows = [row for record in records for row in record["rows"] if row["reason"] == way]
        named = sum(row["named"] for row in rows) / sum(row["users"] for row in rows)
        drops = [plain(float(np.mean([row[name] for row in rows])), 3) for name in ("drop", "drop_others")]
        firsts = [plain(float(np.mean([row[name] for row in rows])), 3) for name in ("first", "first_by_chance")]
        cells = " | ".join((*drops, difference_over_users(rows, "faithful", digits=3), *firsts))
        print(f"| {said} | {named:.0%} | {cells} |")
    true = [row["true_words"] for record in records for row in record["rows"] if "true_words" in row]
    print(f"\nOf what the model says to be shared, {mean_and_error(true, 3)} is.")


def offline(records: Sequence[Row]) -> None:
    """One line for each way to make lists, and the picture."""
    print(f"\n| lists from | R@10, seen removed | FLOPs a user | of the most | change of R@10, 95% |\n|{'---|' * 5}")
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for place, first in enumerate(records[0]["rows"]):
        rows = [record["rows"][place] for record in records]
        personal = first["family"] == "personal"
        what = f"the model, {first['events']} events" if personal else f"a table, {first['lists']} lists"
        change = difference_over_users(rows, "change")
        recall = mean_and_error([row["recall"] for row in rows])
        print(f"| {what} | {recall} | {first['flops_per_user']:.2g} | {first['of_full']:.1%} | {change} |")
        line = lines.setdefault("asked for each user" if personal else "watch-next tables", ([], []))
        line[0].append(first["flops_per_user"])
        line[1].append(float(np.mean([row["recall"] for row in rows])))
    chart = charts.curves(lines, title="MovieLens-1M", ylabel="Recall@10, seen removed", xlabel="FLOPs a user")
    (HERE / "offline.svg").write_text(page_svg.standalone(chart))


if __name__ == "__main__":
    main()
