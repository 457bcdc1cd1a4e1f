"""Teachers, assistants and students on a miniature: what is read, what pruning and 8 bits leave, what is learnt."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_judgements
from etils import epath
from small_judgements import some_pairs

from plum_jax.encoders.language_model import SMALL, LanguageModel
from plum_jax.encoders.network import trunk_of
from plum_jax.jobs.relevance import train_and_judge
from plum_jax.model.int8 import Int8Weights, size_in_bytes
from plum_jax.relevance.bi_encoder import BiEncoder
from plum_jax.relevance.cross_encoder import CrossEncoder
from plum_jax.relevance.cross_network import kinds_of_tokens
from plum_jax.relevance.fitted import HEAD
from plum_jax.relevance.model import RelevanceModel
from plum_jax.relevance.pairs import NearPairs, Pairs
from plum_jax.relevance.pruning import GradualPruning, depth_of, importance, without_layer
from plum_jax.relevance.speed import CANDIDATES, speed_of
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear
from plum_jax.training.training_config import TrainingConfig

NANO = dataclasses.replace(SMALL, num_layers=2, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=24)
CROSS = CrossEncoder(LanguageModel(decoder=NANO, num_pieces=285, dropout_rate=0.0), query_length=8, item_length=20)
BI = BiEncoder(width=8, hidden=16, word_dim=16, text_dim=16)
INT8_BOUND = 0.02  # of the logits' range, by which 8 bits may move a logit


def training(steps):
    return TrainingConfig(steps=steps, optimizer=AdamW(WarmupLinear(1e-2, 4)), tensorboard=False)


TEACHER = RelevanceModel(CROSS, training=training(40), batch_size=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_judgements.data(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def teacher(data, directory):
    return TEACHER.fit(data, directory, "teacher", {})


@pytest.fixture(scope="module")
def student(data, directory, teacher):
    model = RelevanceModel(BI, teacher="teacher", training=training(60), batch_size=64)
    return model.fit(data, directory, "student", {"teacher": teacher})


def test_a_pair_is_the_pieces_of_the_query_and_then_of_the_item(data, teacher):
    reader, pairs, text = teacher.reader, some_pairs(), teacher.reader.start.text
    queries = reader.read_queries(data.judged.queries)
    batch = reader.columns(queries, pairs)
    for row, (query, item) in enumerate(zip(pairs.query, pairs.item, strict=True)):
        of_query = text.encode(f" {data.judged.queries[query].lower()}\n")[:8]
        of_item = [*text.encode(f" {data.judged.texts[item].lower()}")[:19], text.special_ids.eos]
        length = batch["lengths"][row]
        assert batch["tokens"][row, :length].tolist() == [*of_query, *of_item]
        assert not batch["tokens"][row, length:].any() and batch["query_lengths"][row] == len(of_query)
    assert (reader.lengths(queries, pairs) == batch["lengths"]).all()


def test_kinds_of_tokens_are_told_by_the_other_text():
    tokens = jnp.array([[5, 6, 7, 6, 8, 9, 0, 0]])
    kinds = kinds_of_tokens(tokens, jnp.array([6]), jnp.array([3]))[0]
    assert kinds.tolist() == [
        [0, 1, 0, 0, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0],
    ]


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_a_pair_has_the_logits_that_it_has_alone_and_in_the_network(name, data, request):
    fitted, pairs = request.getfixturevalue(name), some_pairs()
    queries = fitted.reader.read_queries(data.judged.queries)
    together = fitted.scorer.logits(queries, pairs)
    network = fitted.reader.network
    of_network = network.apply({"params": fitted.params}, fitted.reader.columns(queries, pairs))
    np.testing.assert_allclose(together, of_network, atol=1e-4)
    for row in range(len(pairs)):
        alone = fitted.scorer.logits(queries, pairs.of(np.array([row])))
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)
    query = data.judged.queries[pairs.query[0]]
    levels = fitted.levels(query, pairs.item[:3])
    again = Pairs(np.repeat(pairs.query[:1], 3), pairs.item[:3], np.zeros(3, np.int32))
    np.testing.assert_allclose(levels, data.classes.expected(fitted.scorer.logits(queries, again)), atol=1e-4)


def test_teacher_and_student_learn_and_the_student_comes_near_its_teacher(data, teacher, student):
    pairs = data.pairs("test")
    for fitted in (teacher, student):
        assert (
            (fitted.logits("test").argmax(1) == pairs.label).mean() > 0.6 > np.bincount(pairs.label).max() / len(pairs)
        )
    near = np.corrcoef(*(data.classes.expected(fitted.logits("unlabelled")) for fitted in (teacher, student)))[0, 1]
    assert near > 0.7
    assert student.facts["pairs"] == len(data.train) + len(data.unlabelled) and student.facts["teacher"] == "teacher"


def test_logits_are_kept_and_made_again_of_other_parameters(data, teacher):
    kept = teacher.directory / "logits" / "validation"
    first, made = teacher.logits("validation"), (kept / "manifest.json").read_text()
    np.testing.assert_array_equal(teacher.logits("validation"), first)
    assert (kept / "manifest.json").read_text() == made
    other = dataclasses.replace(teacher, params=jax.tree.map(lambda x: x * 0.5, teacher.params))
    assert np.abs(other.logits("validation") - first).max() > 0.01
    np.testing.assert_array_equal(teacher.logits("validation"), first)


def test_pruned_at_nothing_is_the_whole_bit_for_bit(data, directory, teacher):
    model = dataclasses.replace(TEACHER, pruning=GradualPruning(layers=2, first=0.5))
    whole = model.fit(data, directory, "unpruned", {})
    jax.tree.map(np.testing.assert_array_equal, whole.params, teacher.params)
    assert "layers_gone" not in whole.facts


def test_a_layer_that_adds_nothing_goes_first_and_nobody_sees_it(data, teacher):
    quiet = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 if "layer_0" in str(path) and ("out" in str(path) or "down" in str(path)) else leaf,
        teacher.params,
    )
    queries, pairs = teacher.reader.read_queries(data.judged.queries), some_pairs()
    found = importance(teacher.reader.network, quiet, teacher.reader.columns(queries, pairs))
    assert found[0] == pytest.approx(0, abs=1e-5) and found[1] > 1e-3
    pruned = without_layer(quiet, 0)
    assert depth_of(pruned) == 1
    np.testing.assert_allclose(
        teacher.reader.scorer(pruned).logits(queries, pairs),
        teacher.reader.scorer(quiet).logits(queries, pairs),
        atol=1e-5,
    )


def test_a_pruned_model_begins_with_its_start_and_says_which_layers_went(data, directory, teacher):
    model = dataclasses.replace(TEACHER, start="teacher", pruning=GradualPruning(1), training=training(10))
    pruned = model.fit(data, directory, "pruned", {"teacher": teacher})
    assert depth_of(pruned.params) == 1 and pruned.facts["layers_gone"] in ([0], [1])
    accuracy = (pruned.logits("test").argmax(1) == data.pairs("test").label).mean()
    assert accuracy > 0.6  # ten steps from nothing do not give that
    assert GradualPruning(1, first=0.4).phases(3, 100) == [(3, 40), (2, 30), (1, 30)]
    assert GradualPruning(1).phases(3, 11) == [(2, 6), (1, 5)]
    with pytest.raises(ValueError, match="expected at most 2 layers that stay, as many as there are, got 3"):
        GradualPruning(3).phases(2, 10)


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_8_bits_move_logits_by_less_than_the_bound_and_leave_the_head(name, data, request):
    fitted = request.getfixturevalue(name)
    small, exact = fitted.int8(), fitted.logits("test")
    assert 0 < np.abs(small.logits("test") - exact).max() <= INT8_BOUND * np.ptp(exact)
    assert size_in_bytes(small.params) < size_in_bytes(fitted.params)
    for layer, of_layer in fitted.params.items():
        of_small = jax.tree.leaves(small.params[layer], is_leaf=lambda leaf: isinstance(leaf, Int8Weights))
        for leaf, kept in zip(jax.tree.leaves(of_layer), of_small, strict=True):
            assert isinstance(kept, Int8Weights) == (np.ndim(leaf) > 1 and not re.search(HEAD, f"{layer}/"))


def test_speed_is_told_of_every_size(teacher):
    found = speed_of(teacher, ["red lamp", "steel hose"], pairs=16)
    assert {*found} == {*(f"ms_{n}" for n in CANDIDATES), "pairs_per_second"} and min(found.values()) > 0


def test_wrong_models_and_requests_are_named(data, directory, teacher):
    for query in ("", "of the"):
        with pytest.raises(ValueError, match="expected a query with at least one word that is no stop word, got"):
            teacher.levels(query, np.arange(3))
    late = RelevanceModel(BI, teacher="assistant", training=training(2))
    with pytest.raises(ValueError, match="'student' has teacher 'assistant': expected a model that stands before it"):
        late.fit(data, directory, "student", {"teacher": teacher})
    with pytest.raises(ValueError, match="a bi-encoder has no layers to prune"):
        RelevanceModel(BI, pruning=GradualPruning(1))
    with pytest.raises(ValueError, match="layers of what is not trained yet would go"):
        RelevanceModel(CROSS, pruning=GradualPruning(1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"models": {}}, "expected at least one model to train, got none"),
        ({"int8": ("student",)}, "BASE names 'student', expected names among teacher"),
        (
            {"base": {"teacher": "teacher_int8"}},
            "BASE names 'teacher_int8', expected names among no_order, text_cosine",
        ),
        ({"base": {"text_cosine": "teacher"}}, "BASE compares 'text_cosine' with 'teacher', which is made behind it"),
    ],
)
def test_rows_that_there_will_not_be_are_named_before_anything_is_trained(data, tmp_path, wrong, message):
    judgements = small_judgements.write(tmp_path)
    with pytest.raises(ValueError, match=message):
        train_and_judge(
            str(tmp_path), judgements, data.classes, NearPairs(), **{"models": {"teacher": TEACHER}, **wrong}
        )


def test_imported_weights_are_where_training_begins(data, directory, teacher):
    start = dataclasses.replace(teacher.reader.start, params=trunk_of(teacher.params["encoder"]))
    reader = dataclasses.replace(teacher.reader, start=start)
    params = nn.unbox(reader.initial(reader.network, None, jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, trunk_of(params["encoder"]), start.params)
    assert params["head"]["kernel"].dtype == jnp.float32
