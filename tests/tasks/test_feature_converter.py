"""SeqIO's rows are ours: nothing is lost, nothing is cast, and a packed row is what `feeds.packing` makes of it."""

import numpy as np
import pytest
import tensorflow as tf

from plum_jax.feeds import packing
from tasks.feature_converter import CAUSAL, DecoderFeatures, rows_of

START = 7


def sequences(count=40, longest=9, seed=0):
    """Sequences with token 0 among their words and weights that no integer is."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, count)
    tokens = [random.integers(0, 50, n).astype(np.int32) for n in lengths]
    weights = [random.uniform(0, 1, n).astype(np.float32) for n in lengths]
    return tokens, weights


def dataset(tokens, weights):
    columns = {"targets": tf.ragged.constant([t.tolist() for t in tokens], dtype=tf.int32)}
    columns["weights"] = tf.RaggedTensor.from_row_lengths(np.concatenate(weights), [len(w) for w in weights])
    return tf.data.Dataset.from_tensor_slices(columns)


def rows(pack, tokens, weights, length):
    converter = DecoderFeatures(pack=pack, bos_id=START)
    converted = converter(dataset(tokens, weights), {"targets": length, "weights": length})
    return [dict(row) for row in converted.as_numpy_iterator()]


def segments_of(row):
    """(tokens, weights, inputs) of each segment of a row."""
    ids = row["decoder_segment_ids"]
    for segment in range(1, ids.max() + 1):
        there = ids == segment
        np.testing.assert_array_equal(row["decoder_positions"][there], np.arange(there.sum()))
        columns = ("decoder_target_tokens", "decoder_loss_weights", "decoder_input_tokens")
        yield tuple(row[name][there].tolist() for name in columns)


@pytest.mark.parametrize("pack", [True, False])
def test_every_sequence_comes_once_with_its_float_weights(pack):
    tokens, weights = sequences()
    made = rows(pack, tokens, weights, 16)
    found = sorted((t, w) for row in made for t, w, _ in segments_of(row))
    assert found == sorted((t.tolist(), w.tolist()) for t, w in zip(tokens, weights, strict=True))
    assert (len(made) < len(tokens) / 2) == pack
    for row in made:
        assert {name: values.dtype for name, values in row.items()} == packing.COLUMNS
        for target, _, given in segments_of(row):
            assert given == [START, *target[:-1]]


def test_packed_rows_are_those_of_our_feed():
    tokens, weights = sequences(seed=1)
    lengths = np.array([len(t) for t in tokens])
    where, num_rows = rows_of(lengths, 16)
    records = [t.tobytes() + w.tobytes() for t, w in zip(tokens, weights, strict=True)]
    ours = packing.fill_rows(records, where, num_rows, 16, START)
    made = rows(True, tokens, weights, 16)
    for name, values in ours.items():
        np.testing.assert_array_equal(np.stack([row[name] for row in made]), values)


def prompts():
    columns = {
        "inputs": tf.ragged.constant([[4, 0, 5], [6]], dtype=tf.int32),
        "targets": tf.ragged.constant([[8, 9], []], dtype=tf.int32, ragged_rank=1),
    }
    return tf.data.Dataset.from_tensor_slices(columns)


def test_a_prompt_s_row_says_where_it_ends_and_weighs_what_follows():
    first, second = DecoderFeatures(pack=False, bos_id=START)(
        prompts(), {"inputs": 4, "targets": 2}
    ).as_numpy_iterator()
    assert first["decoder_input_tokens"].tolist() == [START, 4, 0, 5, 8, 0]
    assert first["decoder_target_tokens"].tolist() == [4, 0, 5, 8, 9, 0]
    assert first["decoder_loss_weights"].tolist() == [0, 0, 0, 1, 1, 0]
    assert first[CAUSAL].tolist() == [1, 1, 1, 1, 0, 0]
    assert first["decoder_segment_ids"].tolist() == [1, 1, 1, 1, 1, 0]
    # A question without an answer: its last token is read all the same.
    assert second["decoder_input_tokens"].tolist() == [START, 6, 0, 0, 0, 0]
    assert second[CAUSAL].tolist() == [1, 1, 0, 0, 0, 0] and not second["decoder_loss_weights"].any()


def test_prompts_are_not_packed():
    with pytest.raises(ValueError, match="prompts are not packed .* set pack = False"):
        DecoderFeatures(pack=True)(prompts(), {"inputs": 4, "targets": 2})
