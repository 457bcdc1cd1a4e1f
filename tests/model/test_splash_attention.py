"""Oracle: the Pallas kernel, interpreted on CPU, gives the values and gradients of the products that it replaces."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.model.attention import EinsumAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import PackedCausal
from plum_jax.model.splash_attention import SplashAttention, block_edge, computed_share
from plum_jax.training.mesh import BATCH_AXES, MeshShape

CONFIG = DecoderConfig(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64)
MESH = MeshShape(data=2, tensor=2)
SPLASH = SplashAttention(MESH.build(jax.devices()[:4]), BATCH_AXES, "tensor", interpret=True)


def _inputs(length):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = [(2, length, 2, 2, 64), (2, length, 2, 64), (2, length, 2, 64)]
    query, key, value = (jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True))
    first, second = length // 3, length - 20
    row = np.concatenate([np.full(first, 1), np.full(second - first, 2), np.zeros(20)])
    segments = np.stack([row, np.ones(length)]).astype(np.int32)
    return query * 64**-0.5, key, value, jnp.asarray(segments)


def _attend(attention, config, is_local, query, key, value, segments):
    positions = jnp.broadcast_to(jnp.arange(query.shape[1]), query.shape[:2])
    prepared = attention.prepare(PackedCausal(segments), positions, positions, config)
    return attention(query, (key,), (value,), prepared, is_local, config)


@pytest.mark.parametrize(
    ("config", "length", "is_local"),
    [
        (CONFIG, 256, False),
        (dataclasses.replace(CONFIG, attention_softcap=2.0), 200, False),  # padded to 256
        (dataclasses.replace(CONFIG, layer_windows=(70, 0)), 256, True),
        (dataclasses.replace(CONFIG, layer_windows=(70, 0)), 256, jnp.asarray(True)),
        (dataclasses.replace(CONFIG, layer_windows=(70, 0)), 256, jnp.asarray(False)),
    ],
)
def test_the_kernel_equals_the_products(config, length, is_local):
    query, key, value, segments = _inputs(length)

    def loss(attention):
        def of(query, key, value):
            out = _attend(attention, config, is_local, query, key, value, segments)
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.value_and_grad(of, argnums=(0, 1, 2), has_aux=True))(query, key, value)

    (_, expected), expected_gradients = loss(EinsumAttention())
    (_, got), gradients = loss(SPLASH)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=5e-5), gradients, expected_gradients)


def test_the_computed_share_is_that_of_whole_blocks():
    assert block_edge(1536) == 512
    assert block_edge(640) == 128
    assert computed_share(1536, 0) == pytest.approx(6 / 9)
    assert computed_share(1536, 512) == pytest.approx(5 / 9)
    assert computed_share(1536, 514) == pytest.approx(6 / 9)  # one more key is in the first block
    assert computed_share(200, 0) == pytest.approx(256 * 256 / (200 * 200))
