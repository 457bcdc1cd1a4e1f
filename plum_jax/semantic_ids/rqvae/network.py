"""The network of TIGER's RQ-VAE (SID-v1) and of PLUM's (SID-v2, papers §1.1), which has more blocks and a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

Params = Mapping[str, Any]
Gradient = Literal["straight_through", "rotation"]


@flax.struct.dataclass
class RqVaeOutput:
    """What the network makes of a batch of B items.

    Attributes:
      reconstructions: one [B, D_m] for each block, from the levels that `keep` kept.
      codes: int32 [B, L].
      codebook_loss: [B], sum over levels of |sg[r_l] - e_l|^2.
      commitment_loss: [B], sum over levels of |r_l - sg[e_l]|^2.
      contrast: [B, P], the contrastive head's output; None where there is no head.
    """

    reconstructions: tuple[jax.Array, ...]
    codes: jax.Array
    codebook_loss: jax.Array
    commitment_loss: jax.Array
    contrast: jax.Array | None


class RqVaeNetwork(nn.Module):
    """An encoder and a decoder for each block, residual codebooks between them, and a head for the contrastive loss.

    Encoders are MLPs (ReLU) block -> hidden widths -> `encoder_dim`; what they give is concatenated and projected to
    `latent_dim`. Decoders have the hidden widths in reverse. One block needs no projection and has none: that is
    TIGER's RQ-VAE, whose encoder ends in the latent. A block that an item does not have is a learnt vector in place of
    its encoder's output. The widths are not in the papers.

    Attributes:
      block_dims: widths of the feature blocks, D_m.
      hidden_dims: widths of the hidden layers.
      encoder_dim: width of z_m; unused with one block.
      latent_dim: width of latents and codewords, D.
      codebook_sizes: W_l.
      head_dims: widths of the contrastive head's layers; () for none.
      gradient: how the decoders' gradient passes the quantiser: unchanged ("straight_through"), or turned and scaled as
        the latent is to become its quantisation ("rotation", Fifty et al. 2024).
    """

    block_dims: tuple[int, ...]
    hidden_dims: tuple[int, ...]
    encoder_dim: int
    latent_dim: int
    codebook_sizes: tuple[int, ...]
    head_dims: tuple[int, ...] = ()
    gradient: Gradient = "straight_through"

    def setup(self) -> None:
        single = len(self.block_dims) == 1
        width = self.latent_dim if single else self.encoder_dim
        self.encoders = [_mlp((*self.hidden_dims, width)) for _ in self.block_dims]
        self.decoders = [_mlp((*reversed(self.hidden_dims), dim)) for dim in self.block_dims]
        self.absent = [self.param(f"absent_{m}", nn.initializers.zeros, (width,)) for m in range(len(self.block_dims))]
        self.projection = None if single else nn.Dense(self.latent_dim)
        self.head = _mlp(self.head_dims) if self.head_dims else None
        self.codebooks = [
            self.param(f"codebook_{level}", nn.initializers.normal(), (size, self.latent_dim))
            for level, size in enumerate(self.codebook_sizes)
        ]

    def encode(self, blocks: Sequence[jax.Array], present: Sequence[jax.Array]) -> jax.Array:
        """Latents [B, D] of blocks [B, D_m], of which each item has those that `present`, bool [B], says."""
        outputs = [
            jnp.where(has[:, None], encoder(block), absent)
            for encoder, block, has, absent in zip(self.encoders, blocks, present, self.absent, strict=True)
        ]
        return outputs[0] if self.projection is None else self.projection(jnp.concatenate(outputs, axis=1))

    def decode(self, quantised: jax.Array) -> tuple[jax.Array, ...]:
        """Reconstructions [B, D_m] of sums of codewords [B, D]."""
        return tuple(decoder(quantised) for decoder in self.decoders)

    def __call__(
        self, blocks: Sequence[jax.Array], present: Sequence[jax.Array], keep: jax.Array | None = None
    ) -> RqVaeOutput:
        """Quantises and reconstructs.

        Args:
          blocks, present: as in `encode`.
          keep: int32 [B], how many levels the decoders and the head see (1..L); None: all.
        """
        latent = self.encode(blocks, present)
        residual, kept = latent, jnp.zeros_like(latent)
        codebook_loss = commitment_loss = jnp.zeros(latent.shape[0])
        codes = []
        for level, codebook in enumerate(self.codebooks):
            code = nearest(residual, codebook)
            codeword = codebook[code]
            codebook_loss += jnp.sum(jnp.square(jax.lax.stop_gradient(residual) - codeword), axis=1)
            commitment_loss += jnp.sum(jnp.square(residual - jax.lax.stop_gradient(codeword)), axis=1)
            codeword = jax.lax.stop_gradient(codeword)
            residual -= codeword
            kept += codeword if keep is None else jnp.where((level < keep)[:, None], codeword, 0)
            codes.append(code)
        passed = straight_through(latent, kept) if self.gradient == "straight_through" else rotate(latent, kept)
        return RqVaeOutput(
            reconstructions=self.decode(passed),
            codes=jnp.stack(codes, axis=1),
            codebook_loss=codebook_loss,
            commitment_loss=commitment_loss,
            contrast=None if self.head is None else self.head(passed),
        )


def nearest(residual: jax.Array, codebook: jax.Array) -> jax.Array:
    """int32 [B], the nearest codeword [W, D] of each residual [B, D]. No gradient passes."""
    residual, codebook = jax.lax.stop_gradient((residual, codebook))
    # |r|^2 is the same for all codes of a row, so it is left out of the distance.
    distance = jnp.sum(jnp.square(codebook), axis=1) - 2 * residual @ codebook.T
    # The first column that has the minimum. XLA's argmin on CPUs is a scalar loop: 13 times slower than two reductions
    # of floats, which hold the numbers of columns exactly.
    columns = jnp.arange(len(codebook), dtype=jnp.float32)
    least = jnp.min(distance, axis=1, keepdims=True)
    return jnp.min(jnp.where(distance <= least, columns, jnp.inf), axis=1).astype(jnp.int32)


def straight_through(latent: jax.Array, quantised: jax.Array) -> jax.Array:
    """`quantised` [B, D], with the gradient of the identity to `latent`."""
    return latent + jax.lax.stop_gradient(quantised - latent)


def rotate(latent: jax.Array, quantised: jax.Array) -> jax.Array:
    """`quantised` [B, D] as a rotation and scaling of `latent` that are constants to the gradient (Fifty et al. 2024).

    q = (|q| / |z|) (z - 2 s s^T z + 2 q^ z^^T z) with unit vectors z^, q^ and s = (z^ + q^) / |z^ + q^|.
    """
    from_direction, from_length = _unit(jax.lax.stop_gradient(latent))
    to_direction, to_length = _unit(jax.lax.stop_gradient(quantised))
    between, _ = _unit(from_direction + to_direction)

    def along(direction: jax.Array) -> jax.Array:
        return jnp.sum(direction * latent, axis=1, keepdims=True)

    turned = latent - 2 * between * along(between) + 2 * to_direction * along(from_direction)
    return to_length / from_length * turned


def _unit(vectors: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Directions [B, D] and lengths [B, 1]; lengths below 1e-6 count as that."""
    lengths = jnp.maximum(jnp.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return vectors / lengths, lengths


def _mlp(dims: tuple[int, ...]) -> nn.Sequential:
    layers: list[Callable] = []
    for dim in dims[:-1]:
        layers += [nn.Dense(dim, kernel_init=nn.initializers.he_normal()), nn.relu]
    return nn.Sequential([*layers, nn.Dense(dims[-1])])
