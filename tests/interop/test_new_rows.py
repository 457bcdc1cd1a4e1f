"""New tokens leave the old ones' logits as they were, and begin as means, noise or averages of old rows."""

import dataclasses

import numpy as np
import pytest
from published_families import our_logits
from test_export import SMALL, random_params

from plum_jax.interop.new_rows import RowSources, grow_vocabulary, rows_from_sources
from plum_jax.interop.pretrained import InteropError


@pytest.mark.parametrize("tied", [True, False])
def test_old_logits_do_not_change(tied):
    config = dataclasses.replace(SMALL, tied_embeddings=tied)
    params = random_params(config)
    grown = grow_vocabulary(params, 40, seed=0, noise=1.0)
    assert grown["embedding"].shape == (40, 16) and ("head" in grown) == (not tied)
    np.testing.assert_allclose(our_logits(config, grown)[..., :29], our_logits(config, params), atol=1e-6)


def test_new_rows_have_the_old_ones_mean_and_covariance():
    table = np.random.default_rng(0).multivariate_normal([3.0, -1.0], [[2.0, 1.2], [1.2, 1.0]], 400)
    new = grow_vocabulary({"embedding": table.astype(np.float32)}, 400 + 20_000, seed=1, noise=0.5)["embedding"][400:]
    np.testing.assert_allclose(new.mean(axis=0), table.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(np.cov(new.T), 0.25 * np.cov(table.T), atol=0.02)
    quiet = grow_vocabulary({"embedding": table.astype(np.float32)}, 500, seed=1)["embedding"][400:]
    assert 0 < np.abs(quiet - table.mean(axis=0)).max() < 0.03
    again = grow_vocabulary({"embedding": table.astype(np.float32)}, 500, seed=1)["embedding"][400:]
    np.testing.assert_array_equal(quiet, again)


def test_rows_are_weighted_averages_of_their_sources():
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    sources = RowSources(
        rows=np.array([2, 0, 0, 0]), ids=np.array([3, 1, 2, 1]), weights=np.array([5.0, 1.0, 2.0, 1.0])
    )
    rows = rows_from_sources(table, 3, sources)
    np.testing.assert_allclose(rows[0], (2 * table[1] + 2 * table[2]) / 4)
    np.testing.assert_allclose(rows[1], table.mean(axis=0))  # nothing is said of it
    np.testing.assert_allclose(rows[2], table[3])
    params = {"embedding": table, "head": table + 100}
    grown = grow_vocabulary(params, 7, seed=0, sources=sources, noise=0.0)
    np.testing.assert_allclose(grown["embedding"][4:], rows)
    np.testing.assert_allclose(grown["head"][4:], rows + 100)


def test_rows_that_no_piece_has_are_replaced():
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    grown = grow_vocabulary({"embedding": table}, 5, seed=0, kept_rows=2, noise=0.0)["embedding"]
    np.testing.assert_array_equal(grown[:2], table[:2])
    np.testing.assert_allclose(grown[2:], np.tile(table[:2].mean(axis=0), (3, 1)))


def test_sizes_and_ids_out_of_range_are_refused():
    params = {"embedding": np.ones((4, 3), np.float32)}
    with pytest.raises(InteropError, match=r"kept_rows <= 4 \(the old rows\).*got kept_rows=4, vocab_size=3"):
        grow_vocabulary(params, 3, seed=0)
    one = np.array([0])
    with pytest.raises(InteropError, match="rows below 2 and ids below 4, got rows 0 to 0 and ids 4 to 4"):
        grow_vocabulary(params, 6, seed=0, sources=RowSources(one, one + 4, one + 1.0))
    with pytest.raises(InteropError, match="weights of 0 or more, got -1"):
        grow_vocabulary(params, 6, seed=0, sources=RowSources(one, one, one - 1.0))
