"""A SidTable with new items in it, in which the old ones have the IDs they had."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.semantic_ids.catalogue.drift import DRIFT_FILE, drift
from plum_jax.semantic_ids.catalogue.new_items import ITEM_ID, CatalogueError, NewItemFile
from plum_jax.semantic_ids.catalogue.placement import place
from plum_jax.semantic_ids.catalogue.shards import Shard, read_shard, total
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.fit_statistics import FitStatistics
from plum_jax.semantic_ids.table import KIND, SidTable

EXTENSION_FILE = "extension.json"


def extend_table(base_dir: epath.PathLike, shards: Sequence[epath.Path], directory: epath.PathLike) -> SidTable:
    """Writes a SidTable of the items of `base_dir`, bit for bit as they were, and after them those of the shards.

    New items come in the order of the shards' names and are placed by the base table's collision policy (see `place`).
    An id that the base has keeps its old ID and is counted as `already_known`. The artefact also holds the codec, so
    that it can be extended again, the counts (`extension.json`) and the drift (`drift.json`).

    Args:
      base_dir: of a SidTable with a codec.
      shards: as `assign_file` wrote them, by that codec. "reassign" reads their sources again, the items that meet.
      directory: gets the artefact "sid_table"; read, not made, where it is there and current.

    Raises:
      ArtifactError: the base is not complete or has no codec.
      CatalogueError: a damaged shard, one of another codec or whose source was changed, or an id that occurs twice.
    """
    base, codec, statistics = SidTable.load(base_dir), load_codec(base_dir), FitStatistics.load(base_dir)
    in_order = sorted(shards, key=lambda path: path.name)
    read = [_checked(read_shard(path), codec) for path in tqdm(in_order, desc="shards", unit=" shards", delay=1)]
    if not read:
        raise CatalogueError("expected one or more shards of new items, got none: run gin/run/assign_new_items.gin")
    inputs = {"base": base.fingerprint, "codec": codec.fingerprint}
    inputs |= {f"new_items {shard.path.name}": shard.facts.source_fingerprint for shard in read}
    config = {"extended": True}
    if artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
        return SidTable.load(directory)
    arrived = _Arrived.of(base, read)
    placement = place(base, codec, arrived.codes, lambda rows: _distances(codec, arrived, rows))
    new_ids = arrived.item_ids.to_list()
    table = SidTable(
        codes=np.concatenate([base.codes, placement.codes]),
        codebook_sizes=base.codebook_sizes,
        item_ids=np.concatenate([base.item_ids, np.asarray(new_ids, dtype=np.str_)]),
        collision_policy=base.collision_policy,
        corpus_fingerprint=artifact.fingerprint("extended", base.corpus_fingerprint, "\n".join(new_ids)),
        item_rank=np.concatenate([base.item_rank, placement.item_rank]),
    )
    report: dict[str, Any] = {"base": base.fingerprint, "old_items": base.num_items, "new_items": len(new_ids)}
    report |= {"already_known": arrived.already_known, "read": total(shard.facts for shard in read)}
    report |= {"collisions": dict(placement.report)}
    drifted = drift(statistics, arrived.codes, arrived.squared_error, placement.report)

    def write(aside: epath.Path) -> None:
        table.write_files(aside)
        codec.write_files(aside)
        statistics.write_files(aside)
        artifact.write_json(aside / EXTENSION_FILE, report)
        artifact.write_json(aside / DRIFT_FILE, drifted)

    artifact.write_artifact(
        directory, kind=KIND, fingerprint=table.fingerprint, config=config, inputs=inputs, write=write
    )
    return table


@dataclasses.dataclass(frozen=True, eq=False)
class _Arrived:
    """The new items of all shards in order, without those that the base has.

    Attributes:
      shards: all of them.
      kept: for each shard the rows that are new.
      item_ids, codes, squared_error: of the new items.
      already_known: items that the base has.
    """

    shards: list[Shard]
    kept: list[np.ndarray]
    item_ids: pl.Series
    codes: np.ndarray
    squared_error: np.ndarray
    already_known: int

    @classmethod
    def of(cls, base: SidTable, shards: list[Shard]) -> _Arrived:
        ids = pl.concat([pl.DataFrame({ITEM_ID: pl.from_arrow(shard.item_ids)}) for shard in shards])
        bounds = np.cumsum([0, *(shard.facts.items for shard in shards)])
        _require_unique(ids[ITEM_ID], shards, bounds)
        new = ~ids[ITEM_ID].is_in(pl.Series(base.item_ids.tolist()).implode()).to_numpy()
        kept = [np.flatnonzero(new[start:end]) for start, end in zip(bounds, bounds[1:], strict=False)]
        return cls(
            shards=shards,
            kept=kept,
            item_ids=ids[ITEM_ID].filter(pl.Series(new)),
            codes=np.concatenate([shard.codes for shard in shards])[new],
            squared_error=np.concatenate([shard.squared_error for shard in shards])[new],
            already_known=int((~new).sum()),
        )


def _checked(shard: Shard, codec: Codec) -> Shard:
    if shard.facts.codec != codec.fingerprint:
        raise CatalogueError(
            f"shard {shard.path} was made by codec {shard.facts.codec}, the table's is {codec.fingerprint}: the same "
            "codes mean other items. Assign the new items with this table"
        )
    return shard


def _require_unique(ids: pl.Series, shards: list[Shard], bounds: np.ndarray) -> None:
    twice = ids.is_duplicated()
    if twice.any():
        item = ids[int(twice.arg_max() or 0)]
        first, second = (ids == item).arg_true()[:2].to_list()

        def where(row: int) -> str:
            number = int(np.searchsorted(bounds, row, side="right")) - 1
            return f"{shards[number].facts.source}, row {row - bounds[number] + 1}"

        raise CatalogueError(
            f"item {item!r} is new in {where(first)} and in {where(second)} ({int(twice.sum())} rows share "
            "their ids): an item comes once; correct the files and assign them again"
        )


def _distances(codec: Codec, arrived: _Arrived, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads the sources of these rows (ascending) again, chunk by chunk, and measures their last level."""
    first = 0
    with tqdm(total=len(rows), desc="reassigning", unit=" items", unit_scale=True, delay=1) as bar:
        for shard, kept in zip(arrived.shards, arrived.kept, strict=True):
            wanted = rows[(rows >= first) & (rows < first + len(kept))]
            for piece in _distances_of_shard(codec, shard, kept, first, wanted) if len(wanted) else ():
                yield piece
                bar.update(len(piece[0]))
            first += len(kept)


def _distances_of_shard(
    codec: Codec, shard: Shard, kept: np.ndarray, first: int, wanted: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    source = NewItemFile(epath.Path(shard.facts.source), codec.encoder.inputs)
    if not source.path.exists() or source.fingerprint != shard.facts.source_fingerprint:
        raise CatalogueError(
            f"{source.path} is not there as it was when shard {shard.path} was made of it, and the policy 'reassign' "
            "reads it again for the items that meet: bring it back, or assign it again"
        )
    in_source = kept[wanted - first]
    for chunk in source.chunks():
        inside = (in_source >= chunk.first_row) & (in_source < chunk.first_row + len(chunk.item_ids))
        if inside.any():
            latents = codec.encode(chunk.features.take(in_source[inside] - chunk.first_row))
            yield wanted[inside], codec.last_level_distances(latents, shard.codes[in_source[inside]])
