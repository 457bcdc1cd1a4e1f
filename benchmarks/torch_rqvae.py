"""The RQ-VAE of plum_jax in PyTorch, written as for its own sake: what RQ-VAE training is timed against."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from plum_jax.semantic_ids.rqvae.network import RqVaeNetwork
from plum_jax.semantic_ids.rqvae.objective import RqVaeObjective

Batch = dict[str, torch.Tensor]


class TorchRqVae(nn.Module):
    """The network of `RqVaeNetwork` with straight-through gradients, same parameters, same losses."""

    def __init__(self, network: RqVaeNetwork) -> None:
        super().__init__()
        if network.gradient != "straight_through":
            raise ValueError(f"expected the straight-through gradient, got {network.gradient!r}")
        single = len(network.block_dims) == 1
        width = network.latent_dim if single else network.encoder_dim
        hidden = tuple(network.hidden_dims)
        self.encoders = nn.ModuleList(_mlp((dim, *hidden, width)) for dim in network.block_dims)
        self.decoders = nn.ModuleList(_mlp((network.latent_dim, *hidden[::-1], dim)) for dim in network.block_dims)
        self.absent = nn.ParameterList(torch.zeros(width) for _ in network.block_dims)
        joined = width * len(network.block_dims)
        self.projection = nn.Identity() if single else nn.Linear(joined, network.latent_dim)
        self.head = _mlp((network.latent_dim, *network.head_dims)) if network.head_dims else None
        self.codebooks = nn.ParameterList(torch.zeros(size, network.latent_dim) for size in network.codebook_sizes)

    def forward(
        self, blocks: Sequence[torch.Tensor], present: Sequence[torch.Tensor], keep: torch.Tensor | None
    ) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Reconstructions [B, D_m], codebook and commitment losses [B], and the head's output [B, H] or None."""
        outputs = [
            torch.where(has[:, None], encoder(block), absent)
            for encoder, block, has, absent in zip(self.encoders, blocks, present, self.absent, strict=True)
        ]
        latent = self.projection(torch.cat(outputs, dim=1))
        residual, kept = latent, torch.zeros_like(latent)
        codebook_loss = commitment_loss = torch.zeros(())
        for level, codebook in enumerate(self.codebooks):
            codeword = functional.embedding(_nearest(residual, codebook), codebook)
            codebook_loss = codebook_loss + (residual.detach() - codeword).square().sum(dim=1)
            codeword = codeword.detach()
            commitment_loss = commitment_loss + (residual - codeword).square().sum(dim=1)
            residual = residual - codeword
            kept = kept + (codeword if keep is None else codeword * (level < keep)[:, None])
        passed = latent + (kept - latent).detach()
        contrast = None if self.head is None else self.head(passed)
        return [decoder(passed) for decoder in self.decoders], codebook_loss, commitment_loss, contrast


@torch.no_grad()
def _nearest(residual: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    return torch.addmm(codebook.square().sum(dim=1), residual, codebook.T, alpha=-2).argmin(dim=1)


def _mlp(dims: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for dim_in, dim_out in zip(dims[:-2], dims[1:-1], strict=True):
        layers += [nn.Linear(dim_in, dim_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(dims[-2], dims[-1]))


@dataclasses.dataclass(frozen=True)
class TorchObjective:
    """The mean loss of `RqVaeObjective` over a batch, without its metrics."""

    model: TorchRqVae
    config: RqVaeObjective

    def __call__(self, batch: Batch, keep: torch.Tensor | None) -> torch.Tensor:
        """Loss of a batch as `ItemBatches` gives it."""
        config, blocks = self.config, range(len(self.config.network.block_dims))
        inputs = [batch[f"block_{m}"].flatten(0, 1) for m in blocks]
        present = [batch[f"present_{m}"].flatten() for m in blocks]
        found, codebook_loss, commitment_loss, contrast = self.model(inputs, present, keep)
        errors = [
            ((block - output).square().sum(dim=1) * has).sum()
            for block, output, has in zip(inputs, found, present, strict=True)
        ]
        quantisation = (codebook_loss + config.beta * commitment_loss).sum()
        loss = (config.reconstruction_weight * sum(errors) + config.quantisation_weight * quantisation) / len(inputs[0])
        if contrast is not None:
            loss = loss + config.contrastive_weight * _info_nce(contrast, batch, config.temperature)
        return loss


def _info_nce(contrast: torch.Tensor, batch: Batch, temperature: float) -> torch.Tensor:
    """The mean over those of the items [2P] that have a partner, of -log p(partner)."""
    item, paired = batch["item"].flatten(), batch["paired"].repeat_interleave(2)
    partner = torch.arange(len(item)) ^ 1
    with torch.no_grad():
        same = (item[:, None] == item[None, :]) | (item[partner][:, None] == item[None, :])
        same.scatter_(1, partner[:, None], False)
    logits = (contrast @ contrast.T / temperature).masked_fill(same, -torch.inf)
    losses = functional.cross_entropy(logits, partner, reduction="none")
    return torch.where(paired, losses, 0).sum() / paired.sum().clamp(min=1)


def from_jax(network: RqVaeNetwork, params: Mapping[str, Any]) -> TorchRqVae:
    """The PyTorch model with these parameters of ours."""
    model = TorchRqVae(network)
    for m in range(len(network.block_dims)):
        _copy_mlp(model.encoders[m], params[f"encoders_{m}"])
        _copy_mlp(model.decoders[m], params[f"decoders_{m}"])
        _copy(model.absent[m], params[f"absent_{m}"])
    if isinstance(model.projection, nn.Linear):
        _copy_linear(model.projection, params["projection"])
    if model.head is not None:
        _copy_mlp(model.head, params["head"])
    for level, codebook in enumerate(model.codebooks):
        _copy(codebook, params[f"codebook_{level}"])
    return model


def _copy_mlp(layers: Any, params: Mapping[str, Any]) -> None:
    for number, layer in enumerate(layers):
        if isinstance(layer, nn.Linear):
            _copy_linear(layer, params[f"layers_{number}"])


def _copy_linear(layer: nn.Linear, params: Mapping[str, Any]) -> None:
    _copy(layer.weight, np.asarray(params["kernel"]).T)
    _copy(layer.bias, params["bias"])


def _copy(parameter: torch.Tensor, value: Any) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(np.array(value)))
