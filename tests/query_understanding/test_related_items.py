"""Complementary items and substitutes by comparing every pair; next items counted by hand."""

import numpy as np
import planted_queries
import pytest

from plum_jax.corpus.features.text import embed_texts
from plum_jax.corpus.splits import TRAIN
from plum_jax.corpus.taxonomy import ItemCategories
from plum_jax.query_understanding.related_items import RelatedItems, by_turns, judged_related, named


@pytest.fixture(scope="module")
def split():
    return planted_queries.split()


@pytest.fixture(scope="module")
def fitted(split):
    return RelatedItems(ItemCategories("path"), ("title",), window=2, behaviour_weight=0.5, text_dim=64).fit(split)


@pytest.fixture(scope="module")
def scores(split):
    """Cosine of co-watches [N, N], and likeness of titles."""
    events, number = split.corpus.events, split.corpus.num_items
    user, item = events["user"].to_numpy(), events["item"].to_numpy()
    together = np.zeros((number, number))
    rows = np.flatnonzero(split.fold == TRAIN)
    for place, a in enumerate(rows):
        for b in rows[place + 1 : place + 3]:
            if user[a] == user[b] and item[a] != item[b]:
                together[item[a], item[b]] += 1
                together[item[b], item[a]] += 1
    count = together.sum(axis=1)
    vectors = embed_texts(split.corpus.items["title"].to_list(), 64, "")
    return together / np.sqrt(np.outer(count, count)), vectors @ vectors.T


def test_lists_are_the_best_of_every_pair(split, fitted, scores):
    together, text = scores
    path = split.corpus.items["path"].to_numpy()
    same = path[:, None] == path
    np.fill_diagonal(together, 0)
    for found, score, allowed in (
        (fitted.complementary, together, ~same),
        (fitted.substitutes, text + 0.5 * together, same),
        (fitted.watched_together, together, np.ones_like(same)),
    ):
        lists = found(np.arange(len(path)), 4)
        for item, row in enumerate(lists):
            wanted = np.sort([s for n, s in enumerate(score[item]) if allowed[item, n] and n != item and s > 1e-9])
            kept = row[row >= 0]
            assert all(allowed[item, one] and one != item for one in kept)
            np.testing.assert_allclose(score[item, kept], wanted[::-1][:4], rtol=1e-4)


def test_two_lists_stand_by_turns():
    assert by_turns(np.array([[1, 2, -1]]), np.array([[7, -1, -1]])).tolist() == [[1, 7, 2]]
    assert by_turns(np.array([[-1, -1]]), np.array([[7, 8]])).tolist() == [[7, 8]]


def test_next_items_are_counted(split, fitted):
    rows = {row["list"]: row for row in judged_related(split, fitted, 3)}
    evaluation = split.evaluation("test")
    last = [evaluation.history(row)[-1] for row in range(len(evaluation))]
    path = split.corpus.items["path"].to_list()
    for name, found in (("substitute", fitted.substitutes), ("complementary", fitted.complementary)):
        lists = [found(np.array([item]), 3)[0] for item in last]
        hits = np.array([target in of for target, of in zip(evaluation.target_item, lists, strict=True)])
        same = np.array([path[a] == path[b] for a, b in zip(last, evaluation.target_item, strict=True)])
        assert rows[name]["recall@3"] == pytest.approx(hits.mean())
        assert rows[name]["recall@3_same_category"] == pytest.approx(hits[same].mean())
        assert rows[name]["share_same_category"] == pytest.approx(same.mean())
    assert rows["substitute"]["recall@3_other_category"] == rows["complementary"]["recall@3_same_category"] == 0
    assert named(split, [0, -1], "title") == ["i0  acme lamp"]
