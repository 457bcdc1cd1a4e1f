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
from plum_jax.semantic_ids.quantization import Quantization, assign, bounded_threads, check_codebook_sizes, mix_blocks


@dataclasses.dataclass(frozen=True)
class ResidualKMeans:
    """Quantises mixed feature blocks by k-means on residuals, level by level (faiss, float32).

    Attributes:
      codebook_sizes: W_l.
      block_weights: feature blocks to quantise and how much each counts; None: all, equally (see `mix_blocks`).
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
          QuantizerError: fewer items than codes in a level, or features that `mix_blocks` refuses.
        """
        del split, work_dir  # item features only, and nothing worth resuming
        latents, imputed = mix_blocks(features, self.block_weights, self.normalise)
        check_codebook_sizes(self.codebook_sizes, len(latents))
        codebooks = fit_codebooks(
            latents,
            self.codebook_sizes,
            iterations=self.iterations,
            points_per_code=self.points_per_code,
            seed=self.seed,
            threads=self.threads,
        )
        codes = assign(latents, codebooks, self.threads)
        return Quantization(codes=codes, codebooks=codebooks, latents=latents, report={"imputed_items": imputed})


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
    with bounded_threads(threads):
        for level, size in enumerate(tqdm(codebook_sizes, desc="residual k-means", unit="level", delay=1)):
            kmeans = faiss.Kmeans(
                residual.shape[1],
                size,
                niter=iterations,
                seed=seed + level,
                min_points_per_centroid=1,  # only silences faiss's advice to bring more points
                max_points_per_centroid=points_per_code,
            )
            kmeans.train(residual)
            codebook = np.asarray(kmeans.centroids)
            residual -= codebook[assign(residual, [codebook], threads)[:, 0]]
            codebooks.append(codebook)
    return tuple(codebooks)
