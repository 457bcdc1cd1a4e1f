"""Token sequences as rows of a batch, by SeqIO's own interface: float weights stay floats, packed or not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks import quiet_tensorflow  # isort: skip  # noqa: F401  (before seqio)

import seqio
import tensorflow as tf

from plum_jax.feeds.packing import COLUMNS, best_fit_rows, fill_rows

# Sequences that are packed together, as in `feeds.batches`, where it is 4096: here the first batch waits for them.
PACKING_WINDOW = 1024
CAUSAL = "decoder_causal_attention"  # T5X's name for where the prompt is: its tokens and the first one behind them

Spec = seqio.FeatureConverter.FeatureSpec


class DecoderFeatures(seqio.FeatureConverter):
    """Sequences ("targets", "weights") or prompts with targets ("inputs", "targets") as `feeds.packing.COLUMNS`.

    SeqIO's packer casts all features to int32 and takes token 0 for padding; rewards are fractions, and token 0 is a
    word of some vocabularies. So sequences are packed by `feeds.packing`, as everywhere here, in windows. Prompts are
    never packed; their rows have `decoder_causal_attention` besides, as those of `seqio.DecoderFeatureConverter`.
    """

    TASK_FEATURES = {"targets": Spec(dtype=tf.int32), "weights": Spec(dtype=tf.float32)}
    MODEL_FEATURES = {name: Spec(dtype=tf.as_dtype(dtype)) for name, dtype in COLUMNS.items()}
    PACKING_FEATURE_DTYPES: Mapping[str, tf.DType] = {}

    def __call__(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        """The rows of a dataset; prompts are known by a length for "inputs".

        Raises:
          ValueError: prompts are to be packed.
        """
        if "inputs" not in task_feature_lengths:
            return super().__call__(ds, task_feature_lengths)
        if self.pack:
            raise ValueError("prompts are not packed (each row is searched from): set pack = False for this dataset")
        return _PromptFeatures(pack=False, bos_id=self.bos_id)(ds, task_feature_lengths)

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        """All columns are as long as a row."""
        return dict.fromkeys(self.MODEL_FEATURES, task_feature_lengths["targets"])

    def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        length = task_feature_lengths["targets"]
        ds = ds.map(lambda example: {name: example[name] for name in self.TASK_FEATURES})
        if not self.pack:
            return ds.map(lambda one: _row(one["targets"], one["weights"], length, self.bos_id))
        windows = ds.ragged_batch(PACKING_WINDOW).map(lambda window: _packed(window, length, self.bos_id))
        return windows.unbatch()


class _PromptFeatures(seqio.FeatureConverter):
    """A prompt and what follows it in one row; weights are 1 on what follows."""

    TASK_FEATURES = {"inputs": Spec(dtype=tf.int32), "targets": Spec(dtype=tf.int32)}
    MODEL_FEATURES = {**DecoderFeatures.MODEL_FEATURES, CAUSAL: Spec(dtype=tf.int32)}
    PACKING_FEATURE_DTYPES: Mapping[str, tf.DType] = {}

    def get_model_feature_lengths(self, task_feature_lengths: Mapping[str, int]) -> Mapping[str, int]:
        return dict.fromkeys(self.MODEL_FEATURES, self._length(task_feature_lengths))

    def _length(self, task_feature_lengths: Mapping[str, int]) -> int:
        # A prompt without targets (an interactive question) takes the place of one: its last token has to be read.
        return task_feature_lengths["inputs"] + max(1, task_feature_lengths["targets"])

    def _convert_features(self, ds: tf.data.Dataset, task_feature_lengths: Mapping[str, int]) -> tf.data.Dataset:
        length = self._length(task_feature_lengths)

        def convert(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            prompt, follows = example["inputs"], example["targets"]
            asked = tf.zeros([tf.cast(tf.equal(tf.size(follows), 0), tf.int32)], tf.int32)
            weights = [tf.zeros_like(prompt, tf.float32), tf.ones_like(follows, tf.float32), tf.cast(asked, tf.float32)]
            tokens = tf.concat([prompt, follows, asked], 0)
            row = _row(tokens, tf.concat(weights, 0), length, self.bos_id)
            return row | {CAUSAL: _padded(tf.ones(tf.size(prompt) + 1, tf.int32), length)}

        return ds.map(convert)


def _row(tokens: tf.Tensor, weights: tf.Tensor, length: int, start_token: int) -> dict[str, tf.Tensor]:
    """One sequence as a row of its own."""
    shifted = tf.concat([[start_token], tokens[:-1]], 0)[: tf.size(tokens)]
    columns = {
        "decoder_input_tokens": shifted,
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": weights,
        "decoder_segment_ids": tf.ones_like(tokens),
        "decoder_positions": tf.range(tf.size(tokens)),
    }
    return {name: _padded(values, length) for name, values in columns.items()}


def _padded(values: tf.Tensor, length: int) -> tf.Tensor:
    padded = tf.pad(values, [[0, length - tf.size(values)]])
    padded.set_shape([length])
    return padded


def _packed(window: Mapping[str, tf.RaggedTensor], length: int, start_token: int) -> dict[str, tf.Tensor]:
    """A window of sequences as rows that hold several each."""

    def pack(tokens: np.ndarray, weights: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        rows, num_rows = rows_of(lengths, length)
        ends = np.cumsum(lengths)
        bounds = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
        records = [tokens[start:end].tobytes() + weights[start:end].tobytes() for start, end in bounds]
        laid = fill_rows(records, rows, num_rows, length, start_token)
        return [laid[name] for name in COLUMNS]

    targets = window["targets"]
    columns = (targets.flat_values, window["weights"].flat_values, targets.row_lengths())
    laid = tf.numpy_function(pack, columns, [tf.as_dtype(dtype) for dtype in COLUMNS.values()], stateful=False)
    for values in laid:
        values.set_shape([None, length])
    return dict(zip(COLUMNS, laid, strict=True))


def rows_of(lengths: np.ndarray, length: int) -> tuple[np.ndarray, int]:
    """Row of each sequence, int64 [R], and how many rows there are; the same lengths give the same rows.

    Best fit leaves the rows sorted by their longest sequence, so they are shuffled.
    """
    rows = best_fit_rows(lengths, length)
    num_rows = int(rows.max()) + 1
    return np.random.default_rng(num_rows).permutation(num_rows)[rows], num_rows
