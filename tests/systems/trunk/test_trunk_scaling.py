"""A study scales the trunk: counts are the arrays, the timed step has the feed's shapes, the loss is brute force."""

import dataclasses

import jax
import numpy as np
import pytest
from small_trunk import DATA, TRUNK

from plum_jax.systems.trunk.reading import histories_of
from plum_jax.systems.trunk.scaling import ScaledTrunk


def test_counts_steps_and_losses_are_those_of_the_trunk(run, fitted):
    scaled = ScaledTrunk(DATA, dataclasses.replace(TRUNK, training=fitted.system.training), ks=(1, 5))
    data = scaled.prepare(run.directory, 30).data
    counts = scaled.counts(data)
    assert counts["total"] == sum(np.size(leaf) for leaf in jax.tree.leaves(fitted.params))
    assert counts["total"] == fitted.facts["parameters"] == counts["embedding"] + counts["non_embedding"]
    assert counts["non_embedding"] == fitted.facts["non_embedding_parameters"] < counts["total"]
    recipe = scaled.step(data)
    ours = next(TRUNK.feed(run.split, fitted.reader.known).make_iterator())
    shapes = {name: (values.shape, values.dtype) for name, values in recipe.batch().items()}
    assert shapes == {name: (values.shape, values.dtype) for name, values in ours.items()}
    assert recipe.flops == 8 * 24 * sum(scaled.flops_parts(data).values())
    said = scaled.trial(run.directory, None).judge(fitted.params)
    test, nats = run.split.evaluation("test"), []
    users = fitted.reader.users(fitted.params, histories_of(test), fitted.reader.requests_of(test))
    for user, target in zip(users, test.target_item, strict=True):
        scores = np.float64(fitted.reader.items(fitted.params) @ user)
        nats.append(np.log(np.sum(np.exp(scores))) - scores[target])
    assert said["loss"] == pytest.approx(np.mean(nats), rel=1e-4)
