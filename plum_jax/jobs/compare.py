"""The main job, which compares systems, and the comparison of two evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.files import compare_files
from plum_jax.evaluation.judge import evaluated
from plum_jax.evaluation.system import Fitted, System
from plum_jax.stages import Data, Stages
from plum_jax.training.run_record import write_results

SAMPLES = 5


def compare(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    ks: Sequence[int] = (5, 10),
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """The main job: trains systems on the same data, judges them by the same evaluator, and writes the report.

    Args:
      model_dir: of the run.
      data: what the systems share.
      systems: name of a row -> system, in the order of the table; the last one's lists are shown for some users.
      ks: cut-offs.
      seed: of the run, in the rows of systems that have none of their own.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      ValueError: no system.
    """
    if not systems:
        raise ValueError("expected at least one system to compare, got none: set SYSTEMS")
    stages = data.stages(model_dir)
    common = {"data": stages.corpus.name, "seed": seed}
    rows = [evaluated(stages, name, system, ks, common) for name, system in systems.items()]
    write_results(stages.directory, rows, results_file)
    last = list(systems)[-1]
    samples = _samples(stages, systems[last].fit(stages, last), max(ks))
    artifact.write_json(stages.directory / "samples.json", samples)
    from plum_jax.report import page  # matplotlib: not before training, which need not wait for it

    path = page.write_report(stages.directory)
    print(results_table(rows))
    print(samples_text(samples))
    print(f"report: {path}")


def compare_evaluations(model_dir: str, first: str, second: str, ks: Sequence[int] | None = None) -> None:
    """Two evaluations user by user: differences with bootstrap intervals, as a table and as `comparison.json`.

    Args:
      model_dir: gets the file.
      first, second: paths of `evaluation/<name>.json`, of one run or of two over the same corpus and split.
      ks: cut-offs; None: all that both were evaluated at.
    """
    rows = compare_files(first, second, ks)
    artifact.write_json(epath.Path(model_dir) / "comparison.json", {"first": first, "second": second, "rows": rows})
    print(comparison_table(rows))


def _samples(stages: Stages, fitted: Fitted, k: int) -> list[dict[str, Any]]:
    """Five users, evenly spread: what they watched, what came next, what is recommended (seen items removed)."""
    everybody = stages.split.evaluation("test")
    users = everybody.take(np.linspace(0, len(everybody) - 1, min(SAMPLES, len(everybody)), dtype=int))
    ranking = fitted.rank(users, k)
    fields = stages.corpus.text_fields
    titles = stages.corpus.items[fields[0] if fields else "item_id"].fill_null("(no title)").to_list()
    user_ids = stages.corpus.users["user_id"]
    return [
        {
            "user_id": user_ids[int(user)],
            "history": [titles[i] for i in users.history(number)[-10:]],
            "target": titles[target],
            "recommended": [
                {
                    "title": titles[item],
                    "score": None if ranking.scores is None else round(float(ranking.scores[number, place]), 3),
                    "hit": bool(item == target),
                }
                for place, item in enumerate(ranking.lists.unseen[number])
                if item >= 0
            ],
        }
        for number, (user, target) in enumerate(zip(users.user, users.target_item, strict=True))
    ]


def results_table(rows: Sequence[Mapping[str, Any]], ks: Sequence[int] = (5, 10)) -> str:
    """Recall and NDCG with standard errors over users, seen items kept and removed, as text."""
    wanted = [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in ks]
    names = [key for key in wanted if any(key in row for row in rows)]
    lines = []
    for suffix, title in (("", "all items ranked"), ("_unseen", "items in the history removed")):
        lines.append(f"\n{title:32s}" + "".join(f"{name:>18s}" for name in names))
        for row in rows:
            cells = (f"{row[n + suffix]:.4f} ± {row[n + suffix + '_se']:.4f}" for n in names if n + suffix in row)
            lines.append(f"{row['name']:32s}" + "".join(f"{cell:>18s}" for cell in cells))
    for row in rows:
        if "valid_share" in row:
            share = f"{row['valid_share']:.2%}"
            lines.append(f"{row['name']}: {share} of the IDs generated without the constraint exist")
    return "\n".join(lines)


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A comparison as text."""
    lines = [f"{rows[0]['users']:,} users, 95% intervals and p-values by paired bootstrap"]
    lines.append(f"{'':20s}{'first':>9s}{'second':>9s}{'difference':>12s}{'interval':>22s}{'p':>9s}")
    for row in rows:
        interval = f"[{row['low']:+.4f}, {row['high']:+.4f}]"
        figures = f"{row['first']:9.4f}{row['second']:9.4f}{row['difference']:+12.4f}{interval:>22s}"
        lines.append(f"{row['metric']:20s}{figures}{row['p_value']:9.4f}")
    return "\n".join(lines)


def samples_text(samples: Sequence[Mapping[str, Any]]) -> str:
    """The samples, a paragraph a user."""
    lines = []
    for sample in samples:
        lines.append(f"\nuser {sample['user_id']}: ... {' | '.join(sample['history'][-5:])}")
        lines.append(f"  watched next: {sample['target']}")
        lines += [f"  {place}. {item['title']}" for place, item in enumerate(sample["recommended"][:5], start=1)]
    return "\n".join(lines)
