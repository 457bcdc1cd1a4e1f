"""The losses of SID-v1 and SID-v2 (papers §1.1): reconstruction, residual quantisation, co-occurrence contrast."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from plum_jax.semantic_ids.rqvae.network import Params, RqVaeNetwork, RqVaeOutput

Metrics = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class RqVaeObjective:
    """L = w_recon sum_m |x_m - x^_m|^2 + w_rq sum_l (|sg[r_l] - e_l|^2 + beta |r_l - sg[e_l]|^2) + w_con L_con.

    PLUM prints unit weights. L_con is InfoNCE over the 2P items of P co-watched pairs with the dot product as
    similarity. Deviations: the -log that the paper's formula leaves out; an item is no negative of itself, nor is a
    copy of it or of its partner elsewhere in the batch; and a pair counts only where a co-watched partner was found.

    Attributes:
      network: what is trained.
      beta: weight of the commitment of the latents to their codewords (not in PLUM; .25 as TIGER).
      reconstruction_weight, quantisation_weight, contrastive_weight: w_recon, w_rq, w_con.
      temperature: divides the similarities (not in PLUM: 1).
      progressive_masking: decoders and head see the first r levels, r drawn from 1..L for each item. PLUM's printed
        mask keeps r - 1; the figure's levels, counted from 0, keep r.
    """

    network: RqVaeNetwork
    beta: float = 0.25
    reconstruction_weight: float = 1.0
    quantisation_weight: float = 1.0
    contrastive_weight: float = 0.0
    temperature: float = 1.0
    progressive_masking: bool = False

    def __call__(self, params: Params, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> tuple:
        """Sums of loss and items over a batch, and metrics as (sum, weight).

        Args:
          params: of the network.
          batch: "block_m" float32 [P, S, D_m] and "present_m" bool [P, S] for each block m; with contrast also "item"
            int32 [P, S] and "paired" bool [P]. S is 2 where partners are drawn, else 1.
          rng: for the masks.
        """
        blocks, present = unpack(batch, len(self.network.block_dims))
        keep = None
        if self.progressive_masking:
            if rng is None:
                raise ValueError("progressive masking draws levels at random: expected a key, got None")
            keep = draw_levels(rng, blocks[0].shape[0], len(self.network.codebook_sizes))
        output = apply(self.network, params, blocks, present, keep)
        errors = [
            jnp.sum(jnp.square(block - found), axis=1) * has
            for block, found, has in zip(blocks, output.reconstructions, present, strict=True)
        ]
        quantisation = output.codebook_loss + self.beta * output.commitment_loss
        loss = self.reconstruction_weight * sum(errors) + self.quantisation_weight * quantisation
        total, items = jnp.sum(loss), jnp.float32(loss.shape[0])
        variance = sum((jnp.sum(jnp.square(block)) for block in blocks), jnp.float32(0))  # blocks are centred
        metrics: Metrics = {
            "reconstruction_error": (jnp.sum(sum(errors)), variance),  # the share that the decoders do not give back
            "quantisation_error": (jnp.sum(output.commitment_loss), items),
        }
        if self.contrastive_weight:
            contrast, count, hits = info_nce(output, batch["item"], batch["paired"], self.temperature)
            # A mean over pairs, counted as often as there are items: all three losses are then sums over items.
            total += self.contrastive_weight * items * contrast / jnp.maximum(count, 1)
            metrics |= {"contrastive_loss": (contrast, count), "contrastive_accuracy": (hits, count)}
        return total, items, metrics


def draw_levels(rng: jax.Array, rows: int, levels: int) -> jax.Array:
    """int32 [rows] in 1..levels: how many levels of each item are kept."""
    return jax.random.randint(rng, (rows,), 1, levels + 1)


def info_nce(
    output: RqVaeOutput, item: jax.Array, paired: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """InfoNCE over the items of P pairs, each of which must pick its partner among the others.

    Args:
      output: with contrast [2P, H], row 2p and 2p + 1 being a pair.
      item: int32 [P, 2], so that copies of the item or of its partner are no negatives.
      paired: bool [P].
      temperature: divides the dot products.

    Returns:
      The sum of -log p(partner), how many items it is over, and how many of them have their partner first.
    """
    assert output.contrast is not None
    flat = item.reshape(-1)
    partner = jnp.flip(item, axis=1).reshape(-1)
    others = jnp.flip(output.contrast.reshape(*item.shape, -1), axis=1).reshape(output.contrast.shape)
    chosen = jnp.sum(output.contrast * others, axis=1) / temperature
    # The partner is among `same`, so only negatives are left in the matrix: no pass over it is needed to pick it out.
    same = (flat[:, None] == flat[None, :]) | (partner[:, None] == flat[None, :])
    negatives = jnp.where(same, -jnp.inf, output.contrast @ output.contrast.T / temperature)
    losses = jnp.logaddexp(jax.nn.logsumexp(negatives, axis=1), chosen) - chosen
    counted = jnp.repeat(paired, 2)
    hits = counted & (chosen >= jnp.max(negatives, axis=1))
    return jnp.sum(jnp.where(counted, losses, 0)), jnp.sum(counted).astype(jnp.float32), jnp.sum(hits)


def unpack(batch: Mapping[str, jax.Array], num_blocks: int) -> tuple[list[jax.Array], list[jax.Array]]:
    """Blocks [P * S, D_m] and presence [P * S] of a batch; a pair's two items are neighbours."""
    blocks = [batch[f"block_{m}"] for m in range(num_blocks)]
    present = [batch[f"present_{m}"].reshape(-1) for m in range(num_blocks)]
    return [block.reshape(-1, block.shape[-1]) for block in blocks], present


def apply(
    network: RqVaeNetwork, params: Params, blocks: Any, present: Any, keep: jax.Array | None = None
) -> RqVaeOutput:
    """The network's output for blocks [B, D_m]."""
    output: Any = network.apply({"params": params}, blocks, present, keep)
    return output
