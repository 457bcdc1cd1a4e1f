"""Product quantisation: each level clusters its own part of the features, after a rotation that evens the parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import faiss
import numpy as np
from etils import epath

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.assignment import bounded_threads
from plum_jax.semantic_ids.codec import Codec, LinearEncoder, fitted_items
from plum_jax.semantic_ids.inputs import fit_inputs
from plum_jax.semantic_ids.quantization import Quantization, check_codebook_sizes, quantize_with
from plum_jax.semantic_ids.residual_kmeans import fit_codebook


@dataclasses.dataclass(frozen=True)
class ProductQuantizer:
    """PQ (Jégou et al. 2011), with the rotation of OPQ (Ge et al. 2013) learnt by faiss.

    The codeword of a level is zero outside the level's own dimensions, so the codes are those of a residual quantiser
    with these codebooks, and all that knows those (assignment, errors, collisions, new items) serves here too. Levels
    are not ordered from coarse to fine: a shared prefix means less than with residual codes.

    Attributes:
      codebook_sizes: W_l.
      block_weights, normalise: see `ResidualKMeans`.
      rotate: OPQ; False cuts the features as they come (plain PQ).
      iterations: of k-means in each part.
      rotation_iterations: of OPQ's alternation.
      points_per_code, seed, threads: see `ResidualKMeans`.
    """

    codebook_sizes: tuple[int, ...] = (256, 256, 256)
    block_weights: Mapping[str, float] | None = None
    normalise: bool = True
    rotate: bool = True
    iterations: int = 25
    rotation_iterations: int = 20
    points_per_code: int = 256
    seed: int = 0
    threads: int = 1

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Codes of all items.

        Raises:
          QuantizerError: fewer items than codes in a level, or features that `fit_inputs` refuses.
        """
        del work_dir  # nothing worth resuming
        fitted = fitted_items(features, split.learnt_items)
        check_codebook_sizes(self.codebook_sizes, fitted.num_items)
        inputs = fit_inputs(fitted, self.block_weights, self.normalise)
        encoder = LinearEncoder(inputs, self._rotation(LinearEncoder(inputs)(fitted)))
        latents = encoder(fitted)
        width = latents.shape[1] // len(self.codebook_sizes)
        codebooks = []
        for level, size in enumerate(self.codebook_sizes):
            part = slice(level * width, (level + 1) * width)
            codebook = np.zeros((size, latents.shape[1]), np.float32)
            codebook[:, part] = fit_codebook(
                np.ascontiguousarray(latents[:, part]),
                size,
                iterations=self.iterations,
                points_per_code=self.points_per_code,
                seed=self.seed + level,
                threads=self.threads,
            )
            codebooks.append(codebook)
        return quantize_with(Codec(encoder, tuple(codebooks)), features, {})

    def _rotation(self, mixed: np.ndarray) -> np.ndarray:
        """float32 [D, D'], D' the next multiple of the number of levels."""
        levels = len(self.codebook_sizes)
        dim = -(-mixed.shape[1] // levels) * levels
        if not self.rotate:
            return np.eye(mixed.shape[1], dim, dtype=np.float32)
        rng = np.random.default_rng(self.seed)
        points = min(len(mixed), self.points_per_code * max(self.codebook_sizes))
        sample = np.zeros((points, dim), np.float32)
        sample[:, : mixed.shape[1]] = mixed[rng.choice(len(mixed), points, replace=False)]
        matrix = faiss.OPQMatrix(dim, levels)
        matrix.niter = self.rotation_iterations
        bits = max(1, int(np.log2(min(max(self.codebook_sizes), points))))
        product = faiss.ProductQuantizer(dim, levels, bits)
        product.cp.min_points_per_centroid = 1  # only silences faiss's advice to bring more points
        matrix.pq = product
        with bounded_threads(self.threads):
            matrix.train(sample)
        rotation = faiss.vector_to_array(matrix.A).reshape(matrix.d_out, matrix.d_in).T
        return np.ascontiguousarray(rotation[: mixed.shape[1]])
