"""What a method of tuning trains moves; the trunk beside it stays, bit for bit."""

import dataclasses

import jax
import numpy as np
import optax
import pytest
from small_m6 import NANO, network_and_params, rows

from plum_jax.model.config import Adapter
from plum_jax.model.counts import parameter_counts
from plum_jax.model.decoder import Decoder
from plum_jax.systems.m6rec.losses import ClassLoss
from plum_jax.systems.m6rec.network import Heads
from plum_jax.systems.m6rec.tuning import Tuning
from plum_jax.training.optimizer import Adafactor, AdamW
from plum_jax.training.parameter_roles import path_of
from plum_jax.training.schedules import Constant

OPTIMIZER = AdamW(schedule=Constant(1e-2))
TRAINED = {
    "prompt": {"soft_prompts", "special", "classes"},
    "option": {"soft_prompts", "special"},
    "adapter": {"adapter", "special", "classes"},
    "option_adapter": {"adapter", "soft_prompts", "special"},
}


@pytest.mark.parametrize("method", TRAINED)
def test_a_method_trains_its_own_parameters_and_the_trunk_is_bit_equal(method):
    tuning = Tuning(method, soft_prompts=4, adapter=Adapter(2))
    config = tuning.decoder(dataclasses.replace(NANO, num_layers=1))
    network, before = network_and_params(heads=tuning.heads(Heads()), config=config)
    transformation = tuning.optimizer(OPTIMIZER).build(3)
    loss = ClassLoss(network)
    batch = {**rows().columns(), "label": np.array([0, 1, 1, 0, 1, 0], np.float32)}
    after, state = before, transformation.init(before)
    step = jax.jit(jax.grad(lambda params: loss(params, batch, None)[0]))
    for _ in range(2):
        updates, state = transformation.update(step(after), state, after)
        after = optax.apply_updates(after, updates)
    moved, count = set(), 0
    for (keys, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        parts = set(path_of(keys).split("/"))
        if (np.asarray(old) != np.asarray(new)).any():
            moved |= parts & TRAINED[method]
            assert parts & TRAINED[method], path_of(keys)
        count += old.size if parts & TRAINED[method] else 0
    assert moved == TRAINED[method]
    assert tuning.tuned_parameters(before) == count
    assert Tuning().tuned_parameters(before) == sum(leaf.size for leaf in jax.tree.leaves(before))


def test_methods_that_there_are_not_are_named():
    with pytest.raises(ValueError, match="expected a method of tuning among .*'lora'"):
        Tuning("lora")
    with pytest.raises(ValueError, match="tunes by AdamW, got Adafactor"):
        Tuning("option").optimizer(Adafactor())


def test_a_decoder_without_an_adapter_is_what_it_was():
    assert dataclasses.replace(NANO).adapter is None
    one = np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32), np.ones((1, 1, 1), bool)
    without = jax.eval_shape(Decoder(NANO, 50).init, jax.random.key(0), *one)["params"]
    paths = {path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(without)}
    assert not any("adapter" in path for path in paths)
    config = dataclasses.replace(NANO, adapter=Adapter(4))
    params = jax.eval_shape(Decoder(config, 50).init, jax.random.key(0), *one)["params"]
    more = {path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)} - paths
    assert len(more) == 4 * NANO.num_layers and all("/adapter/" in path for path in more)
    sizes = [sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree)) for tree in (without, params)]
    assert [parameter_counts(c, 50)["total"] for c in (NANO, config)] == sizes
    assert parameter_counts(config, 50)["adapter"] == sizes[1] - sizes[0]
    with pytest.raises(ValueError, match="rank of at least 1, got 0"):
        Adapter(0)
