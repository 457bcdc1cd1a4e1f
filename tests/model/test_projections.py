"""Oracle: products over tokens as rows, the way of CPUs, are the products of the other machines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from plum_jax.model.config import DecoderConfig
from plum_jax.model.projections import GatedMLP, product, tokens_are_rows

CPU = Mesh(np.array(jax.devices()[:1]), ("data",)).abstract_mesh


@pytest.mark.parametrize(("inner", "out"), [((5,), (2, 3)), ((2, 3, 4), (5,))])
def test_products_are_the_same_on_every_machine(inner, out):
    x = jax.random.normal(jax.random.key(0), (2, 7, *inner))
    weight = jax.random.normal(jax.random.key(1), (*inner, *out))
    elsewhere = jnp.tensordot(x, weight, len(inner))
    with jax.sharding.use_abstract_mesh(CPU):
        assert tokens_are_rows()
        here = product(x, weight, len(inner))
    assert here.shape == elsewhere.shape == (2, 7, *out)
    np.testing.assert_allclose(here, elsewhere, atol=1e-5)


def test_the_mlp_is_the_same_on_every_machine():
    mlp = GatedMLP(DecoderConfig(d_model=8), mlp_dim=12)
    x = jax.random.normal(jax.random.key(0), (2, 7, 8))
    params = mlp.init(jax.random.key(1), x)

    def gradient(params, x):
        return jax.grad(lambda params: jnp.sum(jnp.sin(mlp.apply(params, x))))(params)

    elsewhere = gradient(params, x)
    with jax.sharding.use_abstract_mesh(CPU):
        here = gradient(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), here, elsewhere)
