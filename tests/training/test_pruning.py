"""Small weights become zeros on their schedule, and without a sparsity nothing is another."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plum_jax.training.optimizer import AdamW
from plum_jax.training.pruning import Pruned, zero_share
from plum_jax.training.schedules import Constant

INNER = AdamW(schedule=Constant(1e-2), weight_decay=0.01)
STEPS = 20


def trained(optimizer, steps=STEPS):
    """Parameters behind each step, for random gradients."""
    random = np.random.default_rng(0)
    params = {
        "layer_0": {
            "mlp": {"down": jnp.asarray(random.normal(size=(8, 10)), jnp.float32), "bias": jnp.ones(10)},
            "attention_norm": {"scale": jnp.ones((4, 2))},
        }
    }
    transformation = optimizer.build(STEPS)
    state, found = transformation.init(params), []
    step = jax.jit(lambda g, s, p: (lambda u, s: (optax.apply_updates(p, u), s))(*transformation.update(g, s, p)))
    for _ in range(steps):
        gradients = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)
        params, state = step(gradients, state, params)
        found.append(params)
    return found


def test_a_sparsity_of_0_is_the_optimizer_itself():
    for plain, pruned in zip(trained(INNER), trained(Pruned(INNER, sparsity=0.0)), strict=True):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), plain, pruned))


def test_the_share_of_zeros_follows_the_schedule_and_they_are_the_smallest():
    optimizer = Pruned(INNER, sparsity=0.8, begin=0.1, end=0.6)
    plain, found = trained(INNER), trained(optimizer)
    for number, params in enumerate(found, start=1):
        done = np.clip((number - 2) / 10, 0, 1)
        wanted = int(80 * 0.8 * (1 - (1 - done) ** 3) + 1e-4)
        down = np.asarray(params["layer_0"]["mlp"]["down"])
        assert (down == 0).sum() == wanted, number
        assert np.all(params["layer_0"]["attention_norm"]["scale"] != 0) and np.all(
            params["layer_0"]["mlp"]["bias"] != 0
        )
    first = next(number for number, params in enumerate(found) if (params["layer_0"]["mlp"]["down"] == 0).any())
    before, after = np.abs(plain[first]["layer_0"]["mlp"]["down"]), found[first]["layer_0"]["mlp"]["down"]
    assert before[after == 0].max() < before[after != 0].min()
    # Nothing of what is 0 comes back at these rates, behind the end.
    zeros = [np.asarray(params["layer_0"]["mlp"]["down"] == 0) for params in found[12:]]
    assert all((zeros[0] == one).all() for one in zeros)
    assert zero_share(found[-1]) == 0.8


def test_a_share_or_a_schedule_that_is_none_is_refused():
    for wrong in ({"sparsity": 1.0}, {"begin": 0.5, "end": 0.5}, {"end": 1.5}):
        with pytest.raises(ValueError, match="expected 0 <= sparsity < 1 and 0 <= begin < end <= 1"):
            Pruned(INNER, **wrong)
