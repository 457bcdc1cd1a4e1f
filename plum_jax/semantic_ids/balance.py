"""Balanced assignment: the codes of the last level share the items evenly, by optimal transport."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.special import logsumexp

from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.quantization import Quantization

TEMPERATURES = 10
SAMPLE = 1 << 14  # items that the bias is fitted to: 16 MB of distances for 256 codes


@dataclasses.dataclass(frozen=True)
class BalancedLastLevel:
    """Makes the last level's codes equally popular, as LC-Rec and LETTER do by Sinkhorn-Knopp in each batch.

    Entropic optimal transport from items (equal masses) to codes (equal masses) with squared distance as cost. Its dual
    is one number for each code, which becomes the codec's `last_level_bias`: an item takes the code with the smallest
    distance minus bias. So, unlike LC-Rec, one frozen rule serves all items, the new ones of later too.

    Attributes:
      temperature: of the transport, times the mean distance to the nearest code; the smaller, the more exact. It is
        reached in ten steps from the mean distance to any code, for at a small one the iteration hardly moves.
      iterations: of Sinkhorn-Knopp, at all temperatures together.
      seed: of the sample that the bias is fitted to where there are more than 16,384 items.
    """

    temperature: float = 0.1
    iterations: int = 200
    seed: int = 0

    def __call__(self, quantization: Quantization) -> Quantization:
        """The quantization with its last level assigned anew.

        Raises:
          QuantizerError: IDs without a codec have no distances to balance; or settings that are not above 0.
        """
        if self.temperature <= 0 or self.iterations < 1:
            raise QuantizerError(f"expected a temperature above 0 and 1 or more iterations, got {self}")
        codec, latents = quantization.codec, quantization.latents
        if codec is None or latents is None:
            raise QuantizerError("balanced assignment needs codebooks: random IDs and IDs from a file have none")
        if codec.last_level_bias is not None:
            raise QuantizerError("the codec's last level is balanced already")
        sample = np.arange(len(latents))
        if len(sample) > SAMPLE:
            sample = np.random.default_rng(self.seed).choice(len(sample), SAMPLE, replace=False)
        bias = self.bias(quantization.last_level_distances(sample))
        balanced = Codec(codec.encoder, codec.codebooks, bias)
        codes = balanced.assign(latents).codes
        moved = int((codes[:, -1] != quantization.codes[:, -1]).sum())
        return Quantization(
            codes=codes,
            codebook_sizes=quantization.codebook_sizes,
            codec=balanced,
            latents=latents,
            report={**quantization.report, "balanced_last_level": {"moved_items": moved}},
        )

    def bias(self, distances: np.ndarray) -> np.ndarray:
        """float32 [W], what makes `argmin(distances - bias)` even, for squared distances [N, W]."""
        distances = distances.astype(np.float64)
        num_items, num_codes = distances.shape
        coldest = self.temperature * max(float(distances.min(axis=1).mean()), float(np.finfo(np.float32).tiny))
        bias = np.zeros(num_codes)
        for scale in np.geomspace(max(float(distances.mean()), coldest), coldest, TEMPERATURES):
            for _ in range(-(-self.iterations // TEMPERATURES)):
                rows = logsumexp((bias - distances) / scale, axis=1, keepdims=True)
                shares = logsumexp(-distances / scale - rows, axis=0)  # log of what each code gets, without its bias
                bias = scale * (np.log(num_items / num_codes) - shares)
        return (bias - bias.mean()).astype(np.float32)
