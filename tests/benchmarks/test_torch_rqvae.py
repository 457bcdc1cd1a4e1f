"""The network that RQ-VAE training is timed against is the same network: equal loss and equal gradients."""

import dataclasses
import pathlib

import jax
import numpy as np
import polars as pl
import pytest

from plum_jax.semantic_ids.rqvae import RqVae
from plum_jax.semantic_ids.rqvae.objective import draw_levels
from plum_jax.semantic_ids.rqvae.pairs import CoWatched, ItemBatches

torch = pytest.importorskip("torch", reason="PyTorch is in the extra `bench`")

SID_V2 = RqVae(codebook_sizes=(8, 4), hidden_dims=(16, 8), encoder_dim=6, latent_dim=5, contrastive_dims=(7, 4))
SID_V1 = dataclasses.replace(SID_V2, contrastive_weight=0.0, progressive_masking=False)


@pytest.mark.parametrize(("quantizer", "dims"), [(SID_V1, (9,)), (SID_V2, (9, 11))], ids=["SID-v1", "SID-v2"])
def test_loss_and_gradients_of_a_batch_are_equal(monkeypatch, quantizer, dims):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2] / "benchmarks"))
    import torch_rqvae

    rng = np.random.default_rng(0)
    blocks = tuple(rng.normal(size=(60, dim)).astype(np.float32) for dim in dims)
    present = tuple(rng.random(60) < 0.8 for _ in dims)
    a, b = rng.integers(
        0, 20, (2, 40), dtype=np.int32
    )  # few items: copies of partners are in the batch, some have none
    pairs = CoWatched.from_pairs(pl.DataFrame({"item_a": a, "item_b": b, "count": np.ones(40, np.int64)}), 60, 1.0)
    feed = ItemBatches(blocks, present, 30, 0, pairs if quantizer.contrastive_weight else None)
    network = quantizer.network(dims)
    params = jax.device_get(quantizer.initial_params(network, blocks, present, jax.random.key(0)))
    objective, batch, key = quantizer.objective(network), feed.batch(0), jax.random.key(1)

    def mean_loss(params):
        total, items, _ = objective(params, jax.device_put(batch), key)
        return total / items

    loss, gradients = jax.value_and_grad(mean_loss)(params)
    model = torch_rqvae.from_jax(network, params)
    rows = batch["block_0"].shape[0] * batch["block_0"].shape[1]
    keep = torch.tensor(np.array(draw_levels(key, rows, len(network.codebook_sizes))))
    theirs = torch_rqvae.TorchObjective(model, objective)(
        {name: torch.tensor(value) for name, value in batch.items()}, keep if objective.progressive_masking else None
    )
    theirs.backward()
    assert theirs.item() == pytest.approx(float(loss), rel=1e-5)
    codebooks = {f"codebook_{level}": codebook.grad for level, codebook in enumerate(model.codebooks)}
    kernels = {"encoders_0": model.encoders[0][0].weight.grad.T, "decoders_0": model.decoders[0][0].weight.grad.T}
    for name, gradient in codebooks.items():
        np.testing.assert_allclose(gradient, gradients[name], rtol=1e-3, atol=1e-5)
    for name, gradient in kernels.items():
        np.testing.assert_allclose(gradient, gradients[name]["layers_0"]["kernel"], rtol=1e-3, atol=1e-5)
    if quantizer.contrastive_weight:
        assert 0 < batch["paired"].sum() < len(batch["paired"])
        np.testing.assert_allclose(
            model.head[0].weight.grad.T, gradients["head"]["layers_0"]["kernel"], rtol=1e-3, atol=1e-5
        )
