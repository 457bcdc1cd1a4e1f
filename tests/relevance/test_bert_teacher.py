"""A BERT as a cross-encoder: what it reads of a pair, and that it is scored, pruned and quantised as a decoder is."""

import dataclasses

import jax
import numpy as np
import pytest
import small_bert
import small_judgements
from small_judgements import some_pairs

from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.network import TextEncoder, trunk_of
from plum_jax.relevance.baselines import language_model_cosine
from plum_jax.relevance.cross_encoder import CrossEncoder
from plum_jax.relevance.model import RelevanceModel
from plum_jax.relevance.pruning import GradualPruning, depth_of
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear
from plum_jax.training.training_config import TrainingConfig

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Data, a directory, and a trained teacher."""
    directory = tmp_path_factory.mktemp("bert")
    small_bert.write(directory, small_judgements.WORDS)
    language_model = LanguageModel(pretrained=str(directory), dropout_rate=0.0)
    data = small_judgements.data(tmp_path_factory.mktemp("search"))
    training = TrainingConfig(steps=40, optimizer=AdamW(WarmupLinear(1e-2, 4)), tensorboard=False)
    model = RelevanceModel(CrossEncoder(language_model, query_length=8, item_length=12), training=training)
    run = tmp_path_factory.mktemp("run")
    return data, run, model, model.fit(data, run, "teacher", {})


def test_a_pair_is_two_texts_between_marks_and_the_second_is_of_another_type(world):
    data, _, _, teacher = world
    reader, pairs, text = teacher.reader, some_pairs(), teacher.reader.start.text
    batch = reader.columns(reader.read_queries(data.judged.queries), pairs)
    for row, (query, item) in enumerate(zip(pairs.query, pairs.item, strict=True)):
        of_query = [CLS, *text.encode(data.judged.queries[query]), SEP]
        of_item = [*text.encode(data.judged.texts[item]), SEP]
        length = batch["lengths"][row]
        assert batch["tokens"][row, :length].tolist() == [*of_query, *of_item]
        assert batch["query_lengths"][row] == len(of_query)
    table = trunk_of(teacher.params["encoder"])["type_embedding"]
    params = jax.tree.map(np.array, teacher.params)
    trunk_of(params["encoder"])["type_embedding"] = table[::-1]
    network = reader.network
    assert np.abs(network.apply({"params": params}, batch) - network.apply({"params": teacher.params}, batch)).max() > 0


def test_it_learns_and_a_pair_has_the_logits_that_it_has_alone_and_in_the_network(world):
    data, _, _, teacher = world
    label = data.pairs("test").label
    assert (teacher.logits("test").argmax(1) == label).mean() > 0.6 > np.bincount(label).max() / len(label)
    pairs, queries = some_pairs(), teacher.reader.read_queries(data.judged.queries)
    together = teacher.scorer.logits(queries, pairs)
    of_network = teacher.reader.network.apply({"params": teacher.params}, teacher.reader.columns(queries, pairs))
    np.testing.assert_allclose(together, of_network, atol=1e-4)
    for row in range(len(pairs)):
        np.testing.assert_allclose(
            teacher.scorer.logits(queries, pairs.of(np.array([row])))[0], together[row], atol=1e-4
        )


def test_pruned_at_nothing_it_is_the_whole_and_pruned_by_one_it_goes_on(world):
    data, run, model, teacher = world
    whole = dataclasses.replace(model, pruning=GradualPruning(2, first=0.5)).fit(data, run, "unpruned", {})
    jax.tree.map(np.testing.assert_array_equal, whole.params, teacher.params)
    pruning = dataclasses.replace(model, start="teacher", pruning=GradualPruning(1))
    pruned = pruning.fit(data, run, "pruned", {"teacher": teacher})
    assert depth_of(pruned.params) == 1 and len(pruned.facts["layers_gone"]) == 1
    assert pruned.logits("test").shape == teacher.logits("test").shape


def test_8_bits_move_its_logits_little(world):
    _, _, _, teacher = world
    exact = teacher.logits("test")
    assert 0 < np.abs(teacher.int8().logits("test") - exact).max() <= 0.02 * np.ptp(exact)


def test_untrained_its_cosine_is_that_of_the_mean_states(world, tmp_path):
    data, _, _, teacher = world
    start, pairs = teacher.reader.start, some_pairs()
    of_data = data.judged.queries, data.judged.texts
    found = language_model_cosine(start, *of_data, pairs, tmp_path)
    encoder = TextEncoder(start.config, start.vocab_size, "mean")
    for row, (query, item) in enumerate(zip(pairs.query, pairs.item, strict=True)):
        texts = start.rows([data.judged.queries[query], data.judged.texts[item]], 12)
        one, two = np.asarray(encoder.apply({"params": start.encoder_params}, *texts))
        np.testing.assert_allclose(found[row], one @ two / np.linalg.norm(one) / np.linalg.norm(two), atol=1e-5)
    with pytest.raises(ValueError, match="expected a language model with imported weights"):
        language_model_cosine(dataclasses.replace(start, params=None), *of_data, pairs, tmp_path)
