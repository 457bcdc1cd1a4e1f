"""The trunk's jobs: vectors for a store, versions of them, an application's fine-tuning, later targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.horizons import days_later, events_later
from plum_jax.evaluation.judge import catalogue_of, judged
from plum_jax.evaluation.system import Fitted, System
from plum_jax.ranking.labels import Label
from plum_jax.stages import Data, Stages
from plum_jax.training.run_record import run_record, write_rows


def horizons(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    behind: Sequence[int] = (0, 1, 3, 7, 15),
    days: Sequence[float] = (1.0,),
    k: int = 10,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """One list for each test user, judged by what the user takes next and later: how myopic systems are.

    Args:
      model_dir: of the run.
      data: what the systems share.
      systems: name of a row -> system, trained where it is not yet.
      behind: events behind the first of the test fold that are targets, each by itself.
      days: the same in days behind the history; () where times are not known.
      k: length of the lists.
      seed: of the run, in the rows of systems that have none of their own.
      results_file: a study's `results.jsonl` that also gets the rows.
    """
    stages = data.stages(model_dir)
    targets = {f"{number}_behind": events_later(stages.split, "test", number) for number in behind}
    targets |= {f"{number:g}_days": days_later(stages.split, "test", number) for number in days}
    rows = []
    for name, system in systems.items():
        fitted, metrics = system.fit(stages, name), {}
        for said, evaluation in targets.items():
            found = _judged(stages, fitted, evaluation, k)
            metrics |= {f"{metric}_{said}": value for metric, value in found.items()}
        rows.append(_row(stages, f"{name}_horizons", metrics, seed, system, fitted))
        print(f"{name:16s}" + "".join(f"  {said}: {metrics[f'recall@{k}_unseen_{said}']:.4f}" for said in targets))
    _write(stages, rows, results_file)


def _judged(stages: Stages, fitted: Fitted, evaluation: EvaluationSet, k: int) -> dict[str, float]:
    """Recall and NDCG at k of lists, seen items kept and removed, and how many users there are."""
    found, _ = judged(fitted.rank(evaluation, k), evaluation.user, evaluation.target_item, (k,), catalogue_of(stages))
    names = [f"{metric}@{k}{end}" for metric in ("recall", "ndcg") for end in ("", "_unseen")]
    return {"users": float(len(evaluation))} | {n: found[n] for name in names for n in (name, f"{name}_se")}


def _row(
    stages: Stages, name: str, metrics: Mapping[str, Any], seed: int, config: Any, fitted: Fitted
) -> dict[str, Any]:
    common = {"data": stages.corpus.name, "seed": seed, **fitted.facts}
    common["wall_seconds"] = common.get("train_seconds", 0.0)
    return run_record(name, metrics, config=artifact.fingerprint(stages.data, config), **common)


def _write(stages: Stages, rows: list[dict[str, Any]], results_file: str | None) -> None:
    write_rows(stages.directory / "results.jsonl", rows)
    if results_file:
        write_rows(results_file, rows)
