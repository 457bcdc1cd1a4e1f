"""Materialising: SeqIO tasks run once, in process, into ArrayRecord files that training reads at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.feeds import token_records

if TYPE_CHECKING:
    import seqio

SEQUENCES_AT_ONCE = 1024


def materialize(
    make: Callable[[], seqio.Mixture | seqio.Task],
    directory: epath.PathLike,
    *,
    config: Any,
    inputs: Mapping[str, str],
    max_length: int | None = None,
) -> tuple[token_records.TaskRecords, ...]:
    """Writes `directory/<task>/*.array_record` for every task, with counts of sequences and tokens beside them.

    What is there and current is kept: all of it without `make`, so without TensorFlow; else each finished task.

    Args:
      make: gives the mixture or task to write; a mixture's rates are kept for the feed.
      directory: of the artefact, kind "token_records".
      config: what decides what `make` gives (task dataclasses, rates), compared when the stage is met again.
      inputs: fingerprints of what is read: split, SID table, vocabulary.
      max_length: tokens in a training row, if known.

    Returns:
      The tasks with their counts.

    Raises:
      ValueError: a task without a sequence, or a sequence longer than `max_length`.
    """
    directory = epath.Path(directory)
    whole = {"config": config, "max_length": max_length}
    if not artifact.is_current(directory, kind=token_records.KIND, config=whole, inputs=inputs):
        (directory / artifact.MANIFEST).unlink(missing_ok=True)  # unfinished until the last task is there
        made = make()
        tasks = sorted(getattr(made, "tasks", [made]), key=lambda task: task.name)
        for task in tasks:
            own = {"task": task.name, **whole}
            if not artifact.is_current(directory / task.name, kind=token_records.TASK_KIND, config=own, inputs=inputs):
                records = _progress(task, _sequences(task, max_length))
                token_records.write_task(directory / task.name, records, name=task.name, config=own, inputs=inputs)
        rates = {task.name: float(made.get_rate(task)) if made is not task else 1.0 for task in tasks}
        token_records.write_manifest(directory, rates=rates, config=whole, inputs=inputs)
    return token_records.read_tasks(directory)


def _progress(task: seqio.Task, records: Iterator[tuple[np.ndarray, np.ndarray]]) -> Any:
    total = task.num_input_examples("train")
    return tqdm(records, desc=f"records of {task.name}", unit=" sequences", total=total, mininterval=1)


def _sequences(task: seqio.Task, max_length: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(tokens, weights) of each sequence of a task."""
    dataset = task.get_dataset(sequence_length=None, split="train", shuffle=False, num_epochs=1)
    index = 0
    # In ragged batches, as crossing from TensorFlow to numpy once a sequence would take most of the time.
    for batch in dataset.ragged_batch(SEQUENCES_AT_ONCE):
        targets, weights = batch["targets"], batch["weights"]
        bounds = targets.row_splits.numpy()
        tokens, loss_weights = targets.flat_values.numpy(), weights.flat_values.numpy()
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            if max_length is not None and end - start > max_length:
                text = task.output_features["targets"].vocabulary.decode(tokens[start : start + 40].tolist())
                raise ValueError(
                    f"task {task.name}: sequence {index} has {end - start} tokens, a training row holds {max_length}: "
                    "raise the length, lower history_length, or cut texts in the template, as in {title:.80}; "
                    f"it begins: {text}"
                )
            yield tokens[start:end], loss_weights[start:end]
            index += 1
