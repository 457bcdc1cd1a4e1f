"""Co-watch embeddings: items that the same users watch close together get similar vectors."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from tqdm import tqdm

from plum_jax.corpus import co_watch
from plum_jax.corpus.features.block import FeatureBlock, FeatureError, normalised
from plum_jax.corpus.splits import Split


@dataclasses.dataclass(frozen=True)
class CoWatchEmbedding:
    """Low-rank PPMI of training co-watches (Levy and Goldberg 2014): inner products approximate it; scaled to length 1.

    Their truncated SVD, U sqrt(S), but of the positive eigenvalues only: in a direction with a negative one, items that
    are watched together get opposite vectors. (On MovieLens-1M 1 of the 64 largest is negative, on Amazon Beauty none.)

    Attributes:
      dim: D; where there are fewer positive eigenvalues, the last dimensions are zero.
      window: two watches of a user at most so many positions apart are a co-watch.
      name: name of the block.
    """

    dim: int = 64
    window: int = 5
    name: str = "co_watch"

    def compute(self, split: Split) -> FeatureBlock:
        """Items that no training event shows, or whose associations are not among the D strongest, are absent.

        Raises:
          FeatureError: no two items go together in training.
          LeakError: held-out events among those counted.
        """
        num_items = split.corpus.num_items
        matrix = co_watch.ppmi(co_watch.co_watch_pairs(split, self.window), num_items)
        present = np.diff(matrix.indptr) > 0
        if not present.any():
            raise FeatureError(
                f"block {self.name!r}: no two items are watched within {self.window} positions of each other in "
                "training more often than by chance; leave it out"
            )
        values = np.zeros((num_items, self.dim), np.float32)
        factors = scaled_eigenvectors(matrix[present][:, present], self.dim)
        # Items that none of the D vectors reaches have rounding errors for entries, which scaled to length 1 are noise.
        lengths = np.linalg.norm(factors, axis=1)
        factors[lengths < 1e-6 * lengths.max()] = 0
        values[present, : factors.shape[1]] = factors
        # BLAS adds up in another order with other threads; rounded, the block is the same with any number of them.
        return FeatureBlock(self.name, normalised(values).round(5), np.asarray(values.any(axis=1)))


def scaled_eigenvectors(matrix: scipy.sparse.csr_array, dim: int) -> np.ndarray:
    """float64 [N, min(N, dim)]: V sqrt(max(E, 0)) of a symmetric matrix V E V', largest first, the same at every call.

    Signs are free: the largest entry of each column is made positive.
    """
    size = matrix.shape[0]
    if size <= 2 * dim:
        values, vectors = np.linalg.eigh(matrix.toarray())
    else:
        generator = np.random.default_rng(0)  # also for ARPACK's restarts, which equal eigenvalues need
        start = generator.standard_normal(size)
        with tqdm(
            desc="co-watch embedding: matrix products (as many as it takes)", unit=" products", delay=1
        ) as progress:

            def multiply(vector: np.ndarray) -> np.ndarray:
                progress.update()
                return matrix @ vector

            operator = scipy.sparse.linalg.LinearOperator(matrix.shape, matvec=multiply, dtype=matrix.dtype)
            values, vectors = scipy.sparse.linalg.eigsh(operator, k=dim, which="LA", v0=start, rng=generator)
    order = np.argsort(-values, kind="stable")[:dim]
    values, vectors = np.maximum(values[order], 0), vectors[:, order]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(len(order))]
    return vectors * np.where(largest < 0, -1.0, 1.0) * np.sqrt(values)
