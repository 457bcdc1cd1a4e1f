"""Random IDs: the control that shows what the semantics of Semantic IDs are worth."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from etils import epath

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.quantization import Quantization


@dataclasses.dataclass(frozen=True)
class RandomIds:
    """Codes drawn by a hash of seed and item id: uniform, the same in every process, and blind to content.

    Attributes:
      codebook_sizes: W_l.
      seed: other seeds draw other codes.
    """

    codebook_sizes: tuple[int, ...] = (256, 256, 256)
    seed: int = 0

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Codes of all items of the corpus; features are not looked at."""
        del features, work_dir
        if not self.codebook_sizes or min(self.codebook_sizes) < 1:
            raise QuantizerError(f"expected one or more codebook sizes of 1 or more, got {self.codebook_sizes}")
        item_ids = split.corpus.items["item_id"].to_list()
        return Quantization(self.codes(item_ids), tuple(self.codebook_sizes), None, None, {})

    def codes(self, item_ids: list[str]) -> np.ndarray:
        """int32 [N, L]."""
        sizes = self.codebook_sizes
        key = str(self.seed).encode()
        width = 8 * len(sizes)
        if width > hashlib.blake2b.MAX_DIGEST_SIZE:
            raise QuantizerError(f"random IDs have at most 8 levels, got {len(sizes)}")
        digests = [hashlib.blake2b(item.encode(), digest_size=width, key=key).digest() for item in item_ids]
        numbers = np.frombuffer(b"".join(digests), "<u8").reshape(len(item_ids), len(sizes))
        return (numbers % np.asarray(sizes, np.uint64)).astype(np.int32)
