"""Queries are words of the item, as often as tf idf says; the log counts what training events alone say."""

import numpy as np
import planted_queries
import pytest

from plum_jax.corpus.splits import FOLDS, TRAIN
from plum_jax.corpus.taxonomy import ItemCategories
from plum_jax.queries.known_item import KnownItemQueries
from plum_jax.query_understanding.log import HEAD, TAIL, TORSO, QueryLogConfig


@pytest.fixture(scope="module")
def log():
    return planted_queries.log(noise=0.2, unlabelled=50)


def test_without_noise_a_query_is_words_of_its_item_in_order():
    corpus = planted_queries.corpus()
    found = KnownItemQueries(("title",), lengths=(0.4, 0.6), noise=0.0).of(corpus)
    titles = corpus.items["title"].gather(corpus.events["item"]).to_list()
    for number, title in zip(found.of_event, titles, strict=True):
        words = found.texts[number].split()
        places = [title.split().index(word) for word in words]
        assert places == sorted(places) and len({*words}) == len(words) <= 2
    assert list(found.texts) == sorted({*found.texts})


def test_words_are_drawn_by_how_rare_they_are_and_noise_by_how_frequent():
    corpus = planted_queries.corpus()
    item = np.zeros(20_000, np.int32)  # "acme lamp": acme is in 8 of 32 titles, lamp in 4
    found = KnownItemQueries(("title",), lengths=(1.0,), noise=0.0).for_items(corpus, item, "test")
    share = np.mean(np.array(found.texts)[found.of_event] == "lamp")
    wanted = np.log(32 / 4) / (np.log(32 / 4) + np.log(32 / 8))
    assert share == pytest.approx(wanted, abs=0.015)
    noisy = KnownItemQueries(("title",), lengths=(1.0,), noise=1.0).for_items(corpus, item, "test")
    words = np.array(noisy.texts)[noisy.of_event]
    assert np.mean(words == "acme") == pytest.approx(8 / 64, abs=0.015)
    assert np.mean(words == "sofa") == pytest.approx(4 / 64, abs=0.015)


def test_the_draw_follows_from_the_seed_alone():
    corpus = planted_queries.corpus()
    first, again, other = (KnownItemQueries(("title",), seed=seed).of(corpus) for seed in (0, 0, 1))
    assert first.texts == again.texts and (first.of_event == again.of_event).all()
    texts = [np.array(one.texts)[one.of_event] for one in (first, other)]
    assert (texts[0] != texts[1]).mean() > 0.2


def test_counts_are_of_training_events_alone(log):
    events = log.split.corpus.events["item"].to_numpy()
    wanted = np.zeros((len(log.texts), log.num_classes))
    for row in np.flatnonzero(log.split.fold == TRAIN):
        wanted[log.query[row], log.class_of_item[events[row]]] += 1
    np.testing.assert_array_equal(log.conversions.toarray(), wanted)
    asked, truth = log.truth("test")
    rows = np.flatnonzero(log.split.fold == FOLDS["test"])
    assert {*asked} == {*log.query[rows]}
    for query, of_query in zip(asked, truth, strict=True):
        assert {*np.flatnonzero(of_query)} == {log.class_of_event[row] for row in rows if log.query[row] == query}
    assert len(log.truth("test", 5)[0]) == 5
    assert {word for text in log.unlabelled for word in text.split()} <= {w for t in log.texts for w in t.split()}


def test_head_and_torso_make_a_third_each_at_most_and_equals_are_of_one_band(log):
    total = log.frequency.sum()
    for query, frequency in enumerate(log.frequency):
        made = log.frequency[log.frequency >= frequency].sum() / total
        band = HEAD if made <= 1 / 3 else TORSO if made <= 2 / 3 else TAIL
        assert log.band[query] == (TAIL if frequency == 0 else band)
    assert {*log.band} == {HEAD, TORSO, TAIL} and (log.frequency == 0).any()


def test_settings_that_give_the_category_away_or_are_no_shares_are_refused():
    with pytest.raises(ValueError, match="a query would say its category"):
        QueryLogConfig(KnownItemQueries(("title", "path")), ItemCategories("path"))
    with pytest.raises(ValueError, match="expected lengths that add to 1"):
        KnownItemQueries(("title",), lengths=(0.5, 0.4))
