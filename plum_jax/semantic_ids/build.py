"""From item features to a SidTable on disk: the Semantic ID stage of a pipeline."""

from __future__ import annotations

from etils import epath

from plum_jax import artifact
from plum_jax.corpus.co_watch import co_watch_pairs
from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.balance import BalancedLastLevel
from plum_jax.semantic_ids.collisions import CollisionPolicy, Resolution, resolve
from plum_jax.semantic_ids.fit_statistics import FitStatistics
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.quality import quality
from plum_jax.semantic_ids.quantization import Quantization, Quantizer, Settled
from plum_jax.semantic_ids.table import KIND, SidTable

QUALITY_FILE = "quality.json"


def build_sid_table(
    split: Split,
    features: ItemFeatures,
    quantizer: Quantizer,
    collision_policy: CollisionPolicy,
    directory: epath.PathLike,
    work_dir: epath.PathLike | None = None,
    balance: BalancedLastLevel | None = None,
) -> SidTable:
    """Quantises all items, treats collisions, and writes the table, its quality report and its codec.

    Args:
      split: its corpus gives the items, its training events popularity and co-watches.
      features: of the same items.
      quantizer: how.
      collision_policy: "keep", "extra_digit" or "reassign".
      directory: gets the artefact "sid_table"; read, not made, where it is there and current.
      work_dir: where a quantiser that trains keeps its run; by default `<directory>_training`.
      balance: makes the last level's codes equally popular; None: every item has its nearest.

    Raises:
      QuantizerError, CollisionError: features, codebooks and policy that do not fit.
      LeakError: popularity or co-watches would see held-out events.
    """
    directory = epath.Path(directory)
    config = {"quantizer": quantizer, "collision_policy": collision_policy, "balance": balance}
    inputs = {"split": split.fingerprint, "features": features.fingerprint}
    inputs |= {f"quantizer_{name}": value for name, value in getattr(quantizer, "inputs", dict)().items()}
    if artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
        return SidTable.load(directory)
    work_dir = directory.parent / f"{directory.name}_training" if work_dir is None else epath.Path(work_dir)
    quantization = quantizer.quantize(features, split, work_dir)
    if quantization.settled is not None:
        _require_policy(quantization.settled, collision_policy, balance)
        resolution = Resolution(quantization.codes, quantization.codebook_sizes, {"policy": collision_policy})
    else:
        quantization = quantization if balance is None else balance(quantization)
        resolution = resolve(quantization, collision_policy, split.item_popularity)
    table = SidTable.create(
        resolution.codes,
        resolution.codebook_sizes,
        split.corpus.items["item_id"].to_list(),
        popularity=split.item_popularity,
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
        if quantization.codec is not None:
            quantization.codec.write_files(aside)
            _fit_statistics(quantization, split).write_files(aside)

    artifact.write_artifact(
        directory, kind=KIND, fingerprint=table.fingerprint, config=config, inputs=inputs, write=write
    )
    return table


def _fit_statistics(quantization: Quantization, split: Split) -> FitStatistics:
    if quantization.settled is not None:
        return quantization.settled.fit_statistics
    assert quantization.codec is not None and quantization.latents is not None
    return FitStatistics.of_fit(quantization.codec, quantization.latents, quantization.codes, split.learnt_items)


def _require_policy(settled: Settled, collision_policy: str, balance: BalancedLastLevel | None) -> None:
    if collision_policy != settled.collision_policy or balance is not None:
        raise QuantizerError(
            f"the IDs are those of a table made with collision policy {settled.collision_policy!r}, which they keep: "
            f"expected that policy and no balance, got {collision_policy!r} and {balance}"
        )
