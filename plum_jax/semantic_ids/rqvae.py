"""RQ-VAE (TIGER, papers §4.1): an encoder, a residual quantiser trained with it, and a decoder."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.quality import code_usage
from plum_jax.semantic_ids.quantization import Quantization, assign, check_codebook_sizes, mix_blocks
from plum_jax.semantic_ids.residual_kmeans import fit_codebooks
from plum_jax.semantic_ids.table import number_prefixes
from plum_jax.training.batches import array_batches
from plum_jax.training.optimizer import AdamW, WarmupCosine
from plum_jax.training.trainer import TrainingConfig, train

ROWS_AT_ONCE = 4096  # items encoded together outside of training
Params = Mapping[str, Any]
Metrics = dict[str, tuple[jax.Array, jax.Array]]


@flax.struct.dataclass
class RqVaeOutput:
    """What the network makes of a batch of B features.

    Attributes:
      reconstruction: [B, D_in].
      codes: int32 [B, L].
      codebook_loss: [B], sum over levels of |sg[r_l] - e_l|^2.
      commitment_loss: [B], sum over levels of |r_l - sg[e_l]|^2.
    """

    reconstruction: jax.Array
    codes: jax.Array
    codebook_loss: jax.Array
    commitment_loss: jax.Array


class RqVaeNetwork(nn.Module):
    """Encoder MLP, residual codebooks, decoder MLP of the encoder's widths in reverse.

    Attributes:
      input_dim: width of the features.
      hidden_dims: widths of the encoder's hidden layers (ReLU).
      latent_dim: width of latents and codewords, D.
      codebook_sizes: W_l.
    """

    input_dim: int
    hidden_dims: tuple[int, ...]
    latent_dim: int
    codebook_sizes: tuple[int, ...]

    def setup(self) -> None:
        self.encoder = _mlp((*self.hidden_dims, self.latent_dim))
        self.decoder = _mlp((*reversed(self.hidden_dims), self.input_dim))
        self.codebooks = [
            self.param(f"codebook_{level}", nn.initializers.normal(), (size, self.latent_dim))
            for level, size in enumerate(self.codebook_sizes)
        ]

    def encode(self, features: jax.Array) -> jax.Array:
        """Latents [B, D] of features [B, D_in]."""
        return self.encoder(features)

    def __call__(self, features: jax.Array) -> RqVaeOutput:
        """Quantises and reconstructs features [B, D_in]; the decoder's gradient passes the quantiser unchanged."""
        latent = self.encode(features)
        residual, quantised = latent, jnp.zeros_like(latent)
        codebook_loss = commitment_loss = jnp.zeros(latent.shape[0])
        codes = []
        for codebook in self.codebooks:
            # |r|^2 is the same for all codes of a row, so it is left out of the distance.
            distance = jnp.sum(jnp.square(codebook), axis=1) - 2 * residual @ codebook.T
            code = jnp.argmin(distance, axis=1).astype(jnp.int32)
            codeword = codebook[code]
            codebook_loss += jnp.sum(jnp.square(jax.lax.stop_gradient(residual) - codeword), axis=1)
            commitment_loss += jnp.sum(jnp.square(residual - jax.lax.stop_gradient(codeword)), axis=1)
            residual -= jax.lax.stop_gradient(codeword)
            quantised += codeword
            codes.append(code)
        straight_through = latent + jax.lax.stop_gradient(quantised - latent)
        return RqVaeOutput(
            reconstruction=self.decoder(straight_through),
            codes=jnp.stack(codes, axis=1),
            codebook_loss=codebook_loss,
            commitment_loss=commitment_loss,
        )


def apply(network: RqVaeNetwork, params: Params, features: jax.Array) -> RqVaeOutput:
    """The network's output for features [B, D_in]."""
    output: Any = network.apply({"params": params}, features)
    return output


def _mlp(dims: tuple[int, ...]) -> nn.Sequential:
    layers: list[Callable] = []
    for dim in dims[:-1]:
        layers += [nn.Dense(dim, kernel_init=nn.initializers.he_normal()), nn.relu]
    return nn.Sequential([*layers, nn.Dense(dims[-1])])


@dataclasses.dataclass(frozen=True)
class RqVaeObjective:
    """TIGER's loss: |x - x^|^2 + sum_l |sg[r_l] - e_l|^2 + beta |r_l - sg[e_l]|^2, summed over a batch.

    Attributes:
      network: what is trained.
      beta: weight of the commitment of the latents to their codewords.
    """

    network: RqVaeNetwork
    beta: float

    def __call__(self, params: Params, batch: Mapping[str, jax.Array], rng: jax.Array | None) -> tuple:
        """Sums of loss and items over a batch {"features": [B, D_in]}, and metrics as sums."""
        del rng
        features = batch["features"]
        output = apply(self.network, params, features)
        reconstruction_loss = jnp.sum(jnp.square(features - output.reconstruction), axis=1)
        loss = reconstruction_loss + output.codebook_loss + self.beta * output.commitment_loss
        items = jnp.float32(features.shape[0])
        metrics: Metrics = {
            # Centred features: this is the share of their variance that the decoder does not give back.
            "reconstruction_error": (jnp.sum(reconstruction_loss), jnp.sum(jnp.square(features))),
            "quantisation_error": (jnp.sum(output.commitment_loss), items),
        }
        return jnp.sum(loss), items, metrics


@dataclasses.dataclass(frozen=True)
class RqVae:
    """Trains an RQ-VAE on mixed feature blocks and takes the codes from its trained codebooks.

    The features are centred, and scaled to a mean squared length of `latent_dim`: features and latents are then of one
    size, and so are the reconstruction and the quantisation loss. (At variance 1 in each dimension the first drowned
    the second, and residual k-means reconstructed better.) Codebooks start from residual k-means of the untrained
    encoder's latents (TIGER: k-means of the first batch).

    Attributes:
      codebook_sizes: W_l.
      hidden_dims: encoder widths; the decoder has them in reverse.
      latent_dim: width of latents and codewords.
      beta: commitment weight.
      block_weights: feature blocks and how much each counts; None: all, equally (see `mix_blocks`).
      normalise: whether the rows of each block are scaled to length 1 first.
      batch_size: items in a step; smaller where there are fewer items.
      training: steps, optimizer, seed and periods. Evaluations report the use of every codebook over all items.
    """

    codebook_sizes: tuple[int, ...] = (256, 256, 256)
    hidden_dims: tuple[int, ...] = (512, 256, 128)
    latent_dim: int = 32
    beta: float = 0.25
    block_weights: Mapping[str, float] | None = None
    normalise: bool = True
    batch_size: int = 256
    training: TrainingConfig = TrainingConfig(
        steps=2000, optimizer=AdamW(schedule=WarmupCosine(peak=3e-3), weight_decay=0.0), evaluation_period=500
    )

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Trains in a folder of `work_dir` named by config and features (or goes on there), and quantises all items.

        Raises:
          QuantizerError: fewer items than codes in a level, or features that `mix_blocks` refuses.
          FloatingPointError: the training diverges.
        """
        del split  # item features only
        mixed, imputed = mix_blocks(features, self.block_weights, self.normalise)
        check_codebook_sizes(self.codebook_sizes, len(mixed))
        mixed -= mixed.mean(axis=0)
        mixed *= np.sqrt(self.latent_dim / np.square(mixed).sum(axis=1).mean())
        network = RqVaeNetwork(mixed.shape[1], self.hidden_dims, self.latent_dim, self.codebook_sizes)
        fingerprints = {"quantizer": artifact.fingerprint(self), "features": features.fingerprint}
        params = train(
            self.training,
            directory=epath.Path(work_dir) / artifact.fingerprint(fingerprints),
            init_params=functools.partial(self.initial_params, network, mixed),
            objective=RqVaeObjective(network, self.beta),
            feed=array_batches({"features": mixed}, self._rows(len(mixed)), self.training.seed),
            fingerprints=fingerprints,
            evaluators={"sids": functools.partial(sid_statistics, network, mixed)},
            description="RQ-VAE",
        )
        latents = encode(network, params, mixed)
        codebooks = trained_codebooks(network, params)
        codes = assign(latents, codebooks)
        report = {"imputed_items": imputed, **sid_statistics(network, mixed, params)}
        return Quantization(codes=codes, codebooks=codebooks, latents=latents, report=report)

    def _rows(self, num_items: int) -> int:
        """Items in a step: `batch_size`, or fewer where there are not so many, in equal parts for all devices."""
        rows = min(self.batch_size, num_items)
        return max(rows - rows % jax.device_count(), 1)

    def initial_params(self, network: RqVaeNetwork, features: np.ndarray, rng: jax.Array) -> Params:
        """Random encoder and decoder; codebooks by residual k-means of the latents of all features [N, D_in]."""
        params = jax.jit(network.init)(rng, features[:1])["params"]
        latents = encode(network, params, features)
        codebooks = fit_codebooks(latents, self.codebook_sizes, iterations=10, seed=self.training.seed)
        return {**params, **{f"codebook_{level}": jnp.asarray(codebook) for level, codebook in enumerate(codebooks)}}


def encode(network: RqVaeNetwork, params: Params, features: np.ndarray) -> np.ndarray:
    """Latents, float32 [N, D], of features [N, D_in]."""
    return np.concatenate([np.asarray(_encode(network, params, rows)) for rows in _chunks(features)])[: len(features)]


def trained_codebooks(network: RqVaeNetwork, params: Params) -> tuple[np.ndarray, ...]:
    """The codebooks among the parameters, L arrays float32 [W_l, D]."""
    return tuple(np.asarray(params[f"codebook_{level}"]) for level in range(len(network.codebook_sizes)))


def sid_statistics(network: RqVaeNetwork, features: np.ndarray, params: Params) -> dict[str, float]:
    """How well the codebooks are used by all items [N, D_in], while they are still being trained.

    Returns:
      "usage_A", "usage_B"...: share of each level's codes that some item has; "uniqueness": share of items whose SID no
      other item has; "reconstruction_error": share of the features' variance that the decoder does not give back.
    """
    outputs = [jax.device_get(_reconstruct(network, params, rows)) for rows in _chunks(features)]
    codes, errors = (np.concatenate(parts)[: len(features)] for parts in zip(*outputs, strict=True))
    _, prefixes = number_prefixes(codes, network.codebook_sizes)
    usage = {f"usage_{u['level']}": u["usage"] for u in code_usage(codes, network.codebook_sizes)}
    alone = int(np.count_nonzero(np.bincount(prefixes[:, -1]) == 1))
    return {
        **usage,
        "uniqueness": alone / len(features),
        "reconstruction_error": float(errors.sum()) / float(np.square(features).sum()),
    }


@functools.partial(jax.jit, static_argnums=0)
def _encode(network: RqVaeNetwork, params: Params, features: jax.Array) -> jax.Array:
    latents: Any = network.apply({"params": params}, features, method="encode")
    return latents


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(network: RqVaeNetwork, params: Params, features: jax.Array) -> tuple[jax.Array, jax.Array]:
    output = apply(network, params, features)
    return output.codes, jnp.sum(jnp.square(features - output.reconstruction), axis=1)


def _chunks(features: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in pieces of one shape, so that each is compiled once; the last is filled up with zeros."""
    size = min(ROWS_AT_ONCE, len(features))
    for start in range(0, len(features), size):
        rows = features[start : start + size]
        yield np.pad(rows, ((0, size - len(rows)), (0, 0)))
