"""Distances within a list against loops over all pairs."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np

from plum_jax.evaluation.metrics import diversity

random = np.random.default_rng(0)
CODES = random.integers(0, 3, (12, 3))
EMBEDDINGS = np.where(np.arange(12)[:, None] == 5, 0.0, random.normal(size=(12, 4))).astype(np.float32)
lists = st.lists(st.lists(st.integers(0, 11), max_size=6, unique=True), min_size=1, max_size=5)


def shared_prefix(a, b):
    return next((level for level in range(3) if CODES[a][level] != CODES[b][level]), 3)


def cosine(a, b):
    norms = np.linalg.norm(EMBEDDINGS[a]) * np.linalg.norm(EMBEDDINGS[b])
    return EMBEDDINGS[a] @ EMBEDDINGS[b] / norms if norms else 0.0


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(lists, st.integers(1, 6))
def test_mean_over_pairs(rows, k):
    ranked = np.array([[*row, *[-1] * (6 - len(row))] for row in rows])
    by_sid = diversity.sid_diversity(ranked, CODES, k)
    by_embedding = diversity.embedding_diversity(ranked, EMBEDDINGS, k)
    for row, sid, embedding in zip(rows, by_sid, by_embedding, strict=True):
        pairs = list(itertools.combinations(row[:k], 2))
        if not pairs:
            assert np.isnan(sid) and np.isnan(embedding)
            continue
        np.testing.assert_allclose(sid, np.mean([1 - shared_prefix(a, b) / 3 for a, b in pairs]))
        np.testing.assert_allclose(embedding, np.mean([1 - cosine(a, b) for a, b in pairs]), atol=1e-6)


def test_many_users_go_in_blocks(monkeypatch):
    ranked = np.stack([random.permutation(12)[:6] for _ in range(50)])
    whole = diversity.sid_diversity(ranked, CODES, 6), diversity.embedding_diversity(ranked, EMBEDDINGS, 6)
    monkeypatch.setattr(diversity, "_AT_ONCE", 300)  # 4 and 12 users
    np.testing.assert_array_equal(whole[0], diversity.sid_diversity(ranked, CODES, 6))
    np.testing.assert_array_equal(whole[1], diversity.embedding_diversity(ranked, EMBEDDINGS, 6))
