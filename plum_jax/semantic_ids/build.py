"""From item features to a SidTable on disk: the Semantic ID stage of a pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.co_watch import co_watch_pairs
from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.collisions import CollisionPolicy, resolve
from plum_jax.semantic_ids.quality import quality
from plum_jax.semantic_ids.quantization import Quantization, Quantizer
from plum_jax.semantic_ids.table import KIND, SidTable

QUALITY_FILE = "quality.json"
CODEBOOKS_FILE = "codebooks.npz"


def build_sid_table(
    split: Split,
    features: ItemFeatures,
    quantizer: Quantizer,
    collision_policy: CollisionPolicy,
    directory: epath.PathLike,
    work_dir: epath.PathLike | None = None,
) -> SidTable:
    """Quantises all items, treats collisions, and writes the table, its quality report and its codebooks.

    Args:
      split: its corpus gives the items, its training events popularity and co-watches.
      features: of the same items.
      quantizer: how.
      collision_policy: "keep", "extra_digit" or "reassign".
      directory: gets the artefact "sid_table"; read, not made, where it is there and current.
      work_dir: where a quantiser that trains keeps its run; by default `<directory>_training`.

    Raises:
      QuantizerError, CollisionError: features, codebooks and policy that do not fit.
      LeakError: popularity or co-watches would see held-out events.
    """
    directory = epath.Path(directory)
    config = {"quantizer": quantizer, "collision_policy": collision_policy}
    inputs = {"split": split.fingerprint, "features": features.fingerprint}
    if artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
        return SidTable.load(directory)
    work_dir = directory.parent / f"{directory.name}_training" if work_dir is None else epath.Path(work_dir)
    quantization = quantizer.quantize(features, split, work_dir)
    popularity = item_popularity(split)
    resolution = resolve(quantization, collision_policy, popularity)
    table = SidTable.create(
        resolution.codes,
        resolution.codebook_sizes,
        split.corpus.items["item_id"].to_list(),
        popularity=popularity,
        collision_policy=collision_policy,
        corpus_fingerprint=split.corpus.fingerprint,
    )
    report = quality(
        table,
        quantization=quantization,
        features=features,
        categories=split.corpus.items.select(split.corpus.item_features),
        co_watches=co_watch_pairs(split, window=1),
    )
    report |= {"collisions": dict(resolution.report), "quantizer": dict(quantization.report)}

    def write(aside: epath.Path) -> None:
        table.write_files(aside)
        artifact.write_json(aside / QUALITY_FILE, report)
        _write_codebooks(aside / CODEBOOKS_FILE, quantization)

    artifact.write_artifact(
        directory, kind=KIND, fingerprint=table.fingerprint, config=config, inputs=inputs, write=write
    )
    return table


def item_popularity(split: Split) -> np.ndarray:
    """Training events of each item, int64 [N]."""
    events: pl.DataFrame = split.training_events()
    split.check_no_leak(events, used_by="item popularity")
    return np.bincount(events["item"].to_numpy(), minlength=split.corpus.num_items)


def _write_codebooks(path: epath.Path, quantization: Quantization) -> None:
    arrays: dict[str, Any] = {f"level_{level}": codebook for level, codebook in enumerate(quantization.codebooks)}
    with path.open("wb") as file:
        np.savez(file, **arrays)
