"""Frozen is frozen bit for bit, rates are multiplied, rows stay, and a pattern without a parameter is an error."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import params_of, trained

from plum_jax.frank_wolfe.sets import L2Ball
from plum_jax.training.optimizer import Adafactor, AdamW, Muon
from plum_jax.training.parameter_groups import ParameterGroups
from plum_jax.training.parameter_roles import map_with_path
from plum_jax.training.schedules import Constant

OPTIMIZERS = [
    AdamW(Constant(1e-2)),
    Muon(Constant(1e-2)),
    pytest.param(Adafactor(Constant(1e-2), weight_decay=0.01), marks=pytest.mark.slow),
]
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)


def _moved(before, after):
    """path -> whether any bit differs."""
    found = {}
    map_with_path(lambda path, pair: found.setdefault(path, pair), jax.tree.map(_differ, before, after))
    return found


def _differ(a, b):
    return bool(np.any(a.view(np.uint32) != b.view(np.uint32)))


@each_optimizer
def test_what_is_frozen_keeps_its_bits_and_the_rest_moves(optimizer):
    rules = (("transformer/.*/attention", 0.0), ("embedding", 0.5))
    groups = ParameterGroups(rules, frozen_rows=(("embedding", 10),))
    before, after, losses = trained(dataclasses.replace(optimizer, groups=groups).build(10), 10)
    assert losses[-1] < losses[0]
    moved = _moved(before.params, after.params)
    assert sorted(path for path, differs in moved.items() if not differs) == [
        "transformer/layers/attention/out",
        "transformer/layers/attention/qkv",
    ]
    assert "transformer/layers/attention_norm/scale" in moved  # is no folder below `attention`
    rows = np.any(before.params["embedding"] != after.params["embedding"], axis=1)
    np.testing.assert_array_equal(rows, np.arange(24) >= 10)


@each_optimizer
def test_a_multiplier_is_one_of_the_learning_rate_and_the_first_rule_that_matches_holds(optimizer):
    params = params_of()
    gradients = jax.tree.map(jnp.ones_like, params)
    groups = ParameterGroups(rules=(("embedding", 0.25), (".*", 2.0)))
    updates = []
    for one in (optimizer, dataclasses.replace(optimizer, groups=groups)):
        transformation = one.build(10)
        updates.append(jax.jit(transformation.update)(gradients, transformation.init(params), params)[0])
    plain, grouped = updates
    np.testing.assert_allclose(grouped["embedding"], 0.25 * plain["embedding"], rtol=1e-6)
    np.testing.assert_allclose(
        grouped["transformer"]["layers"]["mlp"]["down"], 2 * plain["transformer"]["layers"]["mlp"]["down"], rtol=1e-6
    )


def test_frozen_gradients_are_no_part_of_the_clipped_norm():
    params = {"embedding": jnp.zeros((2, 1)), "head": jnp.zeros((2, 1))}
    gradients = {"embedding": jnp.full((2, 1), 1e6), "head": jnp.array([[1e6], [0.3]])}
    groups = ParameterGroups(rules=(("embedding", 0.0),), frozen_rows=(("head", 1),))
    transformation = Adafactor(Constant(1.0), groups=groups).build(10)
    small = Adafactor(Constant(1.0)).build(10)
    update, _ = transformation.update(gradients, transformation.init(params), params)
    alone = {"head": jnp.array([[0.0], [0.3]])}
    expected, _ = small.update(alone, small.init(alone), {"head": params["head"]})
    np.testing.assert_array_equal(update["head"], expected["head"])


def test_a_pattern_that_matches_nothing_names_near_paths():
    params = params_of()
    for groups in (
        ParameterGroups(rules=(("transformer/layers/atention/qkv", 0.1),)),
        ParameterGroups(frozen_rows=(("transformer/layers/atention/qkv", 3),)),
    ):
        message = (
            "no parameter matches 'transformer/layers/atention/qkv': did you mean transformer/layers/attention/qkv"
        )
        with pytest.raises(ValueError, match=re.escape(message)):
            AdamW(groups=groups).build(10).init(params)
    with pytest.raises(ValueError, match="no parameter matches 'zzz': there are embedding, transformer/final_norm"):
        AdamW(groups=ParameterGroups(rules=(("zzz", 0.1),))).build(10).init(params)


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="at least 0, got -1.0 for 'embedding'"):
        ParameterGroups(rules=(("embedding", -1.0),))
    transformation = AdamW(groups=ParameterGroups(frozen_rows=(("embedding", 25),))).build(10)
    params = params_of()
    with pytest.raises(ValueError, match="expected at most 24 frozen rows of embedding, got 25"):
        transformation.update(params, transformation.init(params), params)


def test_a_parameter_that_is_given_a_set_lies_in_it_after_every_step_and_the_rest_trains():
    domain = L2Ball(3.0)
    groups = ParameterGroups(sets=(("embedding", domain),))
    for steps in (1, 10):
        before, after, losses = trained(AdamW(Constant(1e-2), groups=groups).build(10), steps)
        assert float(domain.violation(before.params["embedding"])) > 0
        assert float(domain.violation(after.params["embedding"])) < 1e-5
        assert all(_moved(before.params, after.params).values())
    assert losses[-1] < losses[0]


def test_a_set_for_no_parameter_is_an_error_with_the_near_ones():
    groups = ParameterGroups(sets=(("embeding", L2Ball(1.0)),))
    with pytest.raises(ValueError, match="no parameter matches 'embeding': did you mean embedding"):
        AdamW(groups=groups).build(10).init(params_of())
