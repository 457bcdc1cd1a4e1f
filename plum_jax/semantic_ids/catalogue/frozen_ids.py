"""Frozen IDs: a corpus that has grown keeps the Semantic IDs that its items had, so that a trained model serves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.catalogue.drift import drift
from plum_jax.semantic_ids.catalogue.placement import place
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.fit_statistics import FitStatistics
from plum_jax.semantic_ids.inputs import QuantizerError, imputed_items
from plum_jax.semantic_ids.quantization import Quantization, Settled
from plum_jax.semantic_ids.table import KIND, SidTable

ROWS_AT_ONCE = 1 << 14  # distances of the last level: 16 MB for 256 codes


@dataclasses.dataclass(frozen=True)
class FrozenIds:
    """Codes from a SidTable of before: its items keep theirs bit for bit, the others get theirs by its frozen codec.

    New items are placed by the base table's collision policy in the order of the corpus (see `place`), so the
    pipeline's policy must be the same. IDs of base items that the corpus no longer has stay reserved.

    Attributes:
      base: directory of a SidTable with a codec.
    """

    # A run may move: the fingerprints of table and codec are among its inputs.
    base: str = dataclasses.field(metadata=artifact.NOT_DESCRIBED)

    @property
    def directory(self) -> epath.Path:
        return epath.Path(self.base)

    def inputs(self) -> dict[str, str]:
        """Fingerprints of the base table and its codec, so that another base makes the table again."""
        return {
            "table": artifact.read_manifest(self.base, KIND).fingerprint,
            "codec": load_codec(self.base).fingerprint,
        }

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Codes of all items, collisions treated.

        Raises:
          ArtifactError: the base is not complete or has no codec.
          QuantizerError: no item of the corpus is in the base, or features unlike those the codec was made for.
        """
        del work_dir
        base, codec, statistics = SidTable.load(self.base), load_codec(self.base), FitStatistics.load(self.base)
        item_ids = split.corpus.items["item_id"].to_list()
        row_of = {item: row for row, item in enumerate(base.item_ids.tolist())}
        rows = np.asarray([row_of.get(item, -1) for item in item_ids])
        known, new = np.flatnonzero(rows >= 0), np.flatnonzero(rows < 0)
        if not len(known):
            raise QuantizerError(
                f"none of the {len(item_ids)} items of corpus {split.corpus.name!r} (such as {item_ids[0]!r}) is in "
                f"{self.base} (such as {str(base.item_ids[0])!r}): its codebooks were made for another catalogue"
            )
        latents = codec.encode(features)
        assignment = codec.assign(latents[new])

        def distances(of: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for start in range(0, len(of), ROWS_AT_ONCE):
                piece = of[start : start + ROWS_AT_ONCE]
                yield piece, codec.last_level_distances(latents[new[piece]], assignment.codes[piece])

        placement = place(base, codec, assignment.codes, distances)
        codes = np.empty((len(item_ids), base.num_levels), np.int32)
        codes[known], codes[new] = base.codes[rows[known]], placement.codes
        report = {
            "base": base.fingerprint,
            "old_items": len(known),
            "new_items": len(new),
            "base_items_not_in_corpus": base.num_items - len(known),
            "collisions": dict(placement.report),
            "drift": drift(statistics, assignment.codes, assignment.squared_error[:, -1], placement.report),
            "imputed_items": imputed_items(codec.encoder.inputs, features),
        }
        settled = Settled(base.collision_policy, statistics)
        return Quantization(codes, base.codebook_sizes, codec, latents, report, settled)
