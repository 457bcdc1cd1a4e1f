"""Oracle: attention by blocks gives the values and gradients of the products over whole rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.model.attention import DenseMasks, EinsumAttention
from plum_jax.model.blockwise_attention import BlockwiseAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import PackedCausal

CONFIG = DecoderConfig(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8)
WINDOWED = dataclasses.replace(CONFIG, layer_windows=(70, 0))


def _inputs(length, dtype="float32"):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(2, length, 2, 2, 8), (2, length, 2, 8), (2, length, 2, 8)]
    arrays = [2 * jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]
    packed = np.repeat([1, 2, 0], [length // 3, length - 10 - length // 3, 10])
    return *arrays, jnp.asarray(np.stack([packed, np.ones(length)]), jnp.int32)


def _values_and_gradients(attention, config, is_local, query, key, value, segments):
    def of(query, key, value):
        positions = jnp.broadcast_to(jnp.arange(query.shape[1]), query.shape[:2])
        prepared = attention.prepare(PackedCausal(segments), positions, positions, config)
        out = attention(query, (key,), (value,), prepared, is_local, config)
        return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

    (_, out), gradients = jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2), has_aux=True))(query, key, value)
    return out, gradients


@pytest.mark.parametrize(
    ("config", "length", "is_local"),
    [
        (CONFIG, 20, False),  # one block
        (CONFIG, 300, False),  # three
        (WINDOWED, 150, True),
        (WINDOWED, 150, jnp.asarray(True)),
        (WINDOWED, 150, jnp.asarray(False)),
    ],
)
def test_blocks_equal_the_products(config, length, is_local):
    inputs = _inputs(length)
    expected, expected_gradients = _values_and_gradients(EinsumAttention(), config, is_local, *inputs)
    got, gradients = _values_and_gradients(BlockwiseAttention(), config, is_local, *inputs)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=5e-5)


def test_half_precision_is_near():
    inputs = _inputs(40, "bfloat16")
    expected, _ = _values_and_gradients(EinsumAttention(), CONFIG, False, *inputs)
    got, gradients = _values_and_gradients(BlockwiseAttention(), CONFIG, False, *inputs)
    assert {x.dtype for x in (got, *gradients)} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(got.astype("float32"), expected.astype("float32"), atol=0.05)


def test_a_soft_cap_goes_the_way_of_the_products():
    capped = dataclasses.replace(CONFIG, attention_softcap=2.0)
    segments = jnp.ones((1, 4), jnp.int32)
    prepared = BlockwiseAttention().prepare(PackedCausal(segments), segments, segments, capped)
    assert isinstance(prepared, DenseMasks)
