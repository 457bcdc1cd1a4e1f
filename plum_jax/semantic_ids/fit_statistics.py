"""How well codebooks fit the items they were made for: what new items are measured against."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.table import number_prefixes

FIT_FILE = "fit_statistics.json"
SAMPLE = 1 << 14  # items whose errors are measured


@dataclasses.dataclass(frozen=True, eq=False)
class FitStatistics:
    """Errors and code usage of the items that a SidTable was built with, before collisions were treated.

    A codeword is near the items it was fitted to because it is their mean: with few items a code, new items of the same
    kind have a larger error. So an item's error here is the one it would have if it had been left out (see
    `left_out_error`), which new items can be compared with.

    Attributes:
      num_items: N.
      code_counts: for each level int64 [W_l], the items that have the code.
      unshared: share of the items whose codes no other item has.
      variance: mean squared distance of the latents from their mean.
      error: mean squared error after all levels.
      error_quantiles: float64 [101], the errors at 0, 1, ..., 100 %.
    """

    num_items: int
    code_counts: tuple[np.ndarray, ...]
    unshared: float
    variance: float
    error: float
    error_quantiles: np.ndarray

    @classmethod
    def of_fit(cls, codec: Codec, latents: np.ndarray, codes: np.ndarray, learnt: np.ndarray) -> FitStatistics:
        """Of latents [N, D] and their codes [N, L]; codebooks were fitted to the items that `learnt` [N] marks."""
        sizes = codec.codebook_sizes
        sample = np.linspace(0, len(codes) - 1, min(SAMPLE, len(codes)), dtype=np.int64)
        fitted = [np.bincount(codes[learnt, level], minlength=size) for level, size in enumerate(sizes)]
        errors = left_out_error(codec, latents[sample], codes[sample], learnt[sample], fitted)
        _, prefixes = number_prefixes(codes, sizes)
        mean = latents.mean(axis=0, dtype=np.float64)
        return cls(
            num_items=len(codes),
            code_counts=tuple(np.bincount(codes[:, level], minlength=size) for level, size in enumerate(sizes)),
            unshared=float((np.bincount(prefixes[:, -1]) == 1).sum() / len(codes)),
            variance=float(np.square(latents[sample] - mean).sum(axis=1).mean()),
            error=float(errors.mean()),
            error_quantiles=np.quantile(errors, np.linspace(0, 1, 101)),
        )

    def write_files(self, directory: epath.Path) -> None:
        """Writes the statistics into a SidTable that is being made."""
        values = dataclasses.asdict(self)
        values["code_counts"] = [counts.tolist() for counts in self.code_counts]
        values["error_quantiles"] = self.error_quantiles.tolist()
        artifact.write_json(directory / FIT_FILE, values)

    @classmethod
    def load(cls, directory: epath.PathLike) -> FitStatistics:
        """Reads the statistics of a SidTable's directory.

        Raises:
          ArtifactError: the table has none.
        """
        path = epath.Path(directory) / FIT_FILE
        if not path.exists():
            raise artifact.ArtifactError(
                f"{directory} has no {FIT_FILE}, which tables made by a quantiser have: make the table again"
            )
        values = json.loads(path.read_text())
        values["code_counts"] = tuple(np.asarray(counts, np.int64) for counts in values["code_counts"])
        values["error_quantiles"] = np.asarray(values["error_quantiles"])
        return cls(**values)


def left_out_error(
    codec: Codec, latents: np.ndarray, codes: np.ndarray, learnt: np.ndarray, counts: list[np.ndarray]
) -> np.ndarray:
    """Squared error (float32 [n]) of each item, had the codewords it has been fitted without it.

    A codeword is taken to be the mean of its items, as in k-means, where this is exact as long as the others keep their
    codes; for codebooks trained by gradients it is an estimate, and the encoder is taken as it is.

    Args:
      codec: encoder and codebooks.
      latents: float32 [n, D].
      codes: int32 [n, L], as the codec assigns.
      learnt: bool [n], the items that the codebooks were fitted to; the others' error is what it is.
      counts: for each level int [W_l], the fitted items that have the code.
    """
    rows = np.arange(len(latents))
    residual, left_out = latents.copy(), latents.copy()
    for level, codebook in enumerate(codec.codebooks):
        own = codes[:, level]
        others = np.where(learnt, counts[level][own] - 1, 0)[:, None]
        pull = (residual - codebook[own]) * codebook.any(axis=0)  # a product quantiser's level has its own dimensions
        moved = codebook[own] - np.divide(pull, others, out=np.zeros_like(pull), where=others > 0)
        distances = np.square(codebook).sum(axis=1) - 2 * left_out @ codebook.T
        distances[rows, own] = np.square(moved).sum(axis=1) - 2 * (left_out * moved).sum(axis=1)
        distances[learnt & (others[:, 0] == 0), own[learnt & (others[:, 0] == 0)]] = np.inf  # it was the only one
        if level == len(codec.codebooks) - 1 and codec.last_level_bias is not None:
            distances -= codec.last_level_bias
        nearest = distances.argmin(axis=1)
        left_out = left_out - np.where((nearest == own)[:, None], moved, codebook[nearest])
        residual = residual - codebook[own]
    return np.square(left_out).sum(axis=1)
