"""RQ-VAE: the losses are TIGER's, codes come from the trained codebooks, usage is reported while it trains."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.semantic_ids import rqvae
from plum_jax.semantic_ids.quantization import QuantizerError, assign, mix_blocks
from plum_jax.semantic_ids.residual_kmeans import fit_codebooks
from plum_jax.semantic_ids.rqvae import RqVae, RqVaeNetwork, RqVaeObjective, encode, trained_codebooks
from plum_jax.training.checkpoints import load_params
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.optimizer import AdamW, Constant
from plum_jax.training.trainer import TrainingConfig

SMALL = RqVae(
    codebook_sizes=(6, 5, 4),
    hidden_dims=(24,),
    latent_dim=6,
    batch_size=64,
    training=TrainingConfig(
        steps=80,
        optimizer=AdamW(schedule=Constant(3e-3), weight_decay=0.0),
        evaluation_period=40,
        checkpoint_period=80,
    ),
)
NETWORK = RqVaeNetwork(input_dim=5, hidden_dims=(7,), latent_dim=3, codebook_sizes=(4, 6))


@pytest.fixture(scope="module")
def trained(features, split, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("training")
    return SMALL.quantize(features, split, work_dir), work_dir


@pytest.fixture(scope="module")
def params():
    params = jax.jit(NETWORK.init)(jax.random.key(0), jnp.ones((1, 5)))["params"]
    # Far apart, so that a small step changes no code.
    return {**params, "codebook_0": jax.random.normal(jax.random.key(1), (4, 3))}


@jax.jit
def decode(params, quantised):
    return NETWORK.apply({"params": params}, quantised, method=lambda network, z: network.decoder(z))


def by_hand(params, features: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """Codes, reconstruction, codebook and commitment loss, one item and one level at a time."""
    codes, reconstruction, quantisation = [], 0.0, 0.0
    for x in features:
        residual = encode(NETWORK, params, x[None])[0]
        quantised, row = np.zeros(3), []
        for level in range(2):
            codebook = np.asarray(params[f"codebook_{level}"])
            row.append(int(np.argmin([np.sum((residual - e) ** 2) for e in codebook])))
            residual = residual - codebook[row[-1]]
            quantised = quantised + codebook[row[-1]]
            quantisation += np.sum(residual**2)
        reconstruction += np.sum((x - np.asarray(decode(params, quantised[None]))[0]) ** 2)
        codes.append(row)
    return np.array(codes), reconstruction, quantisation, quantisation


def test_losses_and_codes_equal_counting_by_hand(params):
    features = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    codes, reconstruction, codebook_loss, commitment_loss = by_hand(params, features)
    output = rqvae.apply(NETWORK, params, features)
    np.testing.assert_array_equal(output.codes, codes)
    objective = jax.jit(RqVaeObjective(NETWORK, beta=0.25))
    loss, items, metrics = objective(params, {"features": features}, None)
    assert items == 9
    np.testing.assert_allclose(loss, reconstruction + codebook_loss + 0.25 * commitment_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["reconstruction_error"], (reconstruction, np.sum(features**2)), rtol=1e-5)


def test_gradient_passes_the_quantiser_and_moves_codewords_to_their_residuals(params):
    x = jax.random.normal(jax.random.key(2), (1, 5))

    def reconstruction_loss(params, offset):
        output = rqvae.apply(NETWORK, {**params, "encoder": add_to_last_bias(params["encoder"], offset)}, x)
        return jnp.sum(jnp.square(x - output.reconstruction))

    def decoder_loss(quantised):
        return jnp.sum(jnp.square(x - decode(params, quantised)))

    latent = encode(NETWORK, params, np.asarray(x))
    codes = np.asarray(rqvae.apply(NETWORK, params, x).codes)[0]
    quantised = sum(params[f"codebook_{level}"][code] for level, code in enumerate(codes))[None]
    straight_through = jax.jit(jax.grad(reconstruction_loss, argnums=1))(params, jnp.zeros(3))
    np.testing.assert_allclose(straight_through, jax.jit(jax.grad(decoder_loss))(quantised)[0], rtol=1e-4, atol=1e-6)

    grads = jax.jit(jax.grad(lambda p: RqVaeObjective(NETWORK, 0.25)(p, {"features": x}, None)[0]))(params)
    residual = latent[0]
    for level, code in enumerate(codes):
        expected = np.zeros_like(params[f"codebook_{level}"])
        expected[code] = 2 * (params[f"codebook_{level}"][code] - residual)
        np.testing.assert_allclose(grads[f"codebook_{level}"], expected, rtol=1e-4, atol=1e-6)
        residual = residual - params[f"codebook_{level}"][code]


def add_to_last_bias(encoder, offset):
    last = max(encoder)
    return {**encoder, last: {**encoder[last], "bias": encoder[last]["bias"] + offset}}


def test_codebooks_start_as_residual_kmeans_of_the_latents(features):
    mixed, _ = mix_blocks(features)
    network = RqVaeNetwork(13, (24,), 6, (6, 5, 4))
    params = SMALL.initial_params(network, mixed, jax.random.key(3))
    expected = fit_codebooks(encode(network, params, mixed), (6, 5, 4), iterations=10, seed=SMALL.training.seed)
    for found, codebook in zip(trained_codebooks(network, params), expected, strict=True):
        np.testing.assert_array_equal(found, codebook)


def test_codes_are_the_nearest_under_the_trained_codebooks(trained):
    quantization, work_dir = trained
    (run,) = work_dir.iterdir()
    params = load_params(run / "params")
    for level, codebook in enumerate(quantization.codebooks):
        np.testing.assert_array_equal(codebook, params[f"codebook_{level}"])
    np.testing.assert_array_equal(quantization.codes, assign(quantization.latents, quantization.codebooks))
    residual = quantization.latents.astype(np.float64)
    for codebook, codes in zip(quantization.codebooks, quantization.codes.T, strict=True):
        distances = np.square(residual[:, None] - codebook).sum(-1)
        assert (distances[np.arange(len(codes)), codes] <= distances.min(1) + 1e-5).all()
        residual -= codebook[codes]


def test_training_lowers_the_error_and_reports_usage_and_uniqueness(trained):
    quantization, work_dir = trained
    (run,) = work_dir.iterdir()
    rows = read_metrics(run)
    errors = [row["reconstruction_error"] for row in rows if "reconstruction_error" in row]
    assert errors[-1] < errors[0] / 2
    assert quantization.report["reconstruction_error"] < 0.45
    evaluations = [row for row in rows if "sids/uniqueness" in row]
    assert [row["step"] for row in evaluations] == [40, 80]
    assert evaluations[-1]["sids/usage_A"] == len(set(quantization.codes[:, 0])) / 6
    _, counts = np.unique(quantization.codes, axis=0, return_counts=True)
    assert evaluations[-1]["sids/uniqueness"] == (counts == 1).sum() / 120
    assert quantization.report["imputed_items"] == {"text": 0, "behaviour": 7}
    json.dumps(quantization.report)


def test_a_finished_run_is_read_and_another_config_trains_elsewhere(trained, features, split):
    quantization, work_dir = trained
    (run,) = work_dir.iterdir()
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    again = SMALL.quantize(features, split, work_dir)
    np.testing.assert_array_equal(again.codes, quantization.codes)
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    short = dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, steps=2))
    short.quantize(features, split, work_dir)
    assert len(list(work_dir.iterdir())) == 2


def test_same_seed_same_codes(trained, features, split, tmp_path):
    again = SMALL.quantize(features, split, tmp_path)
    np.testing.assert_array_equal(again.latents, trained[0].latents)
    np.testing.assert_array_equal(again.codes, trained[0].codes)


def test_fewer_items_than_codes_are_refused_before_training(features, split, tmp_path):
    with pytest.raises(QuantizerError, match="level 0 has 256 codes, but there are only 120 items"):
        RqVae().quantize(features, split, tmp_path)
    assert not list(tmp_path.iterdir())
