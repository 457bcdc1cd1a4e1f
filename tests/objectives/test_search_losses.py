"""The hinge and the softmax of scored pools are what their definitions say, item by item."""

import numpy as np
import pytest

from plum_jax.objectives.pool_softmax import PoolSoftmax
from plum_jax.objectives.scored_pool import ScoredPool
from plum_jax.objectives.threshold_hinge import ThresholdHinge

B, P = 4, 9


@pytest.fixture(scope="module")
def pool():
    random = np.random.default_rng(0)
    scores = random.uniform(-1, 1, (B, P)).astype(np.float32)
    negative = random.random((B, P)) < 0.8
    negative[np.arange(B), np.arange(B)] = False
    own = scores[np.arange(B), np.arange(B)]
    hard = np.array([0.0, 0.3, 0.7, 1.0], np.float32)
    return ScoredPool(own, scores, negative, np.arange(P) >= B, random.normal(size=P).astype(np.float32), hard)


def mean_of_positive(values):
    violating = [value for value in values if value > 0]
    return sum(violating) / len(violating) if violating else 0.0


def test_the_hinge_is_that_of_each_side_of_the_threshold(pool):
    hinge = ThresholdHinge(threshold=0.2, margin=0.1, hard=2, negative_weight=0.5)
    losses, parts = hinge.losses(pool)
    for row in range(B):
        own = max(0, 0.3 - pool.own[row])
        over = [
            max(0, score - 0.1) if there else 0
            for score, there in zip(pool.scores[row], pool.negative[row], strict=True)
        ]
        uniform, hard = mean_of_positive(over[B:]), mean_of_positive(sorted(over)[-2:])
        share = pool.hard_weight[row]
        assert losses[row] == pytest.approx(own + 0.5 * ((1 - share) * uniform + share * hard), abs=1e-6)
        assert parts["own"][row] == pytest.approx(own, abs=1e-6)


def test_the_hinge_is_zero_where_the_threshold_separates_with_its_margin(pool):
    hinge = ThresholdHinge(threshold=0.0, margin=0.5, hard=3)
    apart = pool._replace(own=np.full(B, 0.5, np.float32), scores=np.full((B, P), -0.5, np.float32))
    assert not np.any(hinge.losses(apart)[0])
    assert np.all(hinge.losses(apart._replace(own=np.full(B, 0.4, np.float32)))[0] > 0)
    for wrong in ({"threshold": 0.95}, {"hard": 0}, {"margin": -0.1}):
        with pytest.raises(ValueError, match=r"expected threshold - margin and threshold \+ margin inside"):
            ThresholdHinge(**wrong)


def test_the_softmax_is_over_own_item_and_negatives_less_log_counts(pool):
    losses, _ = PoolSoftmax(temperature=0.5).losses(pool)
    for row in range(B):
        own = pool.own[row] / 0.5 - pool.log_count[row]
        others = (pool.scores[row] / 0.5 - pool.log_count)[pool.negative[row]]
        expected = np.log(np.exp(own) + np.exp(others).sum()) - own
        assert losses[row] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="a positive temperature, got 0"):
        PoolSoftmax(temperature=0.0)
