"""A step on eight devices is the step on one: losses over all items and over draws, codes and repeats."""

import dataclasses

import jax
import numpy as np
import pytest
from small_item_history import SYSTEM

from plum_jax.systems.item_history.system import initial_item_history
from plum_jax.training.mesh import MeshShape, batch_sharding
from plum_jax.training.optimizer import AdamW
from plum_jax.training.step import initial_state, make_train_step


@pytest.mark.parametrize("num_drawn", [32, pytest.param(1000, marks=pytest.mark.slow)])
def test_sharded_is_single(stages, fitted, num_drawn):
    system = dataclasses.replace(SYSTEM, num_drawn=num_drawn)
    known, network = fitted.ranker.known, fitted.ranker.network
    batch, optimizer, key = next(system.feed(stages.split, known).make_iterator()), AdamW().build(10), jax.random.key(0)
    found = []
    for shape, devices in ((MeshShape(), jax.devices()[:1]), (MeshShape(data=4, fsdp=2), jax.devices())):
        mesh = shape.build(devices)
        state = initial_state(lambda key: initial_item_history(network, key), optimizer, key, mesh)
        step = make_train_step(system.objective.on(network, mesh), optimizer, 1, key, mesh, state)
        after, sums = step(state, jax.device_put(batch, batch_sharding(mesh)))
        found.append((jax.device_get(sums["loss"]), jax.device_get(after.params)))
    (single_loss, single), (sharded_loss, sharded) = found
    np.testing.assert_allclose(single_loss[0], sharded_loss[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), single, sharded)
