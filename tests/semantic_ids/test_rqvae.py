"""RQ-VAE: the losses are TIGER's and PLUM's, codes come from the trained codebooks, codebooks stay alive."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.semantic_ids.assignment import assign
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.inputs import QuantizerError, fit_inputs, with_mean_squared_length
from plum_jax.semantic_ids.residual_kmeans import fit_codebooks
from plum_jax.semantic_ids.rqvae import RqVae
from plum_jax.semantic_ids.rqvae.dead_codes import DeadCodeRestart
from plum_jax.semantic_ids.rqvae.encoder import encode, read_inputs
from plum_jax.semantic_ids.rqvae.network import RqVaeNetwork, rotate, straight_through
from plum_jax.semantic_ids.rqvae.objective import RqVaeObjective, apply
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.optimizer import AdamW
from plum_jax.training.saved_params import load_params
from plum_jax.training.schedules import Constant
from plum_jax.training.training_config import TrainingConfig

SMALL = RqVae(
    codebook_sizes=(8, 5, 4),
    hidden_dims=(24,),
    encoder_dim=8,
    latent_dim=6,
    contrastive_dims=(8, 4),
    batch_size=128,
    restart_period=20,
    training=TrainingConfig(
        steps=80,
        optimizer=AdamW(schedule=Constant(3e-3), weight_decay=0.0),
        evaluation_period=40,
        checkpoint_period=80,
    ),
)
V1 = dataclasses.replace(SMALL, fuse_blocks=True, progressive_masking=False, contrastive_weight=0.0)
NETWORK = RqVaeNetwork(
    block_dims=(5, 4), hidden_dims=(7,), encoder_dim=6, latent_dim=3, codebook_sizes=(4, 6), head_dims=(5, 2)
)


@pytest.fixture(scope="module", params=["v2", "v1"])
def trained(request, features, split, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("training")
    return (SMALL if request.param == "v2" else V1).quantize(features, split, work_dir), work_dir, request.param


@pytest.fixture(scope="module")
def params():
    batch = (jnp.ones((1, 5)), jnp.ones((1, 4))), (jnp.ones(1, bool), jnp.ones(1, bool))
    params = jax.jit(NETWORK.init)(jax.random.key(0), *batch)["params"]
    # Codewords far apart, so that a small step changes no code; absent blocks that are something.
    codebook = jax.random.normal(jax.random.key(1), (4, 3))
    return {**params, "codebook_0": codebook, "absent_1": jax.random.normal(jax.random.key(2), (6,))}


def items(num_items: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two blocks of items, the second absent (and zero) for every third."""
    rng = np.random.default_rng(0)
    present = np.arange(num_items) % 3 > 0
    blocks = [rng.normal(size=(num_items, dim)).astype(np.float32) for dim in (5, 4)]
    blocks[1][~present] = 0
    return blocks, [np.ones(num_items, bool), present]


def as_batch(blocks, present, pairs: int) -> dict[str, np.ndarray]:
    batch = {f"block_{m}": block.reshape(pairs, -1, block.shape[1]) for m, block in enumerate(blocks)}
    return batch | {f"present_{m}": has.reshape(pairs, -1) for m, has in enumerate(present)}


@jax.jit
def decode(params, quantised):
    return NETWORK.apply({"params": params}, quantised, method="decode")


@jax.jit
def contrast_of(params, quantised):
    return NETWORK.apply({"params": params}, quantised, method=lambda network, z: network.head(z))


def quantise_by_hand(params, latent: np.ndarray, levels: int) -> tuple[list[int], np.ndarray, float]:
    """One item: its codes, the sum of its first codewords, and the squared residuals of all levels."""
    residual, quantised, row, error = latent, np.zeros(3), [], 0.0
    for level in range(2):
        codebook = np.asarray(params[f"codebook_{level}"])
        row.append(int(np.argmin([np.sum((residual - e) ** 2) for e in codebook])))
        residual = residual - codebook[row[-1]]
        quantised = quantised + (codebook[row[-1]] if level < levels else 0)
        error += np.sum(residual**2)
    return row, quantised, error


def test_losses_and_codes_equal_counting_by_hand(params):
    blocks, present = items(8)
    latents = encode(NETWORK, params, blocks, present)
    expected, reconstruction = 0.0, 0.0
    for i in range(8):
        codes, quantised, error = quantise_by_hand(params, latents[i], levels=2)
        output = apply(NETWORK, params, [b[i : i + 1] for b in blocks], [p[i : i + 1] for p in present])
        assert output.codes[0].tolist() == codes
        found = decode(params, quantised[None].astype(np.float32))
        misses = [np.sum((b[i] - np.asarray(f)[0]) ** 2) * p[i] for b, f, p in zip(blocks, found, present, strict=True)]
        reconstruction += sum(misses)
        expected += 2 * sum(misses) + 3 * (error + 0.25 * error)
    objective = RqVaeObjective(NETWORK, beta=0.25, reconstruction_weight=2.0, quantisation_weight=3.0)
    loss, weight, metrics = jax.jit(objective)(params, as_batch(blocks, present, 8), None)
    assert weight == 8
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    total = sum(np.sum(block**2) for block in blocks)
    np.testing.assert_allclose(metrics["reconstruction_error"], (reconstruction, total), rtol=1e-5)


def test_an_absent_block_is_learnt_and_not_zeros(params):
    blocks, present = items(6)
    latents = encode(NETWORK, params, blocks, present)
    shifted = [blocks[0], blocks[1] + 5 * ~present[1][:, None]]  # what is absent plays no part
    np.testing.assert_array_equal(encode(NETWORK, params, shifted, present), latents)
    zeros = encode(NETWORK, params, blocks, [present[0], np.ones(6, bool)])
    assert np.abs(zeros - latents)[~present[1]].min() > 1e-3
    np.testing.assert_array_equal(zeros[present[1]], latents[present[1]])


def test_masking_keeps_the_first_levels(params):
    blocks, present = items(4)
    latents = encode(NETWORK, params, blocks, present)
    keep = jnp.array([1, 2, 1, 2])
    output = apply(NETWORK, params, blocks, present, keep)
    for i in range(4):
        _, quantised, _ = quantise_by_hand(params, latents[i], levels=int(keep[i]))
        for found, expected in zip(output.reconstructions, decode(params, quantised[None]), strict=True):
            np.testing.assert_allclose(found[i], expected[0], rtol=1e-4, atol=1e-5)


def test_masks_are_drawn_evenly_from_one_to_all_levels(params, monkeypatch):
    drawn = []

    def spy(*arguments):
        drawn.append(arguments[-1])
        return apply(*arguments)

    monkeypatch.setattr("plum_jax.semantic_ids.rqvae.objective.apply", spy)
    blocks, present = items(600)
    objective = RqVaeObjective(NETWORK, progressive_masking=True)
    objective(params, as_batch(blocks, present, 600), jax.random.key(0))
    counts = np.bincount(np.asarray(drawn[0]), minlength=3)
    assert counts[0] == 0 and counts[1] + counts[2] == 600 and abs(counts[1] - 300) < 80
    with pytest.raises(ValueError, match="expected a key, got None"):
        objective(params, as_batch(blocks, present, 600), None)


def test_contrastive_loss_equals_counting_by_hand(params):
    """Six pairs, one without a partner, one item twice: 12 items, each picks its partner among the rest."""
    blocks, present = items(12)
    item = np.arange(12)
    item[8], paired = item[0], np.array([True, True, False, True, True, True])
    for values in (*blocks, *present):
        values[8] = values[0]
    latents = encode(NETWORK, params, blocks, present)
    quantised = np.stack([quantise_by_hand(params, latent, levels=2)[1] for latent in latents]).astype(np.float32)
    similarity = (
        np.asarray(contrast_of(params, quantised), np.float64) @ np.asarray(contrast_of(params, quantised)).T / 0.5
    )
    expected, hits = 0.0, 0
    for i in range(12):
        if not paired[i // 2]:
            continue
        partner = i ^ 1
        others = [j for j in range(12) if j == partner or item[j] not in (item[i], item[partner])]
        expected += np.log(np.sum(np.exp(similarity[i, others]))) - similarity[i, partner]
        hits += similarity[i, partner] >= similarity[i, others].max()
    batch = as_batch(blocks, present, 6) | {"item": item.reshape(6, 2).astype(np.int32), "paired": paired}
    objective = RqVaeObjective(NETWORK, contrastive_weight=2.0, temperature=0.5)
    with_contrast, weight, metrics = jax.jit(objective)(params, batch, None)
    np.testing.assert_allclose(metrics["contrastive_loss"], (expected, 10), rtol=1e-4)
    np.testing.assert_allclose(metrics["contrastive_accuracy"], (hits, 10))
    without, _, _ = jax.jit(dataclasses.replace(objective, contrastive_weight=0.0))(params, batch, None)
    np.testing.assert_allclose(with_contrast - without, 2.0 * 12 * expected / 10, rtol=1e-4)
    assert weight == 12


def test_straight_through_gradient_is_the_decoders_own(params):
    latent, quantised = jax.random.normal(jax.random.key(3), (2, 4, 3))

    def loss(z):
        return sum(jnp.sum(jnp.square(output)) for output in decode(params, z))

    np.testing.assert_allclose(straight_through(latent, quantised), quantised, atol=1e-6)
    gradient = jax.grad(lambda z: loss(straight_through(z, quantised)))(latent)
    np.testing.assert_allclose(gradient, jax.grad(loss)(quantised), rtol=1e-3, atol=1e-5)


def test_rotation_turns_the_gradient_as_it_turns_the_latent():
    latent, quantised, cotangent = np.asarray(jax.random.normal(jax.random.key(4), (3, 5, 7)))
    output, pull_back = jax.vjp(lambda z: rotate(z, jnp.asarray(quantised)), jnp.asarray(latent))
    np.testing.assert_allclose(output, quantised, rtol=1e-4, atol=1e-5)
    (gradient,) = pull_back(jnp.asarray(cotangent))
    scale = np.linalg.norm(quantised, axis=1) / np.linalg.norm(latent, axis=1)
    # The map is a rotation times a scale: it keeps the angle between the gradient and the vector it belongs to.
    np.testing.assert_allclose(np.linalg.norm(gradient, axis=1), scale * np.linalg.norm(cotangent, axis=1), rtol=1e-4)
    np.testing.assert_allclose(
        np.sum(gradient * latent, axis=1), np.sum(cotangent * quantised, axis=1), rtol=1e-3, atol=1e-4
    )
    assert np.abs(gradient - cotangent).max() > 0.1


def test_codewords_move_to_their_residuals_and_nothing_else_moves_them(params):
    blocks, present = items(1)
    latent = encode(NETWORK, params, blocks, present)[0]
    objective = RqVaeObjective(NETWORK, beta=0.25)
    grads = jax.jit(jax.grad(lambda p: objective(p, as_batch(blocks, present, 1), None)[0]))(params)
    codes, _, _ = quantise_by_hand(params, latent, levels=2)
    residual = latent
    for level, code in enumerate(codes):
        expected = np.zeros_like(params[f"codebook_{level}"])
        expected[code] = 2 * (params[f"codebook_{level}"][code] - residual)
        np.testing.assert_allclose(grads[f"codebook_{level}"], expected, rtol=1e-4, atol=1e-6)
        residual = residual - params[f"codebook_{level}"][code]


def test_codebooks_start_as_residual_kmeans_of_the_latents(features):
    inputs = with_mean_squared_length(fit_inputs(features), features, 6)
    blocks, present = read_inputs(inputs, features, fuse_blocks=False)
    network = SMALL.network((8, 5))
    params = SMALL.initial_params(network, blocks, present, jax.random.key(3))
    expected = fit_codebooks(encode(network, params, blocks, present), (8, 5, 4), iterations=10)
    for level, codebook in enumerate(expected):
        np.testing.assert_array_equal(params[f"codebook_{level}"], codebook)


def test_codes_are_the_nearest_under_the_trained_codebooks(trained):
    """Not those of a k-means fitted afterwards, as one open reproduction has them."""
    quantization, work_dir, _ = trained
    (run,) = work_dir.iterdir()
    params = load_params(run / "params")
    for level, codebook in enumerate(quantization.codec.codebooks):
        np.testing.assert_array_equal(codebook, params[f"codebook_{level}"])
    np.testing.assert_array_equal(quantization.codes, assign(quantization.latents, quantization.codec.codebooks).codes)


def test_training_lowers_the_error_and_reports_usage_and_collisions(trained):
    quantization, work_dir, variant = trained
    (run,) = work_dir.iterdir()
    rows = read_metrics(run)
    errors = [row["reconstruction_error"] for row in rows if "reconstruction_error" in row]
    assert errors[-1] < 0.8 * errors[0]
    evaluations = [row for row in rows if "sids/uniqueness" in row]
    assert [row["step"] for row in evaluations] == [40, 80]
    _, counts = np.unique(quantization.codes, axis=0, return_counts=True)
    alone = (counts == 1).sum()
    assert evaluations[-1]["sids/usage_A"] == len(set(quantization.codes[:, 0])) / 8
    assert evaluations[-1]["sids/uniqueness"] == alone / 120
    assert evaluations[-1]["sids/collisions"] == 120 - alone
    assert [row["step"] for row in rows if "restarted_codes" in row] == [20, 40, 60]  # not in the last fifth
    assert ("contrastive_loss" in rows[0]) == (variant == "v2")
    decoded = quantization.report["decoded_error"]
    assert set(decoded) == ({"text", "behaviour"} if variant == "v2" else {"text+behaviour"})
    assert all(errors[-1] < 0.9 for errors in decoded.values())
    assert quantization.report["imputed_items"] == {"text": 0, "behaviour": 7}
    json.dumps(quantization.report)


def test_the_saved_codec_is_the_trained_network(trained, features, tmp_path):
    quantization, _, _ = trained
    quantization.codec.write_files(tmp_path)
    loaded = load_codec(tmp_path)
    np.testing.assert_array_equal(loaded.encode(features), quantization.latents)
    new = features.take(np.array([3, 110]))
    np.testing.assert_array_equal(loaded.assign(loaded.encode(new)).codes, quantization.codes[[3, 110]])


def test_dead_codes_are_put_where_items_are_badly_served(params):
    blocks, present = items(60)
    latents = encode(NETWORK, params, blocks, present)
    dead = np.asarray(params["codebook_0"]).copy()
    dead[2] = 1e3
    broken = {**params, "codebook_0": dead}
    restart = DeadCodeRestart(NETWORK, tuple(blocks), tuple(present), seed=0)
    moved, metrics = restart(broken, step=5)
    assert metrics["restarted_codes"] >= 1
    assert np.any(np.all(latents == moved["codebook_0"][2], axis=1))
    alive = np.unique(assign(latents, [dead]).codes)
    np.testing.assert_array_equal(moved["codebook_0"][alive], dead[alive])
    codes = assign(latents, [moved["codebook_0"], moved["codebook_1"]]).codes
    assert 2 in codes[:, 0]
    again, _ = restart(broken, step=5)
    np.testing.assert_array_equal(again["codebook_0"], moved["codebook_0"])
    healthy, metrics = restart({**moved, "codebook_1": moved["codebook_1"]}, step=6)
    if not metrics["restarted_codes"]:
        np.testing.assert_array_equal(healthy["codebook_0"], moved["codebook_0"])


def test_a_finished_run_is_read_and_another_config_trains_elsewhere(trained, features, split):
    quantization, work_dir, variant = trained
    config = SMALL if variant == "v2" else V1
    (run,) = work_dir.iterdir()
    before = (run / "metrics.jsonl").stat().st_mtime_ns
    again = config.quantize(features, split, work_dir)
    np.testing.assert_array_equal(again.codes, quantization.codes)
    assert (run / "metrics.jsonl").stat().st_mtime_ns == before
    short = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=2))
    short.quantize(features, split, work_dir)
    assert len(list(work_dir.iterdir())) == 2


def test_a_killed_run_goes_on_to_the_same_codes(features, split, tmp_path, monkeypatch):
    """Killed after a restart of dead codes: the moved codewords are in the checkpoint."""
    config = dataclasses.replace(SMALL, training=dataclasses.replace(SMALL.training, checkpoint_period=30))
    whole = config.quantize(features, split, tmp_path / "whole")
    calls = []
    restart = DeadCodeRestart.__call__

    def die(self, params, step):
        calls.append(step)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return restart(self, params, step)

    monkeypatch.setattr(DeadCodeRestart, "__call__", die)
    with pytest.raises(KeyboardInterrupt):
        config.quantize(features, split, tmp_path / "killed")
    monkeypatch.undo()
    resumed = config.quantize(features, split, tmp_path / "killed")
    np.testing.assert_array_equal(resumed.codes, whole.codes)
    np.testing.assert_array_equal(resumed.latents, whole.latents)


def test_fewer_items_than_codes_are_refused_before_training(features, split, tmp_path):
    with pytest.raises(QuantizerError, match="level 0 has 512 codes, but there are only 120 items"):
        RqVae().quantize(features, split, tmp_path)
    assert not list(tmp_path.iterdir())


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(QuantizerError, match="expected a gradient of straight_through, rotation, got 'none'"):
        RqVae(gradient="none")
    with pytest.raises(QuantizerError, match="expected loss weights of 0 or more"):
        RqVae(contrastive_weight=-1.0)
