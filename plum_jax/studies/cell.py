"""One cell of a study: trained, judged on the test users, and left as a row, also when it failed."""

from __future__ import annotations

import math
import time
from typing import Any

import jax
from etils import epath

from plum_jax import artifact
from plum_jax.model.counts import parameter_counts
from plum_jax.pipeline import Stages
from plum_jax.retrieval.evaluator import RetrievalEvaluator
from plum_jax.retrieval.target_loss import TargetLoss
from plum_jax.studies.grid import DataFacts
from plum_jax.studies.records import cell_directory, read_record, write_record
from plum_jax.studies.shared import cell_stages, prepare
from plum_jax.studies.study import Cell, Study, StudyError
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.run_record import run_record

PHASE = "retrieval_without_cpt"  # the name of the one training phase, as `Stages` has it
_LAST_SHARE = 0.1  # of the steps, that the training loss is the mean of


def run_cell(study: Study, cell_id: str, study_dir: epath.PathLike) -> dict[str, Any]:
    """Trains and judges one cell, and writes its row; a cell that has one is left as it is.

    A loss that is not finite, or a machine without enough memory, is a result: a row with its status and reason.
    Whatever else goes wrong is raised, for the caller to try again or to write down (`failed_row`).

    Raises:
      StudyError: the study has no such cell.
    """
    done = read_record(study_dir, cell_id)
    if done is not None:
        return done
    began = time.perf_counter()
    data = prepare(study, study_dir)
    cell = find_cell(study, cell_id, data)
    stages = cell_stages(study, cell, study_dir, cell_directory(study_dir, cell_id))
    status, reason, metrics = "finished", "", {}
    try:
        metrics = _judged(study, stages)
    except FloatingPointError as error:
        status, reason = "diverged", str(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        status, reason = "out_of_memory", str(error).partition("\n")[0]
    if status == "finished" and not math.isfinite(metrics["loss"]):
        status, reason = "diverged", f"the held-out loss is {metrics['loss']}"
    row = _row(study, cell, data, status, reason, metrics, _train_facts(cell, stages))
    row["wall_seconds"] = round(time.perf_counter() - began, 2)
    write_record(study_dir, row)
    _drop_checkpoints(stages)
    return row


def failed_row(study: Study, cell: Cell, data: DataFacts, status: str, reason: str) -> dict[str, Any]:
    """The row of a cell that left none itself: "timed_out", "failed", or killed for memory."""
    return _row(study, cell, data, status, reason, {}, {})


def find_cell(study: Study, cell_id: str, data: DataFacts) -> Cell:
    """The cell of this name.

    Raises:
      StudyError: there is none; the names of a few that are there.
    """
    cells = study.cells(data)
    for cell in cells:
        if cell.cell_id == cell_id:
            return cell
    some = ", ".join(cell.cell_id for cell in cells[:4])
    raise StudyError(f"study {study.name} has no cell {cell_id!r}; it has {len(cells)}: {some}, ...")


def _judged(study: Study, stages: Stages) -> dict[str, Any]:
    """Trains, and evaluates the last parameters."""
    params = stages.params_without_cpt
    prompts, users = stages.prompts("test"), study.evaluation_users
    metrics: dict[str, Any] = TargetLoss(stages.recommender, prompts, max_users=users)(params)
    evaluation = study.pipeline.evaluation
    evaluator = RetrievalEvaluator(
        stages.recommender, prompts, ks=evaluation.ks, max_users=users, free_search_users=evaluation.free_search_users
    )
    metrics |= evaluator(params)
    count = min(len(prompts), users or len(prompts))
    metrics |= {f"hits@{k}": round(metrics[f"recall@{k}"] * count) for k in evaluation.ks}
    return metrics | {"users": count}


def _row(
    study: Study,
    cell: Cell,
    data: DataFacts,
    status: str,
    reason: str,
    metrics: dict[str, Any],
    facts: dict[str, Any],
) -> dict[str, Any]:
    counts = parameter_counts(cell.decoder, data.vocab_size)
    tokens = facts.pop("tokens", None)
    return run_record(
        cell.cell_id,
        {name: value for name, value in metrics.items() if math.isfinite(value)},
        study=study.name,
        size=cell.size,
        budget=cell.budget,
        horizon=cell.horizon,
        flops_convention=study.grid.convention,
        held_out=cell.held_out,
        status=status,
        reason=reason,
        seed=cell.seed,
        learning_rate=cell.learning_rate,
        learning_rate_factor=cell.learning_rate_factor,
        steps=cell.steps,
        batch_tokens=cell.batch_tokens,
        tokens=tokens,
        unique_tokens=data.unique_tokens,
        epochs=None if tokens is None or not data.unique_tokens else tokens / data.unique_tokens,
        parameters=counts["total"],
        non_embedding_parameters=counts["non_embedding"],
        activated_parameters=counts["activated"],
        activated_non_embedding_parameters=counts["activated_non_embedding"],
        flops=cell.flops(data.vocab_size),
        flops_6nd=cell.flops_6nd(data.vocab_size),
        config=artifact.fingerprint(study.phase(cell), cell.decoder),
        **facts,
    )


def _train_facts(cell: Cell, stages: Stages) -> dict[str, Any]:
    """Tokens trained on, loss at the end and seconds, from the training's own log; what it does not say is missing."""
    rows = [row for row in read_metrics(stages.directory / "train" / PHASE) if "trained_share" in row]
    if not rows:
        return {}
    lengths = [row["step"] - before for row, before in zip(rows, [0, *(row["step"] for row in rows)], strict=False)]
    trained = sum(row["trained_share"] * length for row, length in zip(rows, lengths, strict=True))
    last = [row for row in rows if row["step"] > (1 - _LAST_SHARE) * cell.steps] or rows[-1:]
    return {
        "tokens": round(trained * cell.batch_tokens),
        "train_loss": sum(row["cross_entropy"] for row in last) / len(last),
        "train_seconds": round(max(row["seconds"] for row in rows), 2),
    }


def _drop_checkpoints(stages: Stages) -> None:
    """The parameters stay; checkpoints, which are larger and only there to go on from, are not needed any more."""
    directory = stages.directory / "train" / PHASE / "checkpoints"
    if directory.exists():
        directory.rmtree()
