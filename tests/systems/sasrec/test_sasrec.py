"""SASRec: it learns what can be learnt, its losses are their definitions, and ranking is that of full scores."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import packed_causal_mask
from plum_jax.objectives.item_losses import BinaryCrossEntropy, SampledSoftmax
from plum_jax.objectives.next_token import NextToken
from plum_jax.systems.popularity import Popularity
from plum_jax.systems.sasrec.scoring import sasrec_scorer
from plum_jax.systems.sasrec.system import SasRec
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.training_config import TrainingConfig

SMALL = DecoderConfig(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=32, scan_layers=False)
TRAINING = TrainingConfig(
    steps=60,
    optimizer=AdamW(schedule=WarmupCosine(peak=1e-2, warmup_steps=5)),
    checkpoint_period=20,
    tensorboard=False,
)
SYSTEM = SasRec(SMALL, training=TRAINING, history_length=12, batch_size=8, row_length=24)


@pytest.fixture(scope="module")
def split():
    return LeaveOneOut().split(Simulator(num_users=200, num_items=48, mean_history=9.0, branching=(2, 2)).read())


def stages(split, directory):
    return types.SimpleNamespace(split=split, directory=epath.Path(directory))


@pytest.fixture(scope="module")
def fitted(split, tmp_path_factory):
    return SYSTEM.fit(stages(split, tmp_path_factory.mktemp("run")), "sasrec")


def test_it_beats_popularity_on_a_corpus_with_structure(split, fitted):
    evaluation = split.evaluation("test")
    lists = [system.rank(evaluation, 10).lists.items for system in (fitted, Popularity().fit(stages(split, "."), ""))]
    ours, popular = (np.mean((items == evaluation.target_item[:, None]).any(axis=1)) for items in lists)
    assert ours > popular + 0.05


def test_lists_are_those_of_all_scores_of_one_user_at_a_time(split, fitted):
    evaluation = split.evaluation("test")
    ranking = fitted.rank(evaluation, 7)
    network = Decoder(SMALL, split.corpus.num_items)
    for row in range(0, len(evaluation), 41):
        history = evaluation.history(row)[-SYSTEM.history_length :]
        tokens = jnp.asarray(history[None])
        mask = packed_causal_mask(jnp.ones_like(tokens))
        logits = network.apply({"params": fitted.params}, tokens, jnp.arange(len(history))[None], mask).values[0, -1]
        scores = np.asarray(logits, np.float64)
        assert ranking.lists.items[row].tolist() == np.argsort(-scores, kind="stable")[:7].tolist()
        scores[evaluation.history(row)] = -np.inf
        best = np.argsort(-scores, kind="stable")[:7]
        assert ranking.lists.unseen[row].tolist() == best.tolist()
        np.testing.assert_allclose(ranking.scores[row], scores[best], rtol=1e-4, atol=1e-5)


def test_the_whole_is_found_again_and_a_longer_run_is_another_one(split, fitted, tmp_path):
    again = SYSTEM.fit(stages(split, fitted.directory.parent.parent), "sasrec")
    assert again.fingerprint == fitted.fingerprint and again.facts == fitted.facts
    counted = sum(np.size(leaf) for leaf in jax.tree.leaves(fitted.params))
    assert fitted.facts["parameters"] == counted
    assert fitted.facts["non_embedding_parameters"] == counted - np.size(fitted.params["embedding"])


def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(split, fitted, tmp_path):
    class Killed(Exception):
        pass

    whole, system = stages(split, tmp_path), SYSTEM
    killed = dataclasses.replace(system, training=dataclasses.replace(TRAINING, evaluation_period=20))

    calls = []

    def evaluate(params):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return {"recall@10": 0.0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plum_jax.systems.scored_items.Scorer.curve", lambda self, split, users: evaluate)
        with pytest.raises(Killed):
            killed.fit(whole, "sasrec")
        went_on = killed.fit(whole, "sasrec")
        alone = killed.fit(stages(split, tmp_path / "alone"), "sasrec")
    assert went_on.fingerprint == alone.fingerprint == fitted.fingerprint


@pytest.fixture(scope="module")
def batch(split):
    rows = SYSTEM.feed(split).arrays
    return {name: jnp.asarray(values[:6]) for name, values in rows.items()}


def test_losses_are_their_definitions(split, batch, fitted):
    network, mesh = Decoder(SMALL, split.corpus.num_items), TRAINING.mesh.build(jax.devices()[:1])
    full = NextToken().on(network, mesh)(fitted.params, batch, None)
    mask = packed_causal_mask(batch["decoder_segment_ids"])
    logits = network.apply(
        {"params": fitted.params}, batch["decoder_input_tokens"], batch["decoder_positions"], mask
    ).values
    weights, targets = batch["decoder_loss_weights"], batch["decoder_target_tokens"]
    expected = jnp.sum(-jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)[..., 0] * weights)
    np.testing.assert_allclose(full[0], expected, rtol=1e-5)
    # So many draws are the whole catalogue, again and again: the sampled normaliser is the full one.
    sampled = SampledSoftmax(400_000).losses
    states = network.apply(
        {"params": fitted.params}, batch["decoder_input_tokens"], batch["decoder_positions"], mask, method="hidden"
    ).values
    table = fitted.params["embedding"]
    losses = sampled(states[:1, :4], table, targets[:1, :4], jax.random.key(1))
    exact = -jnp.take_along_axis(jax.nn.log_softmax(logits[:1, :4]), targets[:1, :4, None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses, exact, atol=0.03)
    binary = BinaryCrossEntropy(3).losses(states, table, targets, jax.random.key(2))
    drawn = np.asarray(jax.random.randint(jax.random.key(2), (*targets.shape, 3), 0, len(table)))
    scores = np.asarray(logits, np.float64)
    one = [np.log1p(np.exp(-scores[0, 0, targets[0, 0]]))]
    one += [np.log1p(np.exp(scores[0, 0, d])) for d in drawn[0, 0] if d != targets[0, 0]]
    np.testing.assert_allclose(binary[0, 0], sum(one), rtol=1e-4)


@pytest.mark.parametrize("objective", [NextToken(), SampledSoftmax(8), BinaryCrossEntropy()])
def test_what_has_no_weight_has_no_loss(split, batch, fitted, objective):
    loss = objective.on(Decoder(SMALL, split.corpus.num_items), TRAINING.mesh.build(jax.devices()[:1]))
    emptied = batch | {"decoder_loss_weights": batch["decoder_loss_weights"].at[3:].set(0)}
    other = emptied | {"decoder_target_tokens": batch["decoder_target_tokens"].at[3:].set(1)}
    one, two = (loss(fitted.params, some, None) for some in (emptied, other))
    assert float(one[0]) == float(two[0]) > 0 and float(one[1]) == float(jnp.sum(batch["decoder_loss_weights"][:3]))


def test_a_user_s_vector_is_that_of_the_window_alone(split, fitted):
    scorer = sasrec_scorer(Decoder(SMALL, split.corpus.num_items), 12)
    history = np.arange(30) % split.corpus.num_items
    long, short = scorer.users(fitted.params, [history, history[-12:]])
    np.testing.assert_array_equal(long, short)
