"""A BERT as the language model of a reader of texts: its marks, first layers, sizes alone, and what it is not."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
import small_bert

from plum_jax.encoders.language_model import LanguageModel, first_layers
from plum_jax.encoders.network import TextEncoder
from plum_jax.model.int8 import dequantised, quantised
from plum_jax.training.parameter_roles import is_decayed, map_with_path, role_of

TEXTS = ["Red lamps", "[SEP] drill", "drill red red red red red"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return LanguageModel(pretrained=str(small_bert.write(tmp_path_factory.mktemp("bert"))), dropout_rate=0.2)


@pytest.fixture(scope="module")
def start(model, tmp_path_factory):
    return model.start([], tmp_path_factory.mktemp("nothing"))


def test_texts_stand_between_their_marks_which_no_text_can_give(start):
    rows = start.rows(TEXTS, 6)
    assert rows.tokens.tolist() == [[2, 5, 6, 7, 3, 0], [2, 1, 1, 1, 8, 3], [2, 8, 5, 5, 5, 3]]
    assert rows.lengths.tolist() == [5, 6, 6]


def test_a_vector_is_the_mean_of_the_texts_states_whatever_is_beside_it(start):
    rows, encoder = start.rows(TEXTS, 8), TextEncoder(start.config, start.vocab_size, "mean")
    variables = {"params": start.encoder_params}
    vectors, states = encoder.apply(variables, *rows), encoder.apply(variables, *rows, method="states")
    for row, length in enumerate(rows.lengths):
        np.testing.assert_allclose(vectors[row], states[row, :length].mean(0), atol=1e-5)
        alone = rows.of(np.array([row]))
        np.testing.assert_allclose(encoder.apply(variables, *alone)[0], vectors[row], atol=1e-5)


def test_first_layers_are_the_first_streams_and_sizes_alone_begin_at_random(model, start, tmp_path):
    one = dataclasses.replace(model, layers=1).start([], tmp_path)
    assert one.config == dataclasses.replace(start.config, num_layers=1) and one.config.dropout_rate == 0.2
    rows, encoder = start.rows(TEXTS, 8), TextEncoder(one.config, one.vocab_size, "mean")
    whole = TextEncoder(start.config, start.vocab_size, "mean")
    streams = whole.apply({"params": start.encoder_params}, *rows, method="streams")
    cut = encoder.apply({"params": one.encoder_params}, *rows, method="states")
    np.testing.assert_allclose(cut, streams[1], atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, first_layers(start.params, 1), one.params)
    random = dataclasses.replace(model, weights=False).start([], tmp_path)
    assert random.params is None and random.config == start.config and random.vocab_size == start.vocab_size
    assert random.fingerprint != start.fingerprint
    with pytest.raises(ValueError, match="expected 1 to 2 layers, as the model has, got layers=3"):
        dataclasses.replace(model, layers=3).start([], tmp_path)


def test_dropout_is_in_training_alone(start):
    rows, encoder = start.rows(TEXTS, 8), TextEncoder(start.config, start.vocab_size, "mean")
    variables = {"params": start.encoder_params}
    first, second = (encoder.apply(variables, *rows, False, rngs={"dropout": jax.random.key(n)}) for n in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_a_reader_of_ends_and_a_writer_are_refused(start):
    rows = start.rows(TEXTS, 8)
    with pytest.raises(ValueError, match="tokens of BERT see the whole text: expected pooling 'mean', got 'last'"):
        TextEncoder(start.config, start.vocab_size).init(jax.random.key(0), *rows)
    with pytest.raises(ValueError, match="expected a causal language model, for it is to write: a BERT reads"):
        start.decoder  # noqa: B018 (it raises)


def test_optimizers_and_8_bits_know_its_parameters(start):
    encoder = TextEncoder(start.config, start.vocab_size, "mean")
    params = nn.unbox(encoder.init(jax.random.key(0), *start.rows(TEXTS, 8))["params"])
    roles = jax.tree.leaves(map_with_path(lambda path, _: role_of(path) is not None, params))
    assert all(roles)
    again = dequantised(quantised(params))

    def compare(path, before, after):
        moved = np.abs(before - after).max()
        assert moved <= np.abs(before).max() / 254 * (1 + 1e-5)
        assert (moved > 0) == is_decayed(path), path

    paths = map_with_path(lambda path, _: path, params)
    jax.tree.map(compare, paths, params, again)
