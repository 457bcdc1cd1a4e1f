"""One cell of a study: trained, judged on the test users, and left as a row, also when it failed."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from plum_jax import artifact
from plum_jax.evaluation.scalable import DataFacts, Scalable, Trial
from plum_jax.studies.places import Cell, StudyError
from plum_jax.studies.records import cell_directory, read_record, shared_directory, write_record
from plum_jax.studies.shared import shared
from plum_jax.studies.solve import cells_of
from plum_jax.studies.study import Study
from plum_jax.studies.trunks import Branch, grown_trunk, stretches
from plum_jax.training import processes
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.run_record import run_record

TRAINING = "train"  # in a cell's directory
_LAST_SHARE = 0.1  # of the steps, that the training loss is the mean of


def run_cell(study: Study, cell_id: str, study_dir: epath.PathLike) -> dict[str, Any]:
    """Trains and judges one cell, and writes its row; a cell that has one is left as it is.

    A loss that is not finite, or a machine without enough memory, is a result: a row with its status and reason.
    Whatever else goes wrong is raised, for the caller to try again or to write down.

    Raises:
      StudyError: the study has no such cell.
    """
    done = read_record(study_dir, cell_id)
    if done is not None:
        return done
    began = time.perf_counter()
    common = shared(study, study_dir)
    cell = find_cell(study, cell_id, common.data)
    training = epath.Path(cell_directory(study_dir, cell_id)) / TRAINING
    status, reason, metrics = "finished", "", {}
    try:
        trial = study.system_of(cell).trial(shared_directory(study_dir), study.evaluation_users)
        params = trial.train(training, _branch(study, cell, study_dir), cell.cell_id)
        metrics = _judged(study, trial, params, common.data.evaluation_users)
    except FloatingPointError as error:
        status, reason = "diverged", str(error)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        status, reason = "out_of_memory", str(error).partition("\n")[0]
    if status == "finished" and not math.isfinite(metrics["loss"]):
        status, reason = "diverged", f"the held-out loss is {metrics['loss']}"
    facts = _train_facts(cell, [*stretches(cell, study_dir), training]) | common.best
    row = _row(study, cell, common.data, status, reason, metrics, facts)
    row["wall_seconds"] = round(time.perf_counter() - began, 2)
    if processes.is_first():
        write_record(study_dir, row)
        _drop_checkpoints(training)
    return row


def find_cell(study: Study, cell_id: str, data: DataFacts) -> Cell:
    """The cell of this name.

    Raises:
      StudyError: there is none; the names of a few that are there.
    """
    cells = cells_of(study, data)
    for cell in cells:
        if cell.cell_id == cell_id:
            return cell
    some = ", ".join(cell.cell_id for cell in cells[:4])
    raise StudyError(f"study {study.name} has no cell {cell_id!r}; it has {len(cells)}: {some}, ...")


def _branch(study: Study, cell: Cell, study_dir: epath.PathLike) -> Branch | None:
    """Where the cell branches off its trunk, trained up to there; None without one."""

    def train(system: Scalable, run: epath.Path, trunk: Branch | None) -> Any:
        trial = system.trial(shared_directory(study_dir), study.evaluation_users)
        return trial.train(run, trunk, f"trunk {cell.trunk_name}")

    return grown_trunk(study, cell, study_dir, train)


def _judged(study: Study, trial: Trial, params: Any, users: int) -> dict[str, Any]:
    """Evaluates parameters on the test users."""
    metrics = trial.judge(params)
    hits = {f"hits@{k}": round(metrics[f"recall@{k}"] * users) for k in study.system.ks}
    return metrics | hits | {"users": users}


def _row(
    study: Study,
    cell: Cell,
    data: DataFacts,
    status: str,
    reason: str,
    metrics: dict[str, Any],
    facts: dict[str, Any],
) -> dict[str, Any]:
    system = study.system_of(cell)
    counts = system.counts(data)
    tokens = facts.pop("tokens", None)
    reached = facts.pop("step_reached", 0)
    spent = max(0, cell.steps_spent - (cell.steps - reached))
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
        flops=cell.flops,
        flops_6nd=cell.flops_6nd,
        flops_spent=cell.flops * spent / cell.steps,
        config=artifact.fingerprint(system.own_config),
        **facts,
    )


def _train_facts(cell: Cell, runs: Sequence[epath.Path]) -> dict[str, Any]:
    """Tokens trained on, loss at the end and seconds, from the logs of the runs that led to the cell's last step.

    What they do not say is missing. The seconds of a branch count those of its trunk.
    """
    rows = [row for run in runs for row in read_metrics(run) if "trained_share" in row]
    if not rows:
        return {}
    lengths = [row["step"] - before for row, before in zip(rows, [0, *(row["step"] for row in rows)], strict=False)]
    trained = sum(row["trained_share"] * length for row, length in zip(rows, lengths, strict=True))
    last = [row for row in rows if row["step"] > (1 - _LAST_SHARE) * cell.steps] or rows[-1:]
    return {
        "step_reached": rows[-1]["step"],
        "tokens": round(trained * cell.batch_tokens),
        # Without what a decoder adds to it (label smoothing, balance of experts); other objectives add nothing.
        "train_loss": sum(row.get("cross_entropy", row["loss"]) for row in last) / len(last),
        "train_seconds": round(max(row["seconds"] for row in rows), 2),
    }


def _drop_checkpoints(training: epath.Path) -> None:
    """The parameters stay; checkpoints, which are larger and only there to go on from, are not needed any more."""
    directory = training / "checkpoints"
    if directory.exists():
        directory.rmtree()
