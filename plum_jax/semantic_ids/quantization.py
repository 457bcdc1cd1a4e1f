"""Quantization: what every quantiser hands on, and the one thing it must be able to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.fit_statistics import FitStatistics
from plum_jax.semantic_ids.inputs import QuantizerError, imputed_items


@dataclasses.dataclass(frozen=True, eq=False)
class Settled:
    """Says of codes that they stay as they are: collisions are treated, and the codec's statistics are known.

    Attributes:
      collision_policy: how they were treated.
      fit_statistics: of the items that the codebooks were fitted to, once.
    """

    collision_policy: str
    fit_statistics: FitStatistics


@dataclasses.dataclass(frozen=True, eq=False)
class Quantization:
    """Codes of all items before collisions are treated (unless `settled`), and what they were found with.

    Attributes:
      codes: int32 [N, L].
      codebook_sizes: W_l.
      codec: gives new items their codes, and says how near an item is to a code; None for IDs that no content explains
        (random ones, or from a file).
      latents: float32 [N, D], what the codec made of the items; None without a codec.
      report: JSON values of the quantiser's own, for the quality report.
      settled: None but for IDs that were given before and must not change.
    """

    codes: np.ndarray
    codebook_sizes: tuple[int, ...]
    codec: Codec | None
    latents: np.ndarray | None
    report: Mapping[str, Any]
    settled: Settled | None = None

    def last_level_distances(self, items: np.ndarray) -> np.ndarray:
        """float32 [items, W_L]: how far each code of the last level is for an item that keeps its other levels.

        Squared distances to the codewords, biased as the codec assigns; without a codec all codes are equally far.
        """
        if self.codec is None or self.latents is None:
            return np.zeros((len(items), self.codebook_sizes[-1]), np.float32)
        return self.codec.last_level_distances(self.latents[items], self.codes[items])


class Quantizer(Protocol):
    """A frozen dataclass whose fields decide the codes."""

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Codes of all items; `work_dir` keeps what a killed run resumes from.

        Codebooks are fitted to the items that `split.learnt_items` marks; the others get theirs as new items would.
        """


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


def quantize_with(codec: Codec, features: ItemFeatures, report: Mapping[str, Any]) -> Quantization:
    """The quantization of all these items by a codec, with the number of imputed items of each block in its report."""
    latents = codec.encode(features)
    codes = codec.assign(latents).codes
    imputed = imputed_items(codec.encoder.inputs, features)
    return Quantization(codes, codec.codebook_sizes, codec, latents, {"imputed_items": imputed, **report})
