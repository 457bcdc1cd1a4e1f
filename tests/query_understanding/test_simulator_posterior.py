"""What the simulation says of a query's classes, against queries that it has drawn."""

import collections

import numpy as np
import planted_queries
import pytest

from plum_jax.corpus.taxonomy import ItemCategories
from plum_jax.queries.known_item import KnownItemQueries
from plum_jax.query_understanding.log import QueryLogConfig
from plum_jax.query_understanding.posterior import SimulatorPosterior


@pytest.mark.parametrize("lengths", [(0.5, 0.5), (0.2, 0.3, 0.5)])
def test_shares_are_how_often_a_query_was_drawn_for_items_of_a_class(tmp_path, lengths):
    queries = KnownItemQueries(("title", "colour"), lengths=lengths, noise=0.2)
    corpus = planted_queries.corpus()
    colours = [("red", "green blue", "", "red gold")[row % 4] for row in range(corpus.num_items)]
    corpus = planted_queries.with_text(corpus, "colour", colours)
    log = QueryLogConfig(queries, ItemCategories("path")).of(planted_queries.split(corpus))
    fitted = SimulatorPosterior(queries, unseen=2.0).fit(log, tmp_path)
    taken = np.bincount(corpus.events["item"].to_numpy()[log.training_events], minlength=corpus.num_items) + 2.0
    items = np.random.default_rng(1).choice(corpus.num_items, size=200_000, p=taken / taken.sum())
    drawn = queries.for_items(corpus, items, "test")
    counts = collections.defaultdict(lambda: np.zeros(log.num_classes))
    for query, item in zip(drawn.of_event, items, strict=True):
        counts[drawn.texts[query]][log.class_of_item[item]] += 1
    # In queries of fewer words than were drawn one word was drawn twice; of one length they are all there are.
    often = {text: of_class for text, of_class in counts.items() if of_class.sum() > 800}
    assert {len(text.split()) for text in often} == set(range(1, len(lengths) + 1))
    shares = fitted.shares(list(often))
    for (text, of_class), found in zip(often.items(), shares, strict=True):
        sigma = np.sqrt(found * (1 - found) / of_class.sum())
        repeated = 0.02 if len(text.split()) < len(lengths) else 0.0
        np.testing.assert_allclose(of_class / of_class.sum(), found, atol=(4 * sigma + 1e-3 + repeated).max())


def test_what_cannot_have_been_drawn_has_the_prior(tmp_path):
    log = planted_queries.log()  # no title has a third word
    fitted = SimulatorPosterior(KnownItemQueries(("title",), lengths=(0.4, 0.4, 0.2))).fit(log, tmp_path)
    prior = fitted.shares(["unheard", "acme corona lamp"])
    np.testing.assert_allclose(prior[0], prior[1])
    np.testing.assert_allclose(prior.sum(axis=1), 1.0, rtol=1e-5)
    assert fitted.facts["train_seconds"] >= 0
