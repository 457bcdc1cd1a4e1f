"""Alignment recovers what was planted, and changes no score."""

import numpy as np
import pytest

from plum_jax.retrieval.alignment import Version, align, kept_share, procrustes

RANDOM = np.random.default_rng(0)
OLD = Version(*(RANDOM.normal(size=(n, 6)) * np.linspace(1, 2, 6) for n in (80, 50)))
TURN = np.linalg.qr(RANDOM.normal(size=(6, 6)))[0]


def test_a_planted_rotation_is_found():
    np.testing.assert_allclose(procrustes(OLD.items @ TURN.T, OLD.items), TURN, atol=1e-9)
    new = Version(OLD.users @ TURN.T, OLD.items @ TURN.T)
    for how in ("orthogonal", "low_rank"):
        found = new.aligned(align(new, OLD, how))
        np.testing.assert_allclose(found.items, OLD.items, atol=1e-5)
        np.testing.assert_allclose(found.users, OLD.users, atol=1e-5)


def test_a_stretch_that_changes_no_score_is_undone_by_the_low_rank_form_alone():
    """Users stretched and items shrunk: a rotation cannot say it."""
    stretch = TURN @ np.diag([3, 1, 0.5, 2, 1, 0.2]) @ TURN
    new = Version(OLD.users @ stretch, OLD.items @ np.linalg.inv(stretch).T)
    np.testing.assert_allclose(new.aligned(align(new, OLD, "low_rank")).items, OLD.items, atol=1e-4)
    assert np.abs(new.aligned(align(new, OLD, "orthogonal")).items - OLD.items).max() > 0.1


@pytest.mark.parametrize("how", ["orthogonal", "low_rank"])
def test_scores_stay_what_they_are(how):
    new = Version(RANDOM.normal(size=(80, 6)), RANDOM.normal(size=(50, 6)))
    found = new.aligned(align(new, OLD, how))
    np.testing.assert_allclose(found.users @ found.items.T, new.users @ new.items.T, atol=1e-4)


def test_what_a_consumer_keeps_is_counted():
    items = np.eye(4)
    queries = np.array([[4.0, 3, 2, 1], [1, 2, 3, 4]])
    swapped = items[[1, 0, 2, 3]]
    assert kept_share(queries, items, items, 2, queries) == 1
    assert kept_share(queries, items, swapped, 1, queries) == 0.5  # the first user's best has changed its place
    assert kept_share(queries, items, items, 2, queries[::-1]) == 0


def test_other_shapes_and_ways_are_refused():
    with pytest.raises(ValueError, match=r"same users and items, of one width, got \(\(80, 6\), \(49, 6\)\)"):
        align(Version(OLD.users, OLD.items[1:]), OLD)
    with pytest.raises(ValueError, match=r"one of \('orthogonal', 'low_rank'\), got 'affine'"):
        align(OLD, OLD, "affine")
