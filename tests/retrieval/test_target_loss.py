"""The held-out loss against what beam search says of the same Semantic IDs."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from tiny_decoder import tiny_decoder

from plum_jax.evaluation.metrics import NOTHING
from plum_jax.model.decoder import Decoder
from plum_jax.ragged import Ragged
from plum_jax.retrieval.target_loss import TargetLoss


@pytest.fixture(scope="module")
def real(world):
    """The world with a decoder that looks at the whole prompt."""
    vocabulary = world.recommender.vocabulary
    config = tiny_decoder((3, 4))[0].config
    decoder = Decoder(config, vocabulary.vocab_size)
    one = np.zeros((1, 2), np.int32)
    params = jax.jit(decoder.init)(jax.random.key(0), one, one, np.ones((1, 2, 2), bool))["params"]
    params = jax.tree.map(
        lambda box: 3.0 * box.value if hasattr(box, "value") else 3.0 * box,
        params,
        is_leaf=lambda x: hasattr(x, "value"),
    )
    recommender = dataclasses.replace(world.recommender, decoder=decoder, batch_size=4, num_buckets=2)
    return recommender, params, world.prompts


def test_it_is_what_beam_search_gives_the_target(real):
    recommender, params, prompts = real
    codes, log_probs = recommender.search(params, Ragged.from_series(prompts["prompt"]))
    nats = TargetLoss(recommender, prompts).per_user(params)
    targets = recommender.table.codes[prompts["target_item"].to_numpy()]
    found = (codes == targets[:, None]).all(axis=2) & (codes[:, :, 0] != NOTHING)
    assert found.any(axis=1).all(), "the beam is wider than the catalogue"
    expected = log_probs[np.arange(len(found)), found.argmax(axis=1)]
    np.testing.assert_allclose(nats.sum(axis=1), -expected, rtol=1e-5)
    assert np.ptp(expected) > 1, "prompts that all say the same show nothing"


def test_figures_are_means_over_users_and_levels(real):
    recommender, params, prompts = real
    loss = TargetLoss(recommender, prompts)
    nats, figures = loss.per_user(params).astype(np.float64), loss(params)
    assert figures["loss"] == pytest.approx(nats.mean())
    assert figures["loss_se"] == pytest.approx(nats.mean(axis=1).std(ddof=1) / math.sqrt(len(nats)))
    assert [figures["loss_level_1"], figures["loss_level_2"]] == pytest.approx(nats.mean(axis=0).tolist())
    assert TargetLoss(recommender, prompts, max_users=10).per_user(params) == pytest.approx(nats[::3], rel=1e-5)
