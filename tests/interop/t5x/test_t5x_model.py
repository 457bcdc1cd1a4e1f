"""The T5X model is our decoder: the same loss, gradients, scores and lists."""

import dataclasses

import flax
import jax
import numpy as np
import optax
import pytest
from t5x_run import ABSENT, EXPERTS, NANO, batch_of

pytest.importorskip("t5x.models", reason=ABSENT)

from t5x import utils

from plum_jax.interop.t5x.checkpoints import read_checkpoint, slots_for
from plum_jax.interop.t5x.installed import T5xError
from plum_jax.interop.t5x.microbatches import Trainer
from plum_jax.interop.t5x.optimizer_def import OptimizerDef, logged_rate
from plum_jax.interop.t5x.parameters import plain
from plum_jax.interop.t5x.partitioner import Partitioner, t5x_rules
from plum_jax.interop.t5x.run_files import RunFiles
from plum_jax.interop.t5x.sid_model import SidModel
from plum_jax.objectives.next_token import NextToken
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import Recommender
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.training.initial import initial_params
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import Adafactor, AdamW, Muon
from plum_jax.training.schedules import Constant
from plum_jax.training.step import initial_state, make_train_step
from tasks import registered
from tasks.feature_converter import DecoderFeatures

RATE = Constant(1e-2)
MESHES = [MeshShape(), MeshShape(data=2, fsdp=2, expert=1, tensor=2), MeshShape(data=1, fsdp=2, expert=4)]


@pytest.fixture(scope="module")
def run(finished):
    return RunFiles(str(finished[0]))


def model_of(run, config=NANO, **settings):
    return SidModel(run, OptimizerDef(AdamW(RATE), 10), config, num_beams=10, **settings)


def train_state_of(model, partitioner, optimizer_def, batch):
    shapes = {name: values.shape for name, values in batch.items()}
    types = {name: values.dtype for name, values in batch.items()}
    return utils.TrainStateInitializer(optimizer_def, model.get_initial_variables, shapes, partitioner, types)


def steps_under_t5x(model, optimizer_def, batch, params, partitioner, steps, microbatches=None):
    """Losses and parameters after so many steps of T5X's trainer on one batch."""
    initializer = train_state_of(model, partitioner, optimizer_def, batch)
    state = initializer.from_scratch(jax.random.PRNGKey(0))
    axes = initializer.train_state_axes
    if params is not None:
        placed = jax.tree.map(
            lambda old, new: jax.device_put(new, old.sharding), state.params, flax.core.freeze(params)
        )
        state = state.replace_params(placed)
    with Trainer(
        model=model,
        train_state=state,
        partitioner=partitioner,
        eval_names=[],
        summary_dir=None,
        train_state_axes=axes,
        rng=jax.random.PRNGKey(0),
        learning_rate_fn=logged_rate(RATE, 10),
        num_microbatches=microbatches,
    ) as trainer:
        losses = [float(trainer.train(iter([batch]), 1).result()["loss"].value) for _ in range(steps)]
        return losses, jax.device_get(plain(trainer.train_state.params)), trainer.train_state


def steps_under_plum(config, vocab_size, optimizer, batch, params, mesh_shape, steps, microbatches=1):
    from plum_jax.model.decoder import Decoder

    decoder, mesh = Decoder(config, vocab_size), mesh_shape.build()
    transformation = optimizer.build(10)
    state = initial_state(initial_params(decoder, params), transformation, jax.random.key(0), mesh)
    step = make_train_step(NextToken().on(decoder, mesh), transformation, microbatches, jax.random.key(0), mesh, state)
    losses = []
    for _ in range(steps):
        state, sums = step(state, batch)
        losses.append(float(sums["loss"][0] / sums["loss"][1]))
    return losses, jax.device_get(state.params)


def params_of(model, seed=1):
    return jax.device_get(plain(model.get_initial_variables(jax.random.key(seed), {})["params"]))


def difference(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.max(np.abs(x - y))), a, b)))


@pytest.mark.parametrize("config", [NANO, EXPERTS], ids=["dense", "experts"])
def test_loss_and_gradients_are_those_of_our_objective(run, finished, config):
    model, batch = model_of(run, config), batch_of(finished[0])
    params = params_of(model)

    def ours(params):
        loss_sum, weight_sum, _ = NextToken().on(model.module, MeshShape().build())(params, batch, None)
        return loss_sum / weight_sum

    loss, gradients = jax.jit(jax.value_and_grad(ours))(params)
    theirs = jax.jit(jax.value_and_grad(lambda p: model.loss_fn(p, batch, None), has_aux=True))
    (their_loss, metrics), their_gradients = theirs(flax.core.freeze(params))
    assert abs(float(loss - their_loss)) < 1e-6
    assert difference(gradients, plain(their_gradients)) < 1e-6
    assert float(optax.global_norm(gradients)) > 0.01
    assert "cross_entropy" in metrics and ("router_balance_loss" in metrics) == (config.moe is not None)


@pytest.mark.parametrize("microbatches", [None, 2])
@pytest.mark.parametrize("config", [NANO, EXPERTS], ids=["dense", "experts"])
def test_t5x_s_trainer_makes_our_trainer_s_steps(run, finished, config, microbatches):
    model, batch = model_of(run, config), batch_of(finished[0])
    params, shape = params_of(model), MeshShape(data=2, fsdp=2, expert=1, tensor=2)
    partitioner = Partitioner(shape)
    # Rows of very different weights: a microbatch that counted by its own would show.
    batch["decoder_loss_weights"] = batch["decoder_loss_weights"] * np.linspace(0.01, 1, 8, dtype=np.float32)[:, None]
    model.mesh_shape = shape
    rows = np.array([0, 4, 1, 5, 2, 6, 3, 7]) if microbatches else np.arange(8)  # plum cuts every other row
    shuffled = {name: values[rows] for name, values in batch.items()}
    ours = steps_under_plum(
        config, run.vocabulary.vocab_size, AdamW(RATE), shuffled, params, shape, 3, microbatches or 1
    )
    theirs = steps_under_t5x(model, OptimizerDef(AdamW(RATE), 10), batch, params, partitioner, 3, microbatches)
    if microbatches is None:  # T5X's metric is of the last microbatch's merge: the same sum
        np.testing.assert_allclose(theirs[0], ours[0], atol=1e-5)
    assert difference(ours[1], theirs[1]) < 2e-5


@pytest.mark.parametrize("optimizer", [AdamW(RATE), Muon(RATE), Adafactor(RATE)], ids=["adamw", "muon", "adafactor"])
def test_every_optimizer_of_ours_works_under_t5x_split_over_eight_devices(run, finished, optimizer):
    batch = batch_of(finished[0])
    shape = MeshShape(data=1, fsdp=4, tensor=2)
    model = model_of(run, NANO, mesh_shape=shape)
    params = params_of(model)
    ours = steps_under_plum(NANO, run.vocabulary.vocab_size, optimizer, batch, params, shape, 2)
    _, theirs, state = steps_under_t5x(model, OptimizerDef(optimizer, 10), batch, params, Partitioner(shape), 2)
    assert difference(ours[1], theirs) < 5e-5
    split = [leaf for leaf in jax.tree.leaves(state.param_states) if not leaf.sharding.is_fully_replicated]
    assert split, "slots are split as their parameters are"


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_eight_devices_train_as_one(run, finished, shape):
    batch = batch_of(finished[0])
    params = params_of(model_of(run, EXPERTS))
    (first, *_), alone = steps_under_plum(
        EXPERTS, run.vocabulary.vocab_size, AdamW(RATE), batch, params, MeshShape(data=8), 2
    )
    model = model_of(run, EXPERTS, mesh_shape=shape)
    losses, split, _ = steps_under_t5x(model, OptimizerDef(AdamW(RATE), 10), batch, params, Partitioner(shape), 2)
    assert abs(losses[0] - first) < 1e-5
    assert difference(alone, split) < 5e-5


def test_t5x_s_own_partitioner_takes_our_axes(run, finished):
    from t5x import partitioning

    # On CPUs T5X's mesh has all devices of a host on "model".
    config = dataclasses.replace(NANO, num_heads=8, num_kv_heads=8, head_dim=4)
    batch = batch_of(finished[0])
    model = model_of(run, config)
    params = params_of(model)
    partitioner = partitioning.PjitPartitioner(num_partitions=2, logical_axis_rules=t5x_rules())
    losses, after, state = steps_under_t5x(model, OptimizerDef(AdamW(RATE), 10), batch, params, partitioner, 2)
    ours = steps_under_plum(config, run.vocabulary.vocab_size, AdamW(RATE), batch, params, MeshShape(), 2)
    assert abs(losses[0] - ours[0][0]) < 1e-5 and difference(ours[1], after) < 5e-5
    assert [leaf for leaf in jax.tree.leaves(state.params) if not leaf.sharding.is_fully_replicated]


def prompt_batch(run, fold="test"):
    import tensorflow as tf

    rows = run.folds[fold]
    prompts = Ragged.from_series(rows["prompt"])
    lengths = {"inputs": int(prompts.lengths.max()), "targets": run.table.num_levels}
    dataset = tf.data.Dataset.from_tensor_slices(
        {
            "inputs": tf.RaggedTensor.from_row_lengths(prompts.values, prompts.lengths),
            "targets": tf.constant(run.targets(fold)),
        }
    )
    converted = DecoderFeatures(pack=False, bos_id=run.vocabulary.start_id)(dataset, lengths)
    return rows, next(converted.batch(len(rows)).as_numpy_iterator())


@pytest.mark.parametrize("config", [NANO, EXPERTS], ids=["dense", "experts"])
@pytest.mark.parametrize("constrained", [True, False])
def test_predict_batch_gives_the_recommender_s_lists(run, config, constrained):
    model = model_of(run, config, constrained=constrained)
    params = jax.tree.map(lambda x: 2.0 * x, params_of(model))
    rows, batch = prompt_batch(run)
    tokens, aux = jax.jit(model.predict_batch_with_aux)(flax.core.freeze(params), batch)
    recommender = Recommender(model.module, run.vocabulary, run.table, num_beams=10)
    codes, scores = recommender.search(params, Ragged.from_series(rows["prompt"]), constrained=constrained)
    np.testing.assert_array_equal(aux["codes"], codes)
    there = np.isfinite(scores)
    np.testing.assert_allclose(np.asarray(aux["scores"])[there], scores[there], atol=1e-4)
    np.testing.assert_array_equal(tokens, codes[:, 0] + run.vocabulary.sid_offsets)
    np.testing.assert_array_equal(model.predict_batch(params, batch), tokens)


def test_score_batch_is_the_log_probability_of_the_target(run):
    model = model_of(run)
    params = params_of(model)
    rows, batch = prompt_batch(run)
    every = model_of(run, constrained=True)
    every.num_beams = run.table.num_items
    _, aux = every.predict_batch_with_aux(params, batch)
    scores = np.asarray(model.score_batch(params, batch))
    codes = run.table.codes[rows["target_item"].to_numpy()]
    for row, (code, score) in enumerate(zip(codes, scores, strict=True)):
        (place,) = np.flatnonzero((np.asarray(aux["codes"])[row] == code).all(axis=1))
        assert abs(float(aux["scores"][row, place]) - score) < 1e-4
    again, intermediates = model.score_batch(params, batch, return_intermediates=True)
    np.testing.assert_array_equal(again, scores)
    assert intermediates["decoder"]["token_scores"][0].shape == batch["decoder_target_tokens"].shape


def test_rows_without_prompts_are_not_searched(run, finished):
    model = model_of(run)
    with pytest.raises(T5xError, match="expected rows of prompts, with decoder_causal_attention"):
        model.predict_batch(params_of(model), batch_of(finished[0]))


@pytest.fixture
def own_generator():
    """An `InteractiveModel` makes the hardware's random numbers the default of the whole process."""
    before = jax.config.jax_default_prng_impl
    yield
    jax.config.update("jax_default_prng_impl", before)


def test_an_interactive_model_answers_a_prompt(run, tmp_path, own_generator):
    from plum_jax.interop.t5x.interactive import answering

    model = model_of(run)
    answers_of = answering(model, "", str(tmp_path / "out"), batch_size=8, longest_prompt=24)
    sids = [run.vocabulary.decode(run.vocabulary.encode_sid(codes)) for codes in run.table.codes[:2]]
    assert sids[0].startswith("<A")
    answers, aux = answers_of.predict_with_aux([f"<history> {sids[0]}{sids[1]}", f"<history> {sids[1]}"])
    tokens = [run.vocabulary.control_id("<history>"), *run.vocabulary.encode_sid(run.table.codes[:2]).ravel()]
    prompt = Ragged(np.asarray(tokens, np.int32), np.array([len(tokens)]))
    params = jax.device_get(plain(answers_of.train_state.params))
    codes, _ = model.recommender.search(params, prompt)
    np.testing.assert_array_equal(np.asarray(aux["codes"][0]), codes[0])
    assert answers[0][1].decode() == run.vocabulary.decode(codes[0, 0] + run.vocabulary.sid_offsets)
    assert len(answers) == 2
    # It saves in T5X's older form, which is read as well.
    answers_of.save_checkpoint()
    read = read_checkpoint(tmp_path / "out" / "checkpoint_0")
    jax.tree.map(np.testing.assert_array_equal, read.params, params)
    assert slots_for(model.optimizer_def, read.params, read.slots) is not None


def test_a_mixture_of_another_vocabulary_is_refused_with_both_fingerprints(run):
    other = SidVocabulary(run.vocabulary.text, run.vocabulary.codebook_sizes, ("<history>",))
    folds, targets = {"test": run.folds["test"]}, {"test": run.targets("test")}
    name = registered.register_prompts(folds, targets, other, metrics=[], fingerprint="other", name="of_another_run")
    config = utils.DatasetConfig(name, None, "test", 8, False, None)
    with pytest.raises(ValueError, match=f"(?s)do not match.*{other.fingerprint}.*{run.vocabulary.fingerprint}"):
        utils.verify_matching_vocabs(config, model_of(run))
