"""The Semantic IDs of a table that is there: an extended one, for a corpus that has grown with it."""

from __future__ import annotations

import dataclasses

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.fit_statistics import FitStatistics
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.quantization import Quantization, Settled
from plum_jax.semantic_ids.table import KIND, SidTable


@dataclasses.dataclass(frozen=True)
class TableIds:
    """Every item has the ID that it has in a SidTable; unlike `FrozenIds`, nothing is coded, no feature is read.

    The codec goes with the table, so that it can be extended again. The pipeline's policy must be the table's.

    Attributes:
      table: directory of a SidTable with a codec, such as `extend_table` writes.
    """

    table: str

    def inputs(self) -> dict[str, str]:
        """Fingerprint of the table, so that another makes this run's again."""
        return {"table": artifact.read_manifest(self.table, KIND).fingerprint}

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Codes of all items.

        Raises:
          ArtifactError: the table is not complete or has no codec.
          QuantizerError: an item of the corpus is not in it.
        """
        del features, work_dir
        table, codec, statistics = SidTable.load(self.table), load_codec(self.table), FitStatistics.load(self.table)
        row_of = {item: row for row, item in enumerate(table.item_ids.tolist())}
        item_ids = split.corpus.items["item_id"].to_list()
        missing = [item for item in item_ids if item not in row_of]
        if missing:
            raise QuantizerError(
                f"the table in {self.table} has no ID for {len(missing)} of {len(item_ids)} items of corpus "
                f"{split.corpus.name!r}, such as {missing[0]!r}: assign them and extend the table first "
                "(docs/living_catalogue.md)"
            )
        codes = table.codes[np.array([row_of[item] for item in item_ids])]
        report = {"table": table.fingerprint, "items_not_in_corpus": table.num_items - len(item_ids)}
        settled = Settled(table.collision_policy, statistics)
        return Quantization(codes, table.codebook_sizes, codec, None, report, settled)
