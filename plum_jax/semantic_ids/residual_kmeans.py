"""Residual k-means: each level clusters what the levels before have left over. No training, seconds, hard to beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import faiss
import numpy as np
from etils import epath
from tqdm import tqdm

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.assignment import assign, bounded_threads
from plum_jax.semantic_ids.codec import Codec, LinearEncoder, fitted_items
from plum_jax.semantic_ids.inputs import fit_inputs
from plum_jax.semantic_ids.quantization import Quantization, check_codebook_sizes, quantize_with


@dataclasses.dataclass(frozen=True)
class ResidualKMeans:
    """Quantises mixed feature blocks by k-means on residuals, level by level (faiss, float32).

    Attributes:
      codebook_sizes: W_l.
      block_weights: feature blocks to quantise and how much each counts; None: all, equally (see `fit_inputs`).
      normalise: whether the rows of each block are scaled to length 1 first.
      iterations: of Lloyd's algorithm at each level.
      points_per_code: a level is fitted to at most this many items for each of its codes, drawn by `seed`; all items
        are then assigned.
      seed: of the first centroids and of that draw.
      threads: of faiss; more than one pays only on cores that nothing else uses.
    """

    codebook_sizes: tuple[int, ...] = (256, 256, 256)
    block_weights: Mapping[str, float] | None = None
    normalise: bool = True
    iterations: int = 25
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
        encoder = LinearEncoder(fit_inputs(fitted, self.block_weights, self.normalise))
        codebooks = fit_codebooks(
            encoder(fitted),
            self.codebook_sizes,
            iterations=self.iterations,
            points_per_code=self.points_per_code,
            seed=self.seed,
            threads=self.threads,
        )
        return quantize_with(Codec(encoder, codebooks), features, {})


def fit_codebooks(
    vectors: np.ndarray,
    codebook_sizes: Sequence[int],
    *,
    iterations: int = 25,
    points_per_code: int = 256,
    seed: int = 0,
    threads: int = 1,
) -> tuple[np.ndarray, ...]:
    """Residual k-means codebooks, L arrays float32 [W_l, D], of vectors [N, D] with N >= W_l."""
    residual = np.array(vectors, np.float32, order="C")
    codebooks = []
    for level, size in enumerate(tqdm(codebook_sizes, desc="residual k-means", unit=" levels", delay=1)):
        codebook = fit_codebook(
            residual,
            size,
            iterations=iterations,
            points_per_code=points_per_code,
            seed=seed + level,
            threads=threads,
        )
        residual -= codebook[assign(residual, [codebook], threads=threads).codes[:, 0]]
        codebooks.append(codebook)
    return tuple(codebooks)


def fit_codebook(
    vectors: np.ndarray, size: int, *, iterations: int, points_per_code: int, seed: int, threads: int
) -> np.ndarray:
    """k-means centroids, float32 [size, D], of vectors [N, D] with N >= size (faiss)."""
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        size,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,  # only silences faiss's advice to bring more points
        max_points_per_centroid=points_per_code,
    )
    with bounded_threads(threads):
        kmeans.train(vectors)
    return np.asarray(kmeans.centroids)
