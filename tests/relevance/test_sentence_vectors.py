"""A bi-encoder that reads a language model's vectors of texts: whose they are, that they are kept, what they cost."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
import small_bert
import small_judgements
from small_judgements import some_pairs

from plum_jax import artifact
from plum_jax.corpus.features.text import embed_texts
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.network import TextEncoder
from plum_jax.encoders.text_vectors import TextVectors
from plum_jax.model.int8 import size_in_bytes
from plum_jax.relevance.bi_encoder import BiEncoder
from plum_jax.relevance.bi_network import MATCH_SCALE
from plum_jax.relevance.model import RelevanceModel
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear
from plum_jax.training.training_config import TrainingConfig

STATIC = 16
TRAINING = TrainingConfig(steps=60, optimizer=AdamW(WarmupLinear(1e-2, 4)), tensorboard=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_judgements.data(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    bert = small_bert.write(tmp_path_factory.mktemp("bert"), small_judgements.WORDS)
    return BiEncoder(8, 16, word_dim=16, text_dim=STATIC, language_model=LanguageModel(pretrained=str(bert)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def student(data, encoder, run):
    return RelevanceModel(encoder, training=TRAINING).fit(data, run, "student", {})


def test_behind_the_static_vectors_stand_the_mean_states_of_query_and_item(data, student):
    reader, start = student.reader, student.reader.sentences.start
    network = TextEncoder(start.config, start.vocab_size, "mean")
    for texts, read in ((data.judged.queries, reader.queries), (data.judged.texts, reader.items)):
        np.testing.assert_array_equal(read.vectors[:, :STATIC], embed_texts(texts, STATIC, ""))
        states = np.asarray(network.apply({"params": start.encoder_params}, *start.rows(texts, 12)))
        expected = states / np.linalg.norm(states, axis=1, keepdims=True)
        np.testing.assert_allclose(read.vectors[:, STATIC:], expected, atol=1e-5)


@pytest.mark.parametrize(("number", "part"), [(9, slice(None, STATIC)), (10, slice(STATIC, None))])
def test_the_head_reads_the_cosine_of_either_kind(student, number, part):
    pairs, reader = some_pairs(), student.reader
    params = jax.tree.map(np.zeros_like, student.params)
    params["interaction"]["kernel"][number, 0] = params["head"]["kernel"][0, 0] = 1.0
    query, item = reader.queries.vectors[pairs.query, part], reader.items.vectors[pairs.item, part]
    expected = np.maximum(MATCH_SCALE * np.sum(query * item, axis=1), 0)
    logits = reader.network.apply({"params": params}, reader.columns(reader.queries, pairs))
    np.testing.assert_allclose(logits[:, 0], expected, atol=1e-5)


def test_a_query_of_its_own_has_the_logits_that_it_has_among_the_data(data, student):
    pairs, reader = some_pairs(), student.reader
    kept = student.scorer.logits(reader.queries, pairs)
    np.testing.assert_allclose(student.scorer.logits(reader.read_queries(data.judged.queries), pairs), kept, atol=1e-4)
    for row in range(len(pairs)):
        levels = student.levels(data.judged.queries[pairs.query[row]], pairs.item[row : row + 1])
        np.testing.assert_allclose(levels, data.classes.expected(kept[row : row + 1]), atol=1e-4)
    label = data.pairs("test").label
    assert (student.logits("test").argmax(1) == label).mean() > 0.6 > np.bincount(label).max() / len(label)


def test_vectors_are_computed_once_a_run_and_for_each_request(data, encoder, run, student, monkeypatch):
    asked = []
    of = TextVectors.of
    monkeypatch.setattr(TextVectors, "of", lambda self, texts: (asked.append(len(texts)), of(self, texts))[1])
    other = RelevanceModel(encoder, training=dataclasses.replace(TRAINING, steps=2, seed=1))
    for _ in range(2):  # the second is read whole
        fitted = other.fit(data, run, "other", {"student": student})
    np.testing.assert_array_equal(fitted.reader.items.vectors, student.reader.items.vectors)
    fitted.logits("test")
    assert asked == []
    fitted.levels("steel hose", np.arange(3))
    assert asked == [1]


def test_a_killed_writer_leaves_nothing_that_is_read(encoder, tmp_path, monkeypatch):
    vectors, texts = TextVectors(encoder.language_model.start((), tmp_path)), ["red lamp", "steel hose", "drill"]

    def killed(file, found):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            vectors.kept(texts, tmp_path)
    np.testing.assert_array_equal(vectors.kept(texts, tmp_path), vectors.of(texts))
    np.testing.assert_array_equal(vectors.kept(texts[:1], tmp_path), vectors.of(texts[:1]))  # of other texts


def test_what_serving_takes_is_counted_with_the_language_model(student):
    start = student.reader.sentences.start
    assert size_in_bytes(student.served_params) == size_in_bytes(student.params) + size_in_bytes(start.params)


def test_without_a_language_model_all_is_as_it_was_before_there_was_one(data, tmp_path):
    plain = BiEncoder(8, 16, word_dim=16, text_dim=STATIC)
    assert {*artifact.describe(plain)} == {
        "type",
        "width",
        "hidden",
        "word_dim",
        "text_dim",
        "query_words",
        "item_words",
        "dropout",
    }  # so that checkpoints of runs from before are taken
    reader = plain.reader(data.judged, 3, tmp_path, tmp_path)
    assert reader.reading_params == {} and not [*tmp_path.iterdir()]
    params = nn.unbox(reader.initial(reader.network, None, jax.random.key(0)))
    assert params["item_layer"]["kernel"].shape == (16 + STATIC, 8)
    assert params["interaction"]["kernel"].shape == (8 + 2 + 6, 16)  # product, cosines, matches


def test_a_language_model_without_weights_is_refused(data, encoder, tmp_path):
    random = dataclasses.replace(encoder.language_model, weights=False)
    with pytest.raises(ValueError, match="expected a language model with imported weights"):
        dataclasses.replace(encoder, language_model=random).reader(data.judged, 3, tmp_path, tmp_path)
