"""top_k against lax.top_k, with ties and rows of nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.retrieval.top_k import top_k


@pytest.mark.parametrize(
    ("shape", "k", "values"),
    [((3, 5000), 7, 50), ((2, 2, 3001), 5, 3), ((2, 40), 7, 5), ((1, 2048), 1, 9), ((2, 4000), 6, 1)],
)
def test_same_values_and_places_as_lax_top_k(shape, k, values):
    scores = np.random.default_rng(0).integers(0, values, shape).astype(np.float32)
    scores[..., ::3] = -np.inf
    scores[0] = -np.inf  # nothing to find: the first places
    found, expected = jax.jit(top_k, static_argnums=1)(jnp.asarray(scores), k), jax.lax.top_k(jnp.asarray(scores), k)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
