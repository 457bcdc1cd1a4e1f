"""The report's table of results: which columns, in whose words, and what can be concluded from them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]

LABELS = {
    "popularity": "Most popular",
    "item_knn": "Item-kNN",
    "sasrec": "SASRec",
    "lem": "LEM",
    "without_cpt": "Model without CPT",
    "with_cpt": "Model with CPT",
}
_RECALL = re.compile(r"recall@(\d+)(_unseen)?")


def latest_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each name and seed, the last one written, in the order in which they first came."""
    latest: dict[tuple[Any, Any], dict[str, Any]] = {}
    for row in rows:
        latest[row["name"], row.get("seed")] = row
    return list(latest.values())


def label(row: Row, rows: Sequence[Row]) -> str:
    """What readers call a row; with its seed where several rows bear its name."""
    name = LABELS.get(row["name"], row["name"].replace("_", " "))
    namesakes = sum(other["name"] == row["name"] for other in rows)
    return f"{name}, seed {row.get('seed')}" if namesakes > 1 else name


def result_columns(rows: Sequence[Row]) -> tuple[list[int], bool]:
    """The k of Recall@k that the rows hold, ascending, and whether any holds figures with seen items removed."""
    matches = [match for row in rows for key in row if (match := _RECALL.fullmatch(key))]
    return sorted({int(match[1]) for match in matches}), any(match[2] for match in matches)


def result_table(rows: Sequence[Row], ks: Sequence[int], suffix: str) -> dict[str, Any]:
    """Header and cells: item-level Recall and NDCG first, then SID-level recall, coverage and what else there is.

    Args:
      rows: of `results.jsonl`.
      ks: list lengths.
      suffix: "" or "_unseen" (seen items removed).

    Returns:
      "header": names; "rows": (label, cells), a cell with "text", "error" (may be "") and "best".
    """
    wanted = {f"Recall@{k}": f"recall@{k}{suffix}" for k in ks} | {f"NDCG@{k}": f"ndcg@{k}{suffix}" for k in ks}
    wanted |= {f"SID Recall@{k}": f"sid_recall@{k}{suffix}" for k in ks[-1:]}
    wanted |= {f"Recall@{k} of new items": f"cold_recall@{k}{suffix}" for k in ks[-1:]}
    wanted |= {f"Coverage@{k}": f"coverage@{k}{suffix}" for k in ks[-1:]}
    wanted |= {f"Effective vocabulary@{k}": f"effective_vocabulary@{k}{suffix}" for k in ks[-1:]}
    if not suffix:
        wanted["IDs that exist, unconstrained"] = "valid_share"
    columns = {header: key for header, key in wanted.items() if any(row.get(key) is not None for row in rows)}
    best = {key: max(row[key] for row in rows if row.get(key) is not None) for key in columns.values()}
    compared = ("recall", "ndcg")
    return {
        "header": list(columns),
        "rows": [
            (
                label(row, rows),
                [_cell(row, key, best[key] if key.startswith(compared) else None) for key in columns.values()],
            )
            for row in rows
        ],
    }


def _cell(row: Row, key: str, best: float | None) -> dict[str, Any]:
    value, error = row.get(key), row.get(f"{key}_se")
    if value is None:
        return {"text": "–", "error": "", "best": False, "missing": True}
    digits = 0 if key.startswith("effective_vocabulary") else 4
    error = f"± {error:.{digits}f}" if error is not None else ""
    return {"text": f"{value:.{digits}f}", "error": error, "best": best is not None and value == best, "missing": False}


def popularity_table(rows: Sequence[Row], k: int) -> dict[str, Any] | None:
    """Recall@k by the popularity of the item that was to be found, as `result_table` has it; None where no row has it.

    Columns are tenths of the items, the most popular first, and new items; beside a share stand hits and users.
    """
    groups = {f"{decile}": f"decile_{decile}_" for decile in range(1, 11)} | {"new": "cold_"}
    there = {name: prefix for name, prefix in groups.items() if any(f"{prefix}recall@{k}" in row for row in rows)}
    if not any(name != "new" for name in there):
        return None

    def cell(row: Row, prefix: str) -> dict[str, Any]:
        found = _cell(row, f"{prefix}recall@{k}", None)
        return (
            found
            if found["missing"]
            else {**found, "error": f"{row[f'{prefix}hits@{k}']:,} of {row[f'{prefix}users']:,}"}
        )

    cells = [(label(row, rows), [cell(row, prefix) for prefix in there.values()]) for row in rows]
    return {"header": list(there), "rows": cells}


COMPARED = (("with_cpt", "popularity"), ("with_cpt", "item_knn"), ("with_cpt", "without_cpt"))


def verdicts(rows: Sequence[Row], metric: str, paired: Mapping[tuple[str, str], Row] | None = None) -> list[str]:
    """One sentence a comparison that the table is read for: does the model beat popularity, and does CPT help?

    Names with rows of several seeds are left to the reader.

    Args:
      rows: of `results.jsonl`.
      metric: e.g. "recall@10".
      paired: (first, second) -> "low", "high" and "p_value" of their difference user by user, where that is known.
        Elsewhere its standard error is that of independent estimates, although the users are the same: where a user who
        is easy for one is easy for the other, as is usual, that is too large, so a difference is never flattered.
    """
    names = [row["name"] for row in rows]
    complete = [row for row in rows if row.get(metric) is not None and row.get(f"{metric}_se") is not None]
    by_name = {row["name"]: row for row in complete if names.count(row["name"]) == 1}
    sentences = []
    for first, second in COMPARED:
        if first in by_name and second in by_name:
            a, b = by_name[first], by_name[second]
            found = (paired or {}).get((first, second))
            sure = _interval(found) if found else _standard_errors(a, b, metric)
            metric_name, difference = metric.replace("recall", "Recall"), a[metric] - b[metric]
            sentences.append(f"{LABELS[first]} − {LABELS[second]}: {difference:+.4f} {metric_name}, {sure}")
    return sentences


def _interval(found: Row) -> str:
    return f"95% interval {found['low']:+.4f} to {found['high']:+.4f}, p = {found['p_value']:.4f}"


def _standard_errors(a: Row, b: Row, metric: str) -> str:
    error = math.hypot(a[f"{metric}_se"], b[f"{metric}_se"])
    return f"{(a[metric] - b[metric]) / error:+.1f} standard errors" if error else "no standard error"


def quality_text(quality: Mapping[str, Any]) -> str:
    """The quality report of a SidTable as text: one line of totals, then a line for each level or prefix of 1..L."""
    errors = quality.get("reconstruction_error") or [None] * len(quality["levels"])
    columns: dict[str, list[str]] = {
        "level": [level["level"] for level in quality["levels"]],
        "codes": [str(level["size"]) for level in quality["levels"]],
        "used": [f"{level['usage']:.1%}" for level in quality["levels"]],
        "perplexity": [f"{level['perplexity']:.0f}" for level in quality["levels"]],
        "error left": [_share(error) for error in errors],
    }
    measured = {"cosine": "prefix_cosine", "purity": "prefix_purity"}
    for word, measure in measured.items():
        for of, values in (quality.get(measure) or {}).items():
            columns[f"{word}: {of}"] = [_share(value) for value in values["by_prefix"]]
    if quality.get("co_watch_prefix_overlap"):
        columns["co-watches inside"] = [_share(value) for value in quality["co_watch_prefix_overlap"]["by_prefix"]]
    levels = len(quality["levels"])
    rows = [list(columns), *([cells[n] if n < len(cells) else "" for cells in columns.values()] for n in range(levels))]
    widths = [max(len(row[n]) for row in rows) for n in range(len(columns))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    total = (
        f"{quality['items']:,} items, {quality['unique_sids']:,} SIDs, {quality['uniqueness']:.1%} of the items alone "
        f"on theirs, at most {quality['max_items_per_sid']} on one; collisions: {quality['collision_policy']}"
    )
    return "\n".join([total, *lines])


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
