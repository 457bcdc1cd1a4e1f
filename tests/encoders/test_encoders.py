"""A text's vector is the decoder's state at its end, alone or beside longer texts; int8 is near what it stands for."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.encoders.language_model import SMALL, LanguageModel, first_layers
from plum_jax.encoders.network import TextEncoder, trunk_of, with_trunk
from plum_jax.encoders.token_rows import token_rows
from plum_jax.model.decoder import Decoder
from plum_jax.model.int8 import Int8Weights, dequantised, quantised, size_in_bytes
from plum_jax.model.masks import packed_causal_mask

TEXTS = ["red nail polish", "a drill", "wall clock with a very long name that is cut", ""]
NANO = dataclasses.replace(SMALL, num_layers=2, d_model=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=48)
MODEL = LanguageModel(decoder=NANO, num_pieces=300)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return MODEL.start([text for text in TEXTS if text], tmp_path_factory.mktemp("pieces"))


@pytest.fixture(scope="module")
def rows(start):
    return token_rows(start.text, TEXTS, 12)


def encoder_and_params(start, rows, pooling):
    encoder = TextEncoder(start.config, start.vocab_size, pooling)
    return encoder, nn.unbox(encoder.init(jax.random.key(0), *rows)["params"])


def test_rows_end_with_the_end_and_are_filled_with_zeros(start, rows):
    end = start.text.special_ids.eos
    for tokens, length, text in zip(*rows, TEXTS, strict=True):
        assert tokens[length - 1] == end and not tokens[length:].any()
        assert list(tokens[: length - 1]) == start.text.encode(text)[:11]
    assert rows.lengths.tolist()[2:] == [12, 1]
    short = rows.of(np.array([1, 3]))
    assert short.tokens.shape[1] == short.lengths.max()


def test_the_vector_is_the_decoders_state_at_the_end(start, rows):
    encoder, params = encoder_and_params(start, rows, "last")
    vectors = encoder.apply({"params": params}, *rows)
    decoder = Decoder(start.config, start.vocab_size)
    for row, length in enumerate(rows.lengths):
        tokens = rows.tokens[row : row + 1, :length]
        mask = packed_causal_mask(jnp.ones_like(tokens))
        places = jnp.arange(length)[None]
        states = decoder.apply({"params": trunk_of(params)}, tokens, places, mask, method="hidden").values
        np.testing.assert_allclose(vectors[row], states[0, -1], atol=2e-5)


def test_a_mean_reads_the_whole_text_and_no_filling(start, rows):
    encoder, params = encoder_and_params(start, rows, "mean")
    vectors = encoder.apply({"params": params}, *rows)
    alone = rows.of(np.array([1]))
    np.testing.assert_allclose(encoder.apply({"params": params}, *alone)[0], vectors[1], atol=2e-5)
    other_end = rows.tokens[:1].copy()
    other_end[0, rows.lengths[0] - 2] += 1
    states = [
        encoder.apply({"params": params}, tokens, rows.lengths[:1], method="states")[0, 0]
        for tokens in (rows.tokens[:1], other_end)
    ]
    assert np.abs(states[0] - states[1]).max() > 1e-4  # the first token sees the last


def test_first_layers_are_the_whole_whose_others_add_nothing(start, rows):
    encoder, params = encoder_and_params(start, rows, "mean")
    quiet = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 if "layer_1" in str(path) and ("out" in str(path) or "down" in str(path)) else leaf,
        params,
    )
    one = dataclasses.replace(start.config, num_layers=1)
    cut = with_trunk(params, first_layers(trunk_of(params), 1))
    assert set(trunk_of(cut)["transformer"]) == {"layer_0", "final_norm"}
    found = TextEncoder(one, start.vocab_size, "mean").apply({"params": cut}, *rows)
    np.testing.assert_allclose(found, encoder.apply({"params": quiet}, *rows), atol=1e-5)
    assert np.abs(found - encoder.apply({"params": params}, *rows)).max() > 1e-3


def test_layers_that_there_are_not_and_rows_too_short_are_refused(start, tmp_path):
    with pytest.raises(ValueError, match="expected 1 to 2 layers"):
        dataclasses.replace(MODEL, layers=3).start(["a"], tmp_path)
    with pytest.raises(ValueError, match="length of 2 at least"):
        token_rows(start.text, TEXTS, 1)


def test_int8_is_off_by_half_a_scale_and_a_quarter_of_the_bytes(start, rows):
    encoder, params = encoder_and_params(start, rows, "last")
    small = quantised(params, kept="mlp")
    again = dequantised(small)
    wrapped = jax.tree.leaves(small, is_leaf=lambda leaf: isinstance(leaf, Int8Weights))
    assert sum(isinstance(leaf, Int8Weights) for leaf in wrapped) == 1 + 2 * 2
    for before, after, kept in zip(jax.tree.leaves(params), jax.tree.leaves(again), wrapped, strict=True):
        if isinstance(kept, Int8Weights):
            assert np.all(np.abs(before - after) <= kept.scale / 2 * (1 + 1e-5))
        else:
            np.testing.assert_array_equal(before, after)
    assert size_in_bytes(quantised(params)) < 0.35 * size_in_bytes(params)
