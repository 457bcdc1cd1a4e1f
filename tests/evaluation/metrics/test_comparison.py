"""The paired bootstrap against the theory of the mean and against planted differences."""

import math

import numpy as np
import polars as pl
import pytest

from plum_jax.evaluation import metrics
from plum_jax.evaluation.metrics import comparison


def test_interval_is_that_of_the_normal_law_for_many_users():
    random = np.random.default_rng(0)
    base = random.random(4000)
    difference = np.where(random.random(4000) < 0.1, 1.0, 0.0)
    found = metrics.paired_bootstrap(base + difference, base, samples=4000)
    half = 1.96 * difference.std() / math.sqrt(4000)
    assert found.mean == pytest.approx(difference.mean())
    assert found.low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.1 * half)
    assert found.p_value == pytest.approx(2 / 4001), "no draw on the other side"


def test_users_are_paired():
    values = np.random.default_rng(1).random(50)
    assert metrics.paired_bootstrap(values + 0.25, values)[:3] == pytest.approx((0.25, 0.25, 0.25))
    assert metrics.paired_bootstrap(values, values) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="the same users"):
        metrics.paired_bootstrap(values, values[1:])


def test_planted_differences_are_covered_and_none_is_found_where_there_is_none():
    """400 pairs of systems whose hits are drawn with chances that are .03 apart, or equal, and go together."""
    random = np.random.default_rng(2)
    for planted in (0.03, 0.0):
        covered = found = 0
        for seed in range(400):
            easy = random.random(800)  # of each user, the same for both systems
            second = easy < 0.1 + 0.05 * random.random(800)
            first = easy < 0.1 + planted + 0.05 * random.random(800)
            result = metrics.paired_bootstrap(first.astype(float), second.astype(float), samples=500, seed=seed)
            covered += result.low <= planted <= result.high
            found += result.p_value < 0.05
        assert 0.92 <= covered / 400 <= 0.98, planted
        assert found / 400 > 0.9 if planted else found / 400 < 0.08


def test_equal_values_are_drawn_together_and_blocks_change_nothing(monkeypatch):
    first, second = np.random.default_rng(3).random((2, 100))
    whole = metrics.paired_bootstrap(first, second, samples=300)
    monkeypatch.setattr(comparison, "_AT_ONCE", 1000)
    assert metrics.paired_bootstrap(first, second, samples=300) == whole


def ranks(rows):
    columns = {"user_id": pl.String, "target_item_id": pl.String, "rank": pl.Int32, "rank_unseen": pl.Int32}
    return pl.DataFrame(rows, schema=columns, orient="row")


FIRST = ranks([("a", "x", 0, 0), ("b", "y", 3, 1), ("c", "z", None, None)])


def test_users_are_matched_by_name_and_metrics_are_those_of_the_ranks():
    second = ranks([("c", "z", 0, 0), ("a", "x", 1, 0), ("b", "y", None, None)])
    rows = {row["metric"]: row for row in metrics.compare_per_user(FIRST, second, (1, 5), samples=200)}
    assert set(rows) == {f"{m}@{k}{s}" for m in ("recall", "ndcg", "mrr") for k in (1, 5) for s in ("", "_unseen")}
    assert rows["recall@1"]["first"] == rows["recall@1"]["second"] == pytest.approx(1 / 3)
    assert rows["mrr@5"]["difference"] == pytest.approx((1 + 1 / 4 + 0) / 3 - (1 / 2 + 0 + 1) / 3)
    assert rows["recall@1"]["users"] == 3 and rows["recall@1"]["low"] < 0 < rows["recall@1"]["high"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (FIRST[:2], "got 3 and 2, of which 2 are in both"),
        (FIRST.with_columns(target_item_id=pl.lit("x")), "for user 'b' 'y' and 'x'"),
        (pl.concat([FIRST, FIRST[:1]]), "each user once in the second evaluation"),
    ],
)
def test_other_users_or_targets_are_refused(second, message):
    with pytest.raises(ValueError, match=message):
        metrics.compare_per_user(FIRST, second, (1,))
