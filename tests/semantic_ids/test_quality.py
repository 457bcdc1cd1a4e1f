"""The quality report against counting by hand, over all pairs."""

import itertools

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.features import ItemFeatures
from plum_jax.semantic_ids.quality import co_watch_prefix_overlap, code_usage, prefix_cosine, prefix_purity, quality
from plum_jax.semantic_ids.table import SidTable, number_prefixes

CODES = np.array([[0, 0], [0, 0], [0, 1], [0, 1], [1, 0], [2, 0], [2, 1], [0, 1]])
SIZES = (4, 2)
PREFIXES = number_prefixes(CODES, SIZES)[1]


def pairs_sharing(length: int) -> list[tuple[int, int]]:
    pairs = itertools.combinations(range(len(CODES)), 2)
    return [(a, b) for a, b in pairs if (CODES[a, :length] == CODES[b, :length]).all()]


def test_counts():
    report = quality(SidTable.create(CODES, SIZES, [str(i) for i in range(8)]))
    assert report["unique_sids"] == 5
    assert report["uniqueness"] == 3 / 8
    assert report["max_items_per_sid"] == 3
    assert report["distinct_prefixes"] == [3, 5]


def test_usage_and_perplexity():
    first, second = code_usage(CODES, SIZES)
    share = np.array([5, 1, 2]) / 8
    assert (first["level"], first["size"], first["used"], first["usage"]) == ("A", 4, 3, 0.75)
    assert first["perplexity"] == pytest.approx(np.prod(share**-share))
    assert second["perplexity"] == pytest.approx(2)  # both codes are used alike
    assert code_usage(np.zeros((5, 1), int), (3,))[0]["perplexity"] == pytest.approx(1)


def test_cosine_is_the_mean_over_all_pairs_of_present_items():
    values = np.random.default_rng(0).normal(size=(8, 4))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    present = np.arange(8) != 1
    cosine = prefix_cosine(PREFIXES, values.astype(np.float32), present)
    for length, measured in ((0, cosine["at_random"][0]), (1, cosine["by_prefix"][0]), (2, cosine["by_prefix"][1])):
        expected = [values[a] @ values[b] for a, b in pairs_sharing(length) if present[a] and present[b]]
        assert measured == pytest.approx(np.mean(expected), abs=1e-6)


def test_co_watch_overlap_is_weighted_by_count():
    pairs = pl.DataFrame({"item_a": [0, 0, 4], "item_b": [1, 2, 5], "count": [5, 3, 2]})
    overlap = co_watch_prefix_overlap(PREFIXES, pairs)
    assert overlap["by_prefix"] == [0.8, 0.5]
    assert overlap["at_random"] == pytest.approx([len(pairs_sharing(1)) / 28, len(pairs_sharing(2)) / 28])


def test_purity_of_one_label():
    labels = pl.Series(["a", "a", "b", "b", "c", "d", "e", None])
    # Prefix A0: a a b b, two of four agree; A1 is alone; A2: d e, one of two. Prefixes of two: a a and b b.
    assert prefix_purity(PREFIXES, labels)["by_prefix"] == [3 / 6, 1.0]


def test_purity_of_several_labels_leaves_out_what_most_items_have():
    labels = pl.Series([["x", "a"], ["x", "a"], ["x", "a", "b"], ["x", "b"], ["x", "c"], ["x", "d"], ["x", "d"], None])
    # A0: items 0 1 2 of four have "a"; A2: both have "d". A0 B0: both "a"; A0 B1: both "b".
    assert prefix_purity(PREFIXES, labels)["by_prefix"] == [5 / 6, 1.0]


def test_chance_is_below_planted_purity(split, features):
    codes = np.stack([np.arange(120) % 6, np.arange(120) // 6 % 4], axis=1)
    table = SidTable.create(codes, (6, 4), split.corpus.items["item_id"].to_list())
    report = quality(table, features=features, categories=split.corpus.items.select("genre", "tags"))
    purity = report["prefix_purity"]["genre"]
    assert purity["by_prefix"][0] == 1
    assert purity["at_random"][0] < 0.5
    cosine = report["prefix_cosine"]["text"]
    assert cosine["by_prefix"][0] > 0.5 + cosine["at_random"][0]


def test_unique_sids_have_no_pairs_to_speak_of(features: ItemFeatures):
    table = SidTable.create(np.arange(120)[:, None], (120,), [str(i) for i in range(120)])
    report = quality(table, features=features, categories=pl.DataFrame({"genre": ["a"] * 120}))
    assert report["prefix_cosine"]["text"]["by_prefix"] == [None]
    assert report["prefix_purity"]["genre"]["by_prefix"] == [None]
