"""Items held out of training: nothing learns from them, evaluations ask for them, a frozen codec gives their IDs."""

import numpy as np
import polars as pl
import pytest
from small_corpora import corpus_of

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.new_items import HoldOutItems
from plum_jax.corpus.splits import NOT_LEARNT, TEST, TRAIN, VALIDATION, LeaveOneOut, SplitError
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans
from plum_jax.systems.popularity import Popularity


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    drawn = [[(int(item), 10 * n) for n, item in enumerate(rng.permutation(8)[:6])] for _ in range(30)]
    return corpus_of(drawn, num_items=8)


@pytest.fixture(scope="module")
def split(corpus):
    return HoldOutItems(LeaveOneOut(), share=0.25, seed=1).split(corpus)


def test_their_events_leave_training_and_stay_in_histories(corpus, split):
    plain = LeaveOneOut().split(corpus)
    items = corpus.events["item"].to_numpy()
    new = split.held_out_items[items]
    assert split.held_out_items.sum() == round(0.25 * corpus.num_items)
    np.testing.assert_array_equal(split.fold[~new], plain.fold[~new])
    np.testing.assert_array_equal(split.fold[new], np.where(plain.fold[new] == TRAIN, NOT_LEARNT, plain.fold[new]))
    assert not split.held_out_items[split.training_events()["item"].to_numpy()].any()
    for fold in ("validation", "test"):
        expected, found = plain.evaluation(fold), split.evaluation(fold)
        np.testing.assert_array_equal(found.target_item, expected.target_item)
        np.testing.assert_array_equal(found.history_items, expected.history_items)
    assert {VALIDATION, TEST} <= set(split.fold.tolist())


def test_learning_from_one_of_their_events_is_a_leak(corpus, split):
    row = int(np.flatnonzero(split.fold == NOT_LEARNT)[0])
    events = corpus.events[[row]].with_columns(pl.Series("event", [row], dtype=pl.Int64))
    with pytest.raises(LeakError, match="held out for evaluation"):
        split.check_no_leak(events, used_by="a test")


def test_they_have_no_popularity_and_the_baseline_never_names_them_before_others(split):
    assert not split.item_popularity[split.held_out_items].any()
    lists = Popularity().recommend(split, split.evaluation("test"), int((~split.held_out_items).sum()))
    assert not split.held_out_items[lists.items].any()


def test_codebooks_do_not_see_them_and_their_codes_come_from_the_frozen_codec(split, tmp_path):
    rng = np.random.default_rng(2)
    num_items = split.corpus.num_items
    values = rng.normal(size=(num_items, 4)).astype(np.float32)
    quantizer = ResidualKMeans(codebook_sizes=(3, 2), iterations=3)

    def quantize(values):
        features = ItemFeatures((FeatureBlock("text", values, np.ones(num_items, bool)),))
        return quantizer.quantize(features, split, tmp_path)

    first = quantize(values)
    moved = values.copy()
    moved[split.held_out_items] *= -3
    second = quantize(moved)
    for one, other in zip(first.codec.codebooks, second.codec.codebooks, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first.codes[split.learnt_items], second.codes[split.learnt_items])
    np.testing.assert_array_equal(first.codes, first.codec.assign(first.latents).codes)


def test_the_draw_is_the_seeds_and_another_split_to_all_that_follows(corpus, split):
    again = HoldOutItems(LeaveOneOut(), share=0.25, seed=1).split(corpus)
    assert again.fingerprint == split.fingerprint != LeaveOneOut().split(corpus).fingerprint


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001])
def test_shares_that_hold_out_nothing_or_all_are_refused(corpus, share):
    with pytest.raises(SplitError, match=f"holds out one or more of {corpus.num_items} items and not all, got {share}"):
        HoldOutItems(LeaveOneOut(), share=share).split(corpus)
