"""Counts by definition; prompts that do not know their own events; networks that learn what is planted."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import planted_queries
import pytest

from plum_jax.corpus.features.text import embed_texts
from plum_jax.encoders.network import trunk_of
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.class_shares import ClassShares
from plum_jax.queries.words import KnownWords
from plum_jax.query_understanding.bag import BagClassifier
from plum_jax.query_understanding.behaviour import Behaviour
from plum_jax.query_understanding.catalogue import Catalogue
from plum_jax.query_understanding.classifier import NearestQueries, Npmi
from plum_jax.query_understanding.judge import Choice, best_threshold, differences, judged, level_matrix, means
from plum_jax.query_understanding.language_classifier import LanguageClassifier
from plum_jax.query_understanding.networks import BagConfig, BagNetwork
from plum_jax.query_understanding.prompts import Deal, Prompts
from plum_jax.query_understanding.similar import ByCoverage, ByText, ByWords, Conversions
from plum_jax.training.mesh import MeshShape

BAG = BagConfig(width=8, buckets=64, words=2, grams=12, dropout=0.0)


@pytest.fixture(scope="module")
def log():
    return planted_queries.log()


def test_npmi_is_its_definition(log, tmp_path):
    fitted = Npmi().fit(log, tmp_path)
    pairs = [
        (word, log.class_of_event[event])
        for event in log.training_events
        for word in log.texts[log.query[event]].split()
    ]

    def p(condition):
        return np.mean([condition(word, number) for word, number in pairs])

    def npmi(word, number):
        both = p(lambda w, c: w == word and c == number)
        if both == 0:
            return 0.0
        lift = np.log(both / (p(lambda w, c: w == word) * p(lambda w, c: c == number)))
        return max(lift / -np.log(both), 0.0)

    wanted = np.array([npmi("acme", c) + npmi("lamp", c) for c in range(log.num_classes)])
    found = fitted.shares(["acme lamp", "unheard"])
    np.testing.assert_allclose(found[0], wanted / wanted.sum(), rtol=1e-5)
    share = np.bincount([c for _, c in pairs], minlength=log.num_classes) / len(pairs)
    np.testing.assert_allclose(found[1], share, rtol=1e-5)


def cosine_of_words(first, second, known):
    def weight(word):
        return 1 + np.log(len(known) / sum(word in one.split() for one in known))

    a, b = ({word: weight(word) for word in text.split()} for text in (first, second))
    length = np.sqrt(sum(w**2 for w in a.values()) * sum(w**2 for w in b.values()))
    return sum(a[word] * b[word] for word in a if word in b) / length


def coverage(query, text, known):
    words = {word: 1 + np.log(len(known) / sum(word in one.split() for one in known)) for word in query.split()}
    return sum(weight for word, weight in words.items() if word in text.split()) / sum(words.values())


@pytest.mark.parametrize("similar", [ByWords(power=3.0), ByCoverage(power=3.0), ByText(nearest=4, power=2.0, dim=64)])
def test_neighbours_conversions_are_weighed_by_likeness(log, tmp_path, similar):
    known = [log.texts[query] for query in log.learnt_queries]
    counts = log.conversions[log.learnt_queries].toarray()
    asked = ["bolt lamp", "delta couch"]
    if not isinstance(similar, ByText):
        like = cosine_of_words if isinstance(similar, ByWords) else coverage
        likeness = np.array([[like(one, other, known) ** 3 for other in known] for one in asked])
    else:
        likeness = (embed_texts(asked, 64, "") @ embed_texts(known, 64, "").T) ** 2
        likeness[likeness < np.sort(likeness, axis=1)[:, [-4]]] = 0
    wanted = likeness @ counts
    found = NearestQueries(similar).fit(log, tmp_path).shares(asked)
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6)


def test_a_query_with_no_like_is_given_nothing(log):
    assert not Conversions(ByWords().index(["red lamp"]), log.conversions[:1]).shares(["blue sofa"]).any()
    assert Prompts.of((Behaviour(),), log)(["unheard of"]) == ["unheard of : none"]


def test_a_prompt_says_the_greatest_shares_in_tenths(log):
    behaviour = Behaviour(ByWords(power=1.0), most=2)
    (prompt,) = Prompts.of((behaviour,), log)(["lamp"])
    shares = Conversions(behaviour.index(log), log.conversions[log.learnt_queries]).shares(["lamp"])[0]
    best = np.argsort(-shares, kind="stable")[:2]
    said = ", ".join(f"{round(float(shares[c]) * 10)} {log.class_names[c].lower()}" for c in best if shares[c] >= 0.05)
    assert prompt == f"lamp : {said}"


@pytest.mark.parametrize("evidence", [(Behaviour(),), (Behaviour(), Catalogue(("title",)))], ids=["behaviour", "both"])
def test_a_training_prompt_does_not_hang_on_its_own_events(log, evidence):
    deal = Deal(parts=3)
    before = deal.training_prompts(log, Prompts.of(evidence, log))
    part = np.random.default_rng(deal.seed).integers(3, size=len(log.training_events))
    hidden = log.training_events[part == 1]
    # The items of one part's events have another class: what is to be said changes, the prompts do not.
    classes = log.class_of_event.copy()
    classes[hidden] = (classes[hidden] + 1) % log.num_classes
    other = dataclasses.replace(log)
    other.__dict__["class_of_event"] = classes
    after = deal.training_prompts(other, Prompts.of(evidence, other))
    assert (before.query == after.query).all()
    of_part = [len({*log.query[log.training_events[part == number]]}) for number in range(3)]
    rows = slice(of_part[0], of_part[0] + of_part[1])
    assert before.texts[rows] == after.texts[rows]
    assert before.texts != after.texts
    assert (before.conversions[rows] != after.conversions[rows]).nnz > 0
    counted = before.conversions.sum(axis=0)
    np.testing.assert_array_equal(counted, log.conversions.sum(axis=0))


def test_class_shares_are_the_cross_entropy_of_shares():
    class Logits(nn.Module):
        def __call__(self, batch, deterministic=True):
            return batch["x"]

    random = np.random.default_rng(0)
    x, t = random.normal(size=(3, 4)).astype(np.float32), random.dirichlet(np.ones(4), 3).astype(np.float32)
    w = np.array([1.0, 2.0, 0.5], np.float32)
    loss, weight, metrics = ClassShares().on(Logits(), MeshShape().build())(
        {}, {"x": x, "shares": t, "weight": w}, None
    )
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(loss, -(w[:, None] * t * np.log(p)).sum(), rtol=1e-5)
    assert weight == 3.5
    np.testing.assert_allclose(metrics["accuracy"][0], (w * t[np.arange(3), x.argmax(axis=1)]).sum(), rtol=1e-5)


def test_a_bag_is_the_mean_of_its_words_and_letters():
    known = KnownWords(("lamp", "red"))
    columns = BAG.columns(["red lamps"], known)
    assert columns["words"].tolist() == [[2, 0]]  # "lamps" is no known word; its letters are read
    grams = [row for row in columns["grams"][0] if row]
    assert grams == BAG._hashed("red lamps")[:12] and len(grams) == 12
    network = BagNetwork(BAG, known.size, 3)
    params = nn.unbox(network.init(jax.random.key(0), columns)["params"])
    rows = [params["words_embedding"][2], *(params["grams_embedding"][gram] for gram in grams)]
    wanted = np.mean(rows, axis=0) @ params["classes"]["kernel"] + params["classes"]["bias"]
    np.testing.assert_allclose(network.apply({"params": params}, columns)[0], wanted, atol=1e-5)


@pytest.fixture(scope="module")
def fitted(log, tmp_path_factory):
    directory = tmp_path_factory.mktemp("classifiers")
    behaviour = LanguageClassifier(
        planted_queries.MODEL, (Behaviour(most=2),), length=24, pooling="mean", schooling=planted_queries.schooling(120)
    )
    return {
        "bag": BagClassifier(BAG, planted_queries.schooling(150, 0.05)).fit(log, directory / "bag"),
        "behaviour": behaviour.fit(log, directory / "behaviour"),
    }


@pytest.mark.parametrize("name", ["bag", "behaviour"])
def test_what_is_planted_is_learnt(log, fitted, name):
    words = ["lamp", "tube", "armchair", "couch"]
    shares = fitted[name].shares([f"corona {word}" for word in words])
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    assert [log.class_names[best] for best in shares.argmax(axis=1)] == ["Lamps", "Bulbs", "Chairs", "Sofas"]
    assert fitted[name].facts["parameters"] > 0


def test_another_programs_weights_are_what_training_begins_with(log, tmp_path):
    given = planted_queries.MODEL.start([log.texts[query] for query in log.learnt_queries], tmp_path)
    sizes, random = Decoder(given.config, given.vocab_size), np.random.default_rng(0)
    one = jnp.zeros((1, 2), jnp.int32)
    params = nn.unbox(jax.jit(lambda: sizes.init(jax.random.key(0), one, one, jnp.ones((1, 2, 2), bool)))()["params"])
    params = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), params)

    @dataclasses.dataclass(frozen=True)
    class Given:
        def start(self, texts, directory):
            return dataclasses.replace(given, params=params)

    still = planted_queries.schooling(1, rate=0.0)
    fitted = LanguageClassifier(Given(), length=8, schooling=still).fit(log, tmp_path / "given")
    jax.tree.map(np.testing.assert_array_equal, trunk_of(fitted.params["encoder"]), params)


def test_figures_are_by_definition(log, fitted):
    found = judged(log, fitted["bag"])
    asked, truth = log.truth("test")
    shares = fitted["bag"].shares([log.texts[query] for query in asked])
    for row in range(len(asked)):
        order = np.argsort(-shares[row])
        given = {order[0], *(c for c in order[:5] if shares[row, c] >= found.threshold)}
        wanted = {*np.flatnonzero(truth[row])}
        assert found.values["precision"][row] == pytest.approx(len(given & wanted) / len(given))
        assert found.values["recall"][row] == pytest.approx(len(given & wanted) / len(wanted))
        assert found.values["hit@1"][row] == (order[0] in wanted)
    row = means(log, found)
    seen = log.frequency[asked] > 0
    assert row["new_queries"] == (~seen).sum()
    assert row["all_hit@1"] == pytest.approx(found.values["hit@1"].mean())
    assert set(differences(log, found, found, "itself").values()) == {0.0}


def test_a_threshold_and_a_level_are_what_they_say(log):
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    assert Choice(0.25, most=1).of(shares).tolist() == [[True, False, False], [False, False, True]]
    assert Choice(0.25).of(shares).tolist() == [[True, True, False], [False, False, True]]
    assert Choice(0.9).of(shares).sum() == 2
    truth = np.array([[True, True, False], [False, False, True]])
    assert best_threshold(shares, truth) == pytest.approx(0.25)
    upwards = level_matrix(log, 2)
    for one, row in zip(log.classes, upwards, strict=True):
        same = [other for other in log.classes if log.taxonomy.at_level(2)[other] == log.taxonomy.at_level(2)[one]]
        assert row.sum() == 1 and (upwards @ row).sum() == len(same)
    assert jnp.shape(upwards) == (4, 2)
