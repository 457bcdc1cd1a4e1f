"""SeqIO's registry: what a run has written, by name, for programs that ask for mixtures by name (T5X).

A name is the run's records' own: "plum_cpt_<fingerprint>". Tokens mean what one vocabulary says, and that follows from
one SidTable, so a name that two runs could share would be wrong for one of them. A name of one's own is refused when it
comes again for other records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np
import polars as pl
from etils import epath

from tasks import quiet_tensorflow  # isort: skip  # noqa: F401  (before seqio)

import seqio
import tensorflow as tf

from plum_jax import artifact
from plum_jax.feeds import token_records
from plum_jax.ragged import Ragged
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.seqio_vocabulary import SeqioSidVocabulary

RECORDS_AT_ONCE = 1024
Metric = Callable[..., Mapping[str, float]]

# Registered name -> fingerprint of what it stands for: SeqIO's registry keeps objects, not what they were made from.
_registered: dict[str, str] = {}


class MixtureError(ValueError):
    """Records that are not those of the vocabulary, a row that they do not fit, or a name that is another's."""


def register_records(
    directory: epath.PathLike, vocabulary: SidVocabulary, *, phase: str, length: int, name: str | None = None
) -> str:
    """The mixture of a phase's token records, registered: "targets" int32 and "weights" float32, split "train".

    Args:
      directory: artefact of kind "token_records".
      vocabulary: of the tokens.
      phase: "cpt" or "retrieval", for the name.
      length: tokens of a row; SeqIO would trim longer records without a word.
      name: of one's own; None: "plum_<phase>_<fingerprint>".

    Returns:
      the name.

    Raises:
      MixtureError: records of another vocabulary, longer ones than a row, or a name that stands for others.
    """
    manifest = artifact.read_manifest(directory, token_records.KIND)
    made_with = manifest.inputs.get("vocabulary")
    if made_with != vocabulary.fingerprint:
        raise MixtureError(
            f"the records in {directory} were made with vocabulary {made_with}, this one is {vocabulary.fingerprint}: "
            "take records and vocabulary of one run"
        )
    tasks = token_records.read_tasks(directory)
    for task in tasks:
        if task.statistics.max_length > length:
            raise MixtureError(
                f"task {task.name} in {directory}: record {task.statistics.longest_record} has "
                f"{task.statistics.max_length} tokens, but a row has {length}: raise LENGTH, or make shorter records"
            )
    name = name or f"plum_{phase}_{manifest.fingerprint}"
    if _is_new(name, manifest.fingerprint):
        features = _features(vocabulary, "targets") | {
            "weights": seqio.Feature(seqio.PassThroughVocabulary(size=1), add_eos=False, dtype=tf.float32, rank=1)
        }
        members = [(_add_records(f"{name}.{task.name}", task, features), task.rate) for task in tasks]
        seqio.MixtureRegistry.add(name, members)
    return name


def register_prompts(
    folds: Mapping[str, pl.DataFrame],
    targets: Mapping[str, np.ndarray],
    vocabulary: SidVocabulary,
    *,
    metrics: Sequence[Metric],
    fingerprint: str,
    name: str | None = None,
) -> str:
    """The prompts of the folds as one task, registered, a split each: features "inputs", "targets" and "row".

    "row" counts through the folds in their order; it is what the metrics get as target, because what they need of a
    user (target item, items seen) is no token.

    Args:
      folds: fold -> rows of `tasks.retrieval.read_prompts`.
      targets: fold -> int32 [users, L], the tokens that follow.
      vocabulary: of the tokens.
      metrics: of (targets, predictions, aux_values), as SeqIO's evaluator calls them.
      fingerprint: of all of that.
      name: of one's own; None: "plum_prompts_<fingerprint>".

    Raises:
      MixtureError: a name that stands for others.
    """
    name = name or f"plum_prompts_{fingerprint}"
    if not _is_new(name, fingerprint):
        return name
    firsts = dict(zip(folds, np.cumsum([0, *(len(frame) for frame in folds.values())]).tolist(), strict=False))

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed  # in the order of the users
        prompts = Ragged.from_series(folds[split]["prompt"])
        columns = {
            "inputs": tf.RaggedTensor.from_row_lengths(prompts.values, prompts.lengths),
            "targets": tf.constant(targets[split], tf.int32),
            "row": firsts[split] + tf.range(len(prompts), dtype=tf.int32),
        }
        # A ragged row is sliced to a tensor of its own length.
        return tf.data.Dataset.from_tensor_slices(columns)

    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            dataset, splits=list(folds), num_input_examples={fold: len(frame) for fold, frame in folds.items()}
        ),
        output_features=_features(vocabulary, "inputs", "targets"),
        preprocessors=[],
        postprocess_fn=_row_of_target,
        metric_fns=list(metrics),
    )
    return name


def _row_of_target(output: Any, example: Mapping[str, Any], is_target: bool) -> Any:
    return int(example["row"]) if is_target else output


def _is_new(name: str, fingerprint: str) -> bool:
    there = _registered.setdefault(name, fingerprint)
    if there != fingerprint:
        raise MixtureError(
            f"the name {name!r} stands for records {there} in this process, and now for {fingerprint}: "
            "leave the name out (the records' fingerprint is then part of it), or take another"
        )
    return name not in {*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()}


def _features(vocabulary: SidVocabulary, *names: str) -> dict[str, seqio.Feature]:
    return {
        name: seqio.Feature(SeqioSidVocabulary(vocabulary), add_eos=False, dtype=tf.int32, rank=1) for name in names
    }


def _add_records(name: str, task: token_records.TaskRecords, features: Mapping[str, seqio.Feature]) -> str:
    """Registers one task's records; returns its name."""

    def dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split
        order = np.arange(task.statistics.records)
        if shuffle_files:  # SeqIO's own buffer behind it holds a thousand: neighbours of one user would stay together
            order = np.random.default_rng(seed).permutation(order)
        signature = {"targets": tf.TensorSpec([None], tf.int32), "weights": tf.TensorSpec([None], tf.float32)}
        return tf.data.Dataset.from_generator(lambda: _records(task.paths, order), output_signature=signature)

    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            dataset, splits=["train"], num_input_examples={"train": task.statistics.records}
        ),
        output_features=dict(features),
        preprocessors=[],
    )
    return name


def _records(paths: Sequence[str], order: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """The sequences, in this order; a reader of its own, so that two iterations do not share one."""
    source = grain.sources.ArrayRecordDataSource(list(paths))
    for start in range(0, len(order), RECORDS_AT_ONCE):
        lengths, tokens, weights = token_records.unpack(
            source.__getitems__(order[start : start + RECORDS_AT_ONCE].tolist())
        )
        ends = np.cumsum(lengths)
        for begin, end in zip((ends - lengths).tolist(), ends.tolist(), strict=True):
            yield {"targets": tokens[begin:end], "weights": weights[begin:end]}
