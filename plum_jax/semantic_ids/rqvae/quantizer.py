"""RqVae: trains the network on a corpus's feature blocks, and makes the codec of what was trained."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.co_watch import co_watch_pairs
from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.assignment import assign
from plum_jax.semantic_ids.codec import Codec, fitted_items
from plum_jax.semantic_ids.inputs import QuantizerError, fit_inputs, with_mean_squared_length
from plum_jax.semantic_ids.quality import code_usage
from plum_jax.semantic_ids.quantization import Quantization, check_codebook_sizes, quantize_with
from plum_jax.semantic_ids.residual_kmeans import fit_codebooks
from plum_jax.semantic_ids.rqvae.dead_codes import DeadCodeRestart
from plum_jax.semantic_ids.rqvae.encoder import RqVaeEncoder, encode, pieces, read_inputs
from plum_jax.semantic_ids.rqvae.network import Gradient, Params, RqVaeNetwork
from plum_jax.semantic_ids.rqvae.objective import RqVaeObjective
from plum_jax.semantic_ids.rqvae.pairs import CoWatched, ItemBatches
from plum_jax.semantic_ids.table import number_prefixes
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.step import FromHost
from plum_jax.training.trainer import train
from plum_jax.training.training_config import TrainingConfig

SAMPLE = 1 << 16  # items that usage is watched, and codebooks are started and restarted on


@dataclasses.dataclass(frozen=True)
class RqVae:
    """Trains an RQ-VAE and takes the codes from its trained codebooks. The defaults are SID-v2's (PLUM, papers §1.1).

    Every block is centred, and scaled to a mean squared length of `latent_dim` times its weight: features and latents
    are then of one size, and so are the reconstruction and the quantisation loss. (At variance 1 in each dimension the
    first drowned the second, and residual k-means reconstructed better.) The contrastive loss does not grow with the
    features, so it is multiplied by `latent_dim`: weights of 1 are PLUM's for features of length 1. Codebooks start
    from residual k-means of the untrained encoder's latents (TIGER: k-means of the first batch).

    Attributes:
      codebook_sizes: W_l; SID-v2: W / 2^l.
      hidden_dims: encoder widths; the decoders have them in reverse.
      encoder_dim: width of each block's encoding; they are concatenated and projected. Unused with one block.
      latent_dim: width of latents and codewords.
      block_weights: feature blocks and how much each counts; None: all, equally.
      fuse_blocks: one encoder for the blocks side by side (SID-v1) instead of one each.
      normalise: whether the rows of each block are scaled to length 1 first.
      gradient: "straight_through" or "rotation".
      beta, reconstruction_weight, quantisation_weight, contrastive_weight, temperature, progressive_masking: see
        `RqVaeObjective`.
      contrastive_dims: widths of the head that the contrastive loss is taken on.
      co_watch_window: items at most so many positions apart in a training history are a pair.
      popularity_exponent: how far partners are drawn against their popularity, see `CoWatched`.
      batch_size: items in a step, partners counted; smaller where there are fewer items.
      restart_period: steps after which codes that no item uses are restarted; 0: never. Not in the last fifth.
      training: steps, optimizer, seed and periods. Evaluations report usage and uniqueness over all items.
    """

    codebook_sizes: tuple[int, ...] = (512, 256, 128)
    hidden_dims: tuple[int, ...] = (512, 256, 128)
    encoder_dim: int = 64
    latent_dim: int = 32
    block_weights: Mapping[str, float] | None = None
    fuse_blocks: bool = False
    normalise: bool = True
    gradient: Gradient = "straight_through"
    beta: float = 0.25
    reconstruction_weight: float = 1.0
    quantisation_weight: float = 1.0
    contrastive_weight: float = 1.0
    temperature: float = 1.0
    progressive_masking: bool = True
    contrastive_dims: tuple[int, ...] = (64, 32)
    co_watch_window: int = 3
    popularity_exponent: float = 0.5
    batch_size: int = 512
    restart_period: int = 200
    training: TrainingConfig = TrainingConfig(
        steps=2000, optimizer=AdamW(schedule=WarmupCosine(peak=3e-3), weight_decay=0.0), evaluation_period=500
    )

    def __post_init__(self) -> None:
        gradients = typing.get_args(Gradient)
        if self.gradient not in gradients:
            raise QuantizerError(f"expected a gradient of {', '.join(gradients)}, got {self.gradient!r}")
        weights = (self.reconstruction_weight, self.quantisation_weight, self.contrastive_weight, self.beta)
        if min(weights) < 0 or self.temperature <= 0:
            raise QuantizerError(f"expected loss weights of 0 or more and a temperature above 0, got {self}")

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Trains in a folder of `work_dir` named by config and features (or goes on there), and quantises all items.

        Raises:
          QuantizerError: fewer items than codes in a level, or features that `fit_inputs` refuses.
          LeakError: co-watches would see held-out events.
          FloatingPointError: the training diverges.
        """
        fitted = fitted_items(features, split.learnt_items)
        check_codebook_sizes(self.codebook_sizes, fitted.num_items)
        inputs = fit_inputs(fitted, self.block_weights, self.normalise)
        inputs = with_mean_squared_length(inputs, fitted, self.latent_dim)
        blocks, present = read_inputs(inputs, fitted, self.fuse_blocks)
        network = self.network(tuple(block.shape[1] for block in blocks))
        sample = self._sample(blocks, present)
        fingerprints = {"quantizer": artifact.fingerprint(self), "features": features.fingerprint}
        fingerprints["split"] = split.fingerprint
        params = train(
            self.training,
            directory=epath.Path(work_dir) / artifact.fingerprint(fingerprints),
            init_params=FromHost(functools.partial(self.initial_params, network, *sample)),
            objective=self.objective(network),
            feed=ItemBatches(blocks, present, self._rows(fitted.num_items), self.training.seed, self._pairs(split)),
            fingerprints=fingerprints,
            evaluators={"sids": functools.partial(sid_statistics, network, *sample)},
            maintain=DeadCodeRestart(network, *sample, self.training.seed) if self.restart_period else None,
            maintenance_period=self.restart_period,
            description="RQ-VAE",
        )
        codec = Codec(RqVaeEncoder(inputs, network, params, self.fuse_blocks), trained_codebooks(network, params))
        report = {**sid_statistics(network, blocks, present, params), "decoded_error": {}}
        names = ["+".join(i.name for i in inputs)] if self.fuse_blocks else [i.name for i in inputs]
        report["decoded_error"] = dict(zip(names, decoded_errors(network, params, blocks, present), strict=True))
        return quantize_with(codec, features, report)

    def network(self, block_dims: tuple[int, ...]) -> RqVaeNetwork:
        """The network for blocks of these widths."""
        return RqVaeNetwork(
            block_dims=block_dims,
            hidden_dims=tuple(self.hidden_dims),
            encoder_dim=self.encoder_dim,
            latent_dim=self.latent_dim,
            codebook_sizes=tuple(self.codebook_sizes),
            head_dims=tuple(self.contrastive_dims) if self.contrastive_weight else (),
            gradient=self.gradient,
        )

    def objective(self, network: RqVaeNetwork) -> RqVaeObjective:
        """The loss that the network is trained with."""
        return RqVaeObjective(
            network,
            beta=self.beta,
            reconstruction_weight=self.reconstruction_weight,
            quantisation_weight=self.quantisation_weight,
            contrastive_weight=self.contrastive_weight * self.latent_dim,
            temperature=self.temperature,
            progressive_masking=self.progressive_masking,
        )

    def initial_params(
        self, network: RqVaeNetwork, blocks: tuple[np.ndarray, ...], present: tuple[np.ndarray, ...], rng: jax.Array
    ) -> Params:
        """Random encoders and decoders; codebooks by residual k-means of the latents of these items."""
        first = tuple(block[:1] for block in blocks), tuple(has[:1] for has in present)
        params = jax.jit(network.init)(rng, *first)["params"]
        latents = encode(network, params, blocks, present)
        codebooks = fit_codebooks(latents, self.codebook_sizes, iterations=10, seed=self.training.seed)
        return {**params, **{f"codebook_{level}": jnp.asarray(codebook) for level, codebook in enumerate(codebooks)}}

    def _pairs(self, split: Split) -> CoWatched | None:
        """Co-watches of the learnt items, by their row among them."""
        if not self.contrastive_weight:
            return None
        row = np.cumsum(split.learnt_items) - 1
        pairs = co_watch_pairs(split, self.co_watch_window)
        a, b = row[pairs["item_a"].to_numpy()], row[pairs["item_b"].to_numpy()]
        pairs = pairs.with_columns(item_a=a, item_b=b)
        return CoWatched.from_pairs(pairs, int(split.learnt_items.sum()), self.popularity_exponent)

    def _rows(self, num_items: int) -> int:
        """Rows of a batch, in equal parts for all devices: pairs where there is a contrastive loss, else items."""
        rows = min(self.batch_size // (2 if self.contrastive_weight else 1), num_items)
        return max(rows - rows % jax.device_count(), 1)

    def _sample(
        self, blocks: tuple[np.ndarray, ...], present: tuple[np.ndarray, ...]
    ) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
        """The items that usage is watched and codebooks are started on: all, or SAMPLE of them."""
        if len(present[0]) <= SAMPLE:
            return blocks, present
        chosen = np.random.default_rng(self.training.seed).choice(len(present[0]), SAMPLE, replace=False)
        return tuple(block[chosen] for block in blocks), tuple(has[chosen] for has in present)


def trained_codebooks(network: RqVaeNetwork, params: Params) -> tuple[np.ndarray, ...]:
    """The codebooks among the parameters, L arrays float32 [W_l, D]."""
    return tuple(np.asarray(params[f"codebook_{level}"]) for level in range(len(network.codebook_sizes)))


def sid_statistics(
    network: RqVaeNetwork, blocks: tuple[np.ndarray, ...], present: tuple[np.ndarray, ...], params: Params
) -> dict[str, float]:
    """How well the codebooks are used by items [N, D_m], while they are still being trained.

    Returns:
      "usage_A", "usage_B"...: share of each level's codes that some item has; "uniqueness": share of items whose SID no
      other item has; "collisions": items that share theirs.
    """
    latents = encode(network, params, blocks, present)
    codes = assign(latents, trained_codebooks(network, params)).codes
    _, prefixes = number_prefixes(codes, network.codebook_sizes)
    usage = {f"usage_{u['level']}": u["usage"] for u in code_usage(codes, network.codebook_sizes)}
    alone = int(np.count_nonzero(np.bincount(prefixes[:, -1]) == 1))
    return {**usage, "uniqueness": alone / len(codes), "collisions": float(len(codes) - alone)}


def decoded_errors(
    network: RqVaeNetwork, params: Params, blocks: tuple[np.ndarray, ...], present: tuple[np.ndarray, ...]
) -> list[list[float]]:
    """For each block, the share of its variance that its decoder misses, given the first 1..L levels."""
    errors = np.zeros((len(blocks), len(network.codebook_sizes)))
    for rows, has in pieces(blocks, present):
        errors += np.asarray(_decoded_errors(network, params, rows, has), np.float64)
    totals = [float(np.square(block, dtype=np.float64).sum()) for block in blocks]
    return [(error / total).tolist() for error, total in zip(errors, totals, strict=True)]


@functools.partial(jax.jit, static_argnums=0)
def _decoded_errors(
    network: RqVaeNetwork, params: Params, blocks: tuple[jax.Array, ...], present: tuple[jax.Array, ...]
) -> jax.Array:
    """Sums of squared errors of present items, [blocks, L]."""
    by_level = []
    for levels in range(1, len(network.codebook_sizes) + 1):
        keep = jnp.full(present[0].shape, levels)
        found = network.apply({"params": params}, blocks, present, keep).reconstructions  # type: ignore[union-attr]
        squared = [
            jnp.sum(jnp.square(block - output) * has[:, None])
            for block, output, has in zip(blocks, found, present, strict=True)
        ]
        by_level.append(jnp.stack(squared))
    return jnp.stack(by_level, axis=1)
