"""Quantization: what every quantiser hands on, and how it reads the features."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import faiss
import numpy as np
from etils import epath

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.corpus.features.block import normalised
from plum_jax.corpus.splits import Split


class QuantizerError(ValueError):
    """Features and codebooks that do not fit each other."""


@dataclasses.dataclass(frozen=True, eq=False)
class Quantization:
    """Codes of all items before collisions are treated, and what they were found with.

    The code of each level is the nearest row of its codebook to what the levels before have left of the latent.

    Attributes:
      codes: int32 [N, L].
      codebooks: L arrays, float32 [W_l, D].
      latents: float32 [N, D], the vectors that were quantised.
      report: JSON values of the quantiser's own, for the quality report.
    """

    codes: np.ndarray
    codebooks: tuple[np.ndarray, ...]
    latents: np.ndarray
    report: Mapping[str, Any]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(len(codebook) for codebook in self.codebooks)

    def residual(self, level: int, items: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What the levels before `level` leave of the latents, float32 [items, D]; level L is the final error."""
        residual = self.latents[items].copy()
        for codebook, codes in zip(self.codebooks[:level], self.codes[items].T, strict=False):
            residual -= codebook[codes]
        return residual


class Quantizer(Protocol):
    """A frozen dataclass whose fields decide the codes."""

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Codes of all items; `work_dir` keeps what a killed run resumes from."""


def mix_blocks(
    features: ItemFeatures, block_weights: Mapping[str, float] | None = None, normalise: bool = True
) -> tuple[np.ndarray, dict[str, int]]:
    """Feature blocks side by side, each row of a block scaled to length 1 and then by the block's weight.

    So a weight says how much a block counts, whatever its dimension and scale. An item without a block gets the mean of
    that block over the items that have it: then the missing block draws it to no code in particular.

    Args:
      features: blocks of N items.
      block_weights: block name -> weight; blocks that are not named are left out. None: all, with weight 1.
      normalise: whether rows are scaled to length 1.

    Returns:
      float32 [N, sum of D] in the order of `features.blocks`, and the number of imputed items of each block.

    Raises:
      FeatureError: a name of no block.
      QuantizerError: a weight that is not above 0, NaN or infinity, a block that no item has, or features that are the
        same for all items.
    """
    weights = {block.name: 1.0 for block in features.blocks} if block_weights is None else dict(block_weights)
    if not weights or min(weights.values()) <= 0:
        raise QuantizerError(f"expected weights above 0 for one or more feature blocks, got {weights}")
    chosen = {name: features.block(name) for name in weights}
    parts, imputed = [], {}
    for block in features.blocks:
        if block.name in chosen:
            parts.append(_complete(block, normalise) * np.float32(weights[block.name]))
            imputed[block.name] = int((~block.present).sum())
    mixed = np.concatenate(parts, axis=1)
    if len(mixed) > 1 and (mixed == mixed[0]).all():
        raise QuantizerError(f"all {len(mixed)} items have the same features: nothing can tell their SIDs apart")
    return mixed, imputed


def _complete(block: FeatureBlock, normalise: bool) -> np.ndarray:
    """A block's values with the mean in place of missing rows."""
    if not block.present.any():
        raise QuantizerError(f"no item has feature block {block.name!r}: leave it out of `block_weights`")
    wrong = block.present & ~np.isfinite(block.values).all(axis=1)
    if wrong.any():
        raise QuantizerError(f"feature block {block.name!r} has NaN or infinity at item row {np.argmax(wrong)}")
    values = normalised(block.values) if normalise else block.values
    return np.where(block.present[:, None], values, values[block.present].mean(axis=0))


def check_codebook_sizes(codebook_sizes: Sequence[int], num_items: int) -> None:
    """Raises QuantizerError where there are no levels, or fewer items than codes in a level."""
    if not codebook_sizes or min(codebook_sizes) < 1:
        raise QuantizerError(f"expected codebook sizes of 1 or more for 1 or more levels, got {tuple(codebook_sizes)}")
    for level, size in enumerate(codebook_sizes):
        if size > num_items:
            raise QuantizerError(
                f"level {level} has {size} codes, but there are only {num_items} items: choose codebook_sizes of at "
                f"most {num_items}; a quarter of the items or less is sensible"
            )


def assign(latents: np.ndarray, codebooks: Sequence[np.ndarray], threads: int = 1) -> np.ndarray:
    """int32 [N, L]: the nearest codeword of each level to what the levels before have left of latents [N, D]."""
    residual = np.array(latents, np.float32, order="C")
    codes = np.empty((len(residual), len(codebooks)), np.int32)
    with bounded_threads(threads):
        for level, codebook in enumerate(codebooks):
            _, nearest = faiss.knn(residual, np.ascontiguousarray(codebook, np.float32), 1)
            codes[:, level] = nearest[:, 0]
            residual -= codebook[codes[:, level]]
    return codes


@contextlib.contextmanager
def bounded_threads(threads: int) -> Iterator[None]:
    """Bounds faiss's thread pool: on shared cores its threads spin while they wait for each other.

    Measured on two busy cores: k-means assignment ran 4-8 times slower with two threads than with one.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
