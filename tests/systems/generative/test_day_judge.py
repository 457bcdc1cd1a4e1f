"""Figures of a day by hand, and their errors beside the bootstrap over users."""

import numpy as np
import polars as pl
import pytest

from plum_jax.systems.generative.days.judge import AGES, age_metrics, differences, ratio_error


def users(**given: list[int]) -> pl.DataFrame:
    """Three users; ages that are not given were not taken."""
    columns = {f"{age}_{what}": [0, 0, 0] for age in AGES for what in ("targets", "hits")}
    return pl.DataFrame({"rank": [0, None, 3], "rank_unseen": [0, None, 12]} | columns | given)


def test_shares_are_of_all_that_is_taken_and_missing_is_missing():
    metrics = age_metrics(users(old_targets=[4, 1, 0], old_hits=[2, 0, 0], cold_targets=[0, 1, 0]), 10)
    assert metrics["old_recall@10"] == 2 / 5 and metrics["cold_recall@10"] == 0
    assert metrics["old_targets"] == 5 and metrics["new_targets"] == 0
    assert "new_recall@10" not in metrics


def test_differences_are_on_the_same_users():
    one = users(old_targets=[4, 1, 0], old_hits=[2, 0, 0])
    other = users(old_targets=[4, 1, 0], old_hits=[0, 1, 0]).with_columns(rank=pl.Series([None, 9, 10]))
    found = differences(one, other, 10)
    assert found["recall@10_less_never"] == pytest.approx(1 / 3)  # two of three users, and one
    assert found["recall@10_unseen_less_never"] == 0 and found["recall@10_unseen_less_never_se"] == 0
    assert found["old_recall@10_less_never"] == pytest.approx(1 / 5)
    assert "new_recall@10_less_never" not in found
    assert found["recall@10_less_never_se"] == pytest.approx(np.std([1, -1, 1], ddof=1) / np.sqrt(3))


def test_the_error_is_the_bootstrap_s():
    random = np.random.default_rng(0)
    targets = random.integers(0, 8, 300)
    hits = random.binomial(targets, random.beta(1, 6, 300))  # users differ in how well they are served
    drawn = random.integers(300, size=(4000, 300))
    spread = (hits[drawn].sum(axis=1) / targets[drawn].sum(axis=1)).std()
    share = hits.sum() / targets.sum()
    assert ratio_error(hits - share * targets, targets) == pytest.approx(spread, rel=0.06)
    assert np.isnan(ratio_error(np.zeros(1), np.ones(1)))
