"""Tables and picture of the study, from results.jsonl beside this file: `python experiments/semantic_ids/table.py`.

Prints the Markdown that README.md shows and writes table4.svg.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from plum_jax.report import charts, page_svg

HERE = pathlib.Path(__file__).parent
Row = dict[str, Any]

VARIANTS = {
    "v1": "SID-v1",
    "v2": "SID-v2",
    "no_multi_resolution": "− multi-resolution",
    "no_multi_embedding": "− multi-embedding",
    "no_co_occurrence": "− co-occurrence",
    "residual_kmeans": "residual k-means",
    "random": "random",
}
# PLUM, Table 4: uniqueness, VID Recall@10.
PUBLISHED = {
    "v1": (0.940, 0.123),
    "v2": (0.967, 0.144),
    "no_multi_resolution": (0.948, 0.132),
    "no_multi_embedding": (0.969, 0.128),
    "no_co_occurrence": (0.918, 0.126),
}
PROTOCOLS = {"context_only": "paper's protocol", "ordinary": "ordinary"}


def read_rows() -> list[Row]:
    """All rows of the study."""
    return [json.loads(line) for line in (HERE / "results.jsonl").read_text().splitlines()]


def of(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """The rows with these values, by seed."""
    chosen = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return sorted(chosen, key=lambda row: row["seed"])


def spread(rows: Sequence[Row], key: str) -> tuple[float, float]:
    """Mean over seeds, and its standard error: seeds and users apart would need more seeds than there are.

    With one seed the standard error is that over users.
    """
    values = np.array([row[key] for row in rows])
    if len(values) > 1:
        return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()), rows[0].get(f"{key}_se", float("nan"))


def cell(rows: Sequence[Row], key: str, percent: bool) -> str:
    """Mean ± standard error over seeds, or nothing."""
    if not rows:
        return ""
    mean, error = spread(rows, key)
    shown = f"{mean:.1%}" if percent else f"{mean:.4f}".replace("0.", ".")
    if np.isnan(error):
        return shown
    return f"{shown} ± {error:.1%}" if percent else f"{shown} ± {error:.4f}".replace("± 0.", "± .")


def table(rows: Sequence[Row], corpus: str) -> str:
    """Markdown table of a corpus."""
    header = (
        corpus,
        "uniqueness",
        "VID Recall@10, paper's protocol",
        "VID Recall@10, ordinary",
        "ordinary, seen removed",
    )
    header += ("perplexity by level", "seeds", "PLUM: uniqueness", "PLUM: VID Recall@10")
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for variant, name in VARIANTS.items():
        context, ordinary = (of(rows, corpus=corpus, variant=variant, protocol=p) for p in PROTOCOLS)
        perplexity = np.mean([row["perplexity"] for row in ordinary], axis=0) if ordinary else []
        published = [f"{value:.1%}" for value in PUBLISHED.get(variant, ())] or ["", ""]
        cells = [
            name,
            cell(ordinary, "uniqueness", percent=True),
            cell(context, "recall@10", percent=False),
            cell(ordinary, "recall@10", percent=False),
            cell(ordinary, "recall@10_unseen", percent=False),
            " · ".join(f"{value:.0f}" for value in perplexity),
            str(len(ordinary)),
            *published,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cold_start(rows: Sequence[Row]) -> str:
    """Markdown table of recall on items that nothing was trained on."""
    header = ("corpus", "IDs", "users whose next item is new", "Recall@10 of new items", "Recall@10 of all", "seeds")
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for corpus in sorted({row["corpus"] for row in rows}):
        for variant, name in VARIANTS.items():
            found = of(rows, corpus=corpus, variant=variant, protocol="cold_start")
            if found:
                users = ", ".join(f"{row['cold_users']:,}" for row in found)
                shown = (cell(found, "cold_recall@10", percent=False), cell(found, "recall@10", percent=False))
                lines.append(f"| {' | '.join((corpus, name, users, *shown, str(len(found))))} |")
    return "\n".join(lines)


def picture(rows: Sequence[Row], corpora: Sequence[str]) -> str:
    """Recall@10 of every variant under the paper's protocol, a colour a corpus."""
    dots = {}
    for corpus in corpora:
        found = {name: of(rows, corpus=corpus, variant=v, protocol="context_only") for v, name in VARIANTS.items()}
        dots[corpus] = {name: spread(cells, "recall@10") for name, cells in found.items() if cells}
    return page_svg.standalone(charts.recall_dots(dots, "VID Recall@10, context item only", over="seeds"))


def main() -> None:
    """Prints the tables and writes the picture."""
    rows = read_rows()
    corpora = sorted({row["corpus"] for row in rows})
    for corpus in corpora:
        print(table(rows, corpus), end="\n\n")
    print(cold_start(rows), end="\n\n")
    (HERE / "table4.svg").write_text(picture(rows, corpora))


if __name__ == "__main__":
    main()
