"""What items' texts say of a query: neighbours by definition, prompts, and items that nobody has taken."""

import dataclasses

import numpy as np
import planted_queries
import polars as pl
import pytest

from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.corpus.taxonomy import ItemCategories
from plum_jax.queries.known_item import KnownItemQueries
from plum_jax.query_understanding.bag import BagClassifier
from plum_jax.query_understanding.behaviour import Behaviour
from plum_jax.query_understanding.catalogue import Catalogue
from plum_jax.query_understanding.classifier import NearestItems
from plum_jax.query_understanding.language_classifier import LanguageClassifier
from plum_jax.query_understanding.log import QueryLogConfig
from plum_jax.query_understanding.networks import BagConfig
from plum_jax.query_understanding.prompts import Deal, Prompts
from plum_jax.query_understanding.similar import ByCoverage

CATALOGUE = Catalogue(("title",))
NEW = {"acme kettle": "Shop > Light > Lamps", "bolt stool": "Shop > Seats > Chairs", "delta bench": ""}


@pytest.fixture(scope="module")
def log():
    """The planted shop with three more items, which nobody has taken; one stands under no category."""
    corpus = planted_queries.corpus()
    more = pl.DataFrame({"item_id": [*"xyz"], "title": [*NEW], "path": [*NEW.values()]})
    corpus = dataclasses.replace(corpus, items=pl.concat([corpus.items, more]))
    queries = KnownItemQueries(("title",), lengths=(0.5, 0.5), noise=0.0)
    return QueryLogConfig(queries, ItemCategories("path")).of(LeaveOneOut().split(corpus))


def names(log, shares):
    return [log.class_names[best] for best in shares.argmax(axis=1)]


@pytest.mark.parametrize("popularity", [0.0, 1.0])
def test_nearest_items_are_weighed_by_the_words_that_they_have_and_by_how_often_they_were_taken(
    log, tmp_path, popularity
):
    catalogue = Catalogue(("title",), ByCoverage(power=1.0), popularity=popularity)
    texts = catalogue.texts(log)
    assert len(texts) == log.split.corpus.num_items - 1 and "delta bench" not in texts
    likeness = ByCoverage(power=1.0).index(texts).similarities(["acme lamp"]).toarray()[0]
    taken = log.split.corpus.events["item"].to_numpy()[log.training_events]
    wanted = np.zeros(log.num_classes)
    for text, like in zip(texts, likeness, strict=True):
        item = log.split.corpus.items["title"].to_list().index(text)
        wanted[log.class_of_item[item]] += like * (1 + (taken == item).sum()) ** popularity
    fitted = NearestItems(catalogue).fit(log, tmp_path)
    np.testing.assert_allclose(fitted.shares(["acme lamp"])[0], wanted / wanted.sum(), rtol=1e-5)
    assert names(log, fitted.shares(["kettle", "stool"])) == ["Lamps", "Chairs"]


@pytest.mark.parametrize(
    ("evidence", "said"),
    [((Behaviour(), CATALOGUE), "kettle : none ; 10 lamps"), ((CATALOGUE,), "kettle : 10 lamps"), ((), "kettle")],
)
def test_a_prompt_says_each_evidence_in_order(log, evidence, said):
    assert Prompts.of(evidence, log)(["kettle"]) == [said]


def test_a_language_model_is_trained_on_such_prompts(log, tmp_path):
    class Read(Exception):
        pass

    class Model:
        def start(self, texts, directory):
            raise Read(texts)

    evidence = (Behaviour(), CATALOGUE)
    with pytest.raises(Read) as read:
        LanguageClassifier(Model(), evidence).fit(log, tmp_path)
    assert read.value.args == (Deal().training_prompts(log, Prompts.of(evidence, log)).texts,)
    assert all(prompt.count(" ; ") == 1 for prompt in read.value.args[0])


def test_a_bag_learns_words_of_items_that_nobody_has_taken(log, tmp_path):
    new = [query for query, text in enumerate(log.texts) if "kettle" in text or "stool" in text]
    assert not log.frequency[new].any()
    network = BagConfig(width=8, buckets=64, words=2, grams=12, dropout=0.0)
    fitted = BagClassifier(network, planted_queries.schooling(150, 0.05), CATALOGUE).fit(log, tmp_path)
    assert names(log, fitted.shares(["kettle", "stool", "corona couch"])) == ["Lamps", "Chairs", "Sofas"]
