"""Token sequences as a seqio.Task: what every task of this package ends in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from tasks import quiet_tensorflow  # isort: skip  # noqa: F401  (before seqio)

import seqio
import tensorflow as tf

from plum_jax import ragged
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.seqio_vocabulary import SeqioSidVocabulary

Sequences = Iterator[tuple[ragged.Ragged, ragged.Ragged]]


def sequence_task(
    name: str, make_sequences: Callable[[], Sequences], vocabulary: SidVocabulary, num_sequences: int | None = None
) -> seqio.Task:
    """A task, not registered, with features "targets" int32 [n] and "weights" float32 [n], and one split, "train".

    Sequences come whole, with their EOS, so SeqIO has nothing left to trim or append. Weights must not meet SeqIO's
    packer, which casts them to integers: `tasks.materialize` writes them, Grain packs.

    Args:
      name: as SeqIO wants it: letters, digits and . : # _, no slash.
      make_sequences: gives (tokens, weights) of many sequences at a time, afresh at each call.
      vocabulary: of the tokens.
      num_sequences: how many there are, where known; for progress bars.

    Raises:
      ValueError: no sequence, or whatever `make_sequences` raises on the first of them; inside of TensorFlow the
        message would drown.
    """
    if next(make_sequences(), None) is None:
        raise ValueError(f"task {name} has no sequences: check its templates and its split, or leave it out")

    def dataset(split: str, shuffle_files: bool) -> tf.data.Dataset:
        del split, shuffle_files  # one split; the order is the feed's
        return _dataset(make_sequences)

    weights = seqio.Feature(seqio.PassThroughVocabulary(size=1), add_eos=False, required=True, dtype=tf.float32, rank=1)
    return seqio.Task(
        name,
        source=seqio.FunctionDataSource(
            dataset, splits=["train"], num_input_examples=None if num_sequences is None else {"train": num_sequences}
        ),
        output_features={
            "targets": seqio.Feature(SeqioSidVocabulary(vocabulary), add_eos=False, dtype=tf.int32, rank=1),
            "weights": weights,
        },
        preprocessors=[],
    )


def _dataset(make_sequences: Callable[[], Sequences]) -> tf.data.Dataset:
    """A dataset of single sequences; Python is entered once for thousands of them."""

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for tokens, weights in make_sequences():
            yield tokens.values, weights.values, tokens.lengths

    @tf.autograph.experimental.do_not_convert  # nothing to convert, and looking takes longer than a small task
    def sequences(values: tf.Tensor, weights: tf.Tensor, lengths: tf.Tensor) -> tf.data.Dataset:
        columns = {"targets": values, "weights": weights}
        rows = {name: tf.RaggedTensor.from_row_lengths(column, lengths) for name, column in columns.items()}
        return tf.data.Dataset.from_tensor_slices(rows)

    signature = tuple(tf.TensorSpec([None], dtype) for dtype in (tf.int32, tf.float32, tf.int64))
    return tf.data.Dataset.from_generator(chunks, output_signature=signature).flat_map(sequences)
