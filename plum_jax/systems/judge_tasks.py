"""Models judged task by task: `evaluation/<model>.<task>.json` with each example's ranks beside it, and differences."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.base import require_base
from plum_jax.evaluation.files import compare_files, per_user_path, write_evaluation
from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import Catalogue
from plum_jax.evaluation.system import Ranking
from plum_jax.stages import Stages
from plum_jax.training.run_record import run_record

FOLDER = "evaluation"
TOLD = ("recall", "ndcg")


class FittedTasks(Protocol):
    """A trained model of tasks.

    Attributes:
      config: of the model.
      fingerprint: of all that decides its lists.
      facts: what its rows say.
    """

    @property
    def config(self) -> Any: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def rank_task(self, task: str, fold: str, k: int, at_most: int | None = None) -> tuple[EvaluationSet, Ranking]:
        """Items ranked for the examples of a task and fold, and the users that they are of."""


class TasksModel(Protocol):
    """A frozen dataclass, bound in gin.

    Attributes:
      judged_tasks: that it is judged by.
    """

    @property
    def judged_tasks(self) -> Sequence[str]: ...

    def fit(self, stages: Stages, name: str) -> FittedTasks:
        """Trains it, or reads what was trained."""


def compared(
    stages: Stages,
    models: Mapping[str, TasksModel],
    base: Mapping[str, str],
    ks: Sequence[int],
    at_most: int | None,
    seed: int,
) -> list[dict[str, Any]]:
    """Rows "<model>.<task>" of models that are trained where they are not yet, each with its `differences` from its
    base on the tasks of both.

    Args:
      stages: of the run.
      models: by name.
      base: name of a model -> name of the one that it is compared with.
      ks, at_most: as in `judged_task`.
      seed: of the run.

    Raises:
      ValueError: no model, or a base that is none of them.
    """
    if not models:
        raise ValueError("expected at least one model to train, got none: set MODELS")
    require_base(base, models)
    facts, rows = {"data": stages.corpus.name, "seed": seed}, []
    for name, model in models.items():
        fitted = model.fit(stages, name)
        rows += [judged_task(stages, name, fitted, task, ks, at_most, facts) for task in model.judged_tasks]
    for row in rows:
        other = base.get(row["model"])
        if other is not None and row["task"] in models[other].judged_tasks:
            row |= {"base": other, **differences(stages, row["model"], other, row["task"], ks)}
    return rows


def judged_task(
    stages: Stages,
    name: str,
    fitted: FittedTasks,
    task: str,
    ks: Sequence[int],
    at_most: int | None,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The row "<model>.<task>" on the test fold; made unless it is there from the same inputs.

    The files are those of any evaluation, one example a user, so that `gin/run/compare.gin` compares two of them.

    Args:
      stages: of the run.
      name: of the model.
      fitted: it.
      task: that `rank_task` knows.
      ks: cut-offs.
      at_most: examples; None: all.
      facts: what all rows of the comparison say besides.
    """
    path = stages.directory / FOLDER / f"{name}.{task}.json"
    fingerprint = artifact.fingerprint(stages.split.fingerprint, fitted.fingerprint, tuple(ks), at_most)
    if path.exists() and per_user_path(path).exists():
        stored = json.loads(path.read_text())
        if stored["fingerprint"] == fingerprint:
            return stored["row"]
    start, corpus, popularity = time.perf_counter(), stages.corpus, stages.split.item_popularity
    users, ranking = fitted.rank_task(task, "test", max(ks), at_most)
    seconds = time.perf_counter() - start
    catalogue = Catalogue(corpus.num_items, popularity == 0, popularity)
    metrics, per_user = judged(ranking, users.user, users.target_item, ks, catalogue)
    said = {**facts, **fitted.facts, "model": name, "task": task}
    said |= {"examples_per_second": round(len(users) / seconds, 1)}
    said |= {"wall_seconds": round(said["train_seconds"] + seconds, 1)}
    row = run_record(f"{name}.{task}", metrics, config=artifact.fingerprint(stages.data, fitted.config), **said)
    ids = {
        "user_id": corpus.users["user_id"].gather(per_user["user"]),
        "target_item_id": corpus.items["item_id"].gather(per_user["target_item"]),
    }
    write_evaluation(path, row, pl.DataFrame(ids).hstack(per_user.drop("user", "target_item")), fingerprint)
    return row


def differences(stages: Stages, name: str, base: str, task: str, ks: Sequence[int]) -> dict[str, Any]:
    """ "recall@k_difference" of two models of a run on the same examples, with "_low", "_high" (95%) and "_p" by paired
    bootstrap, and so on for NDCG and for lists without seen items.
    """
    first, second = (stages.directory / FOLDER / f"{model}.{task}.json" for model in (name, base))
    found: dict[str, Any] = {}
    for row in compare_files(first, second, ks):
        metric = row["metric"]
        if metric.startswith(TOLD):
            found[f"{metric}_difference"] = row["difference"]
            found |= {f"{metric}_difference_{of}": row[of] for of in ("low", "high")}
            found[f"{metric}_difference_p"] = row["p_value"]
    return found


def table(rows: Sequence[Mapping[str, Any]], k: int) -> str:
    """Rows as text: recall and NDCG at k with standard errors, seen items kept and removed; and what they differ by."""
    names = [f"{metric}@{k}{suffix}" for suffix in ("", "_unseen") for metric in TOLD]
    lines = [f"{'':36s}" + "".join(f"{name:>20s}" for name in names)]
    for row in rows:
        cells = (f"{row[name]:.4f} ± {row[name + '_se']:.4f}" for name in names)
        lines.append(f"{row['name']:36s}" + "".join(f"{cell:>20s}" for cell in cells))
    for row in rows:
        if "base" in row:
            name = f"recall@{k}"
            low, high = (row[f"{name}_difference_{of}"] for of in ("low", "high"))
            difference = row[f"{name}_difference"]
            lines.append(f"{row['name']} - {row['base']}: {name} {difference:+.4f} [{low:+.4f}, {high:+.4f}]")
    return "\n".join(lines)
