"""The main job, which compares systems, and the comparison of two evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.files import compare_files
from plum_jax.evaluation.judge import evaluated, judge_baseline, judge_model
from plum_jax.retrieval.recommend import Ragged, rank_items
from plum_jax.systems.generative.pipeline import Pipeline, Stages
from plum_jax.systems.item_knn import ItemKnn
from plum_jax.systems.popularity import Popularity
from plum_jax.training.run_record import write_rows

SAMPLES = 5


def compare(
    model_dir: str,
    pipeline: Pipeline,
    baselines: Mapping[str, Popularity | ItemKnn] | None = None,
    without_cpt: bool = True,
    results_file: str | None = None,
) -> None:
    """The main job: trains the model with and without CPT, judges both beside the baselines, and writes the report.

    Args:
      model_dir: of the run.
      pipeline: all stages.
      baselines: name of a row -> baseline; popularity and item-kNN by default.
      without_cpt: whether the model without CPT is trained too.
      results_file: a study's `results.jsonl` that also gets the rows.
    """
    stages = pipeline.stages(model_dir)
    baselines = {"popularity": Popularity(), "item_knn": ItemKnn()} if baselines is None else baselines
    rows = [evaluated(stages, name, judge_baseline(stages, baseline)) for name, baseline in baselines.items()]
    if without_cpt:
        judge = judge_model(stages, stages.params_without_cpt, ["retrieval_without_cpt"])
        rows.append(evaluated(stages, "without_cpt", judge))
    rows.append(evaluated(stages, "with_cpt", judge_model(stages, stages.params, ["cpt", "retrieval"])))
    write_rows(stages.directory / "results.jsonl", rows)
    if results_file:
        write_rows(results_file, rows)
    samples = _samples(stages)
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


def _samples(stages: Stages) -> list[dict[str, Any]]:
    """Five users, evenly spread: what they watched, what came next, what the model recommends (seen items removed)."""
    prompts = stages.prompts("test")
    rows = prompts[np.linspace(0, len(prompts) - 1, min(SAMPLES, len(prompts)), dtype=int)]
    codes, log_probs = stages.recommender.search(stages.params, Ragged.from_series(rows["prompt"]))
    k = max(stages.config.evaluation.ks)
    items, scores = rank_items(codes, log_probs, stages.table, k, Ragged.from_series(rows["seen_items"]))
    fields = stages.corpus.text_fields
    titles = stages.corpus.items[fields[0] if fields else "item_id"].fill_null("(no title)").to_list()
    user_ids = stages.corpus.users["user_id"]
    evaluation = stages.split.evaluation("test")
    histories = {int(user): evaluation.history(number) for number, user in enumerate(evaluation.user)}
    return [
        {
            "user_id": user_ids[row["user"]],
            "history": [titles[i] for i in histories[row["user"]][-10:]],
            "target": titles[row["target_item"]],
            "recommended": [
                {"title": titles[item], "score": round(float(score), 3), "hit": bool(item == row["target_item"])}
                for item, score in zip(items[number], scores[number], strict=True)
                if item >= 0
            ],
        }
        for number, row in enumerate(rows.iter_rows(named=True))
    ]


def results_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Recall and NDCG with standard errors over users, seen items kept and removed, as text."""
    names = [key for key in ("recall@5", "recall@10", "ndcg@5", "ndcg@10") if any(key in row for row in rows)]
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
