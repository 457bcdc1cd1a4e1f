"""The rival of the masking benchmark finds what ours finds, so that both do the same work."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.retrieval.sorted_sids import SortedSids
from plum_jax.retrieval.trie import SidTrie


@pytest.mark.parametrize(("count", "exponent"), [(3000, 1), (3000, 3)], ids=["uniform", "skewed"])
def test_both_masks_give_the_same_beams(monkeypatch, count, exponent):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2] / "benchmarks"))
    import retrieval_masks
    import static_trie

    rng = np.random.default_rng(0)
    codes = (rng.random((count, 5)) ** exponent * 64).astype(np.int32)
    sids = SortedSids.from_codes(codes, (64,) * 5)
    log_probs = tuple(jnp.asarray(rng.normal(size=(2, 10, 64)), jnp.float32) for _ in range(5))
    found, scores = retrieval_masks.trie_search(SidTrie.build(sids, window=8), log_probs)
    static = static_trie.StaticIndex.build(sids.columns, 64)
    expected, expected_scores = static_trie.static_search(static, log_probs, tokens_per_beam=10)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-6)
    valid = {tuple(row) for row in codes.tolist()}
    assert all(tuple(sid) in valid for sid in np.asarray(found).reshape(-1, 5).tolist())
    assert static.fan_out[1:] == tuple(
        max(np.unique(np.unique(codes[:, : n + 1], axis=0)[:, :n], axis=0, return_counts=True)[1]) for n in range(1, 5)
    )
