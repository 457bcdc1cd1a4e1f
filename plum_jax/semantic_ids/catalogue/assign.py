"""From files of new items to shards of Semantic IDs, with frozen codebooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.semantic_ids.catalogue.new_items import CatalogueError, NewItemFile
from plum_jax.semantic_ids.catalogue.shards import ShardFacts, ShardWriter, read_facts, remove_leftovers, shard_path
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.table import KIND


def assign_file(
    codec: Codec, path: epath.PathLike, out_path: epath.PathLike, progress: Callable[[int], object] | None = None
) -> ShardFacts:
    """Gives the items of one file their codes and writes them as one shard: the unit of work of every way to run.

    A shard that is there, made from the same file by the same codec, is kept. Memory does not grow with the file.

    Args:
      codec: frozen encoder and codebooks.
      path: Parquet of new items (see `NewItemFile`).
      out_path: of the shard: item_id, code_0, code_1, ..., squared_error (float32, what all levels leave).
      progress: told the number of items after each chunk.

    Raises:
      CatalogueError: the file, or a row of it, is not as it must be.
    """
    source, out_path = NewItemFile(epath.Path(path), codec.encoder.inputs), epath.Path(out_path)
    if NewItemFile(out_path, ()).location == source.location:
        raise CatalogueError(f"the shard of {path} would replace it: choose another directory for the shards")
    finished = _finished(codec, source, out_path)
    if finished is not None:
        if progress is not None:
            progress(finished.items)
        return finished
    fingerprint = source.fingerprint
    items, without = 0, 0
    absent = {block_input.name: 0 for block_input in codec.encoder.inputs}
    writer = ShardWriter(out_path, len(codec.codebooks))
    try:
        for chunk in source.chunks():
            assignment = codec.assign(codec.encode(chunk.features))
            writer.write(chunk.item_ids, assignment.codes, assignment.squared_error[:, -1])
            items += len(chunk.item_ids)
            blocks = chunk.features.blocks
            for block in blocks:
                absent[block.name] += int((~block.present).sum())
            without += int((~np.any([block.present for block in blocks], axis=0)).sum())
            if progress is not None:
                progress(len(chunk.item_ids))
        facts = ShardFacts(source.location, fingerprint, codec.fingerprint, items, absent, without)
        writer.finish(facts)
    except BaseException:
        writer.discard()
        raise
    return facts


def assign_files(
    table_dir: epath.PathLike,
    paths: Sequence[epath.Path],
    directory: epath.PathLike,
    process_index: int = 0,
    process_count: int = 1,
) -> list[epath.Path]:
    """Assigns the files k, k + n, k + 2n, ... of the list, for process k of n, and returns their shards.

    Started again, a process keeps the shards it has finished. All columns are looked at before the first row is.

    Args:
      table_dir: of a SidTable with a codec.
      paths: all files, in one order for all processes (`new_item_files`).
      directory: gets a shard for each file.
      process_index: k, from 0.
      process_count: n.

    Raises:
      ArtifactError: the table is not complete, or has no codec.
      CatalogueError: a file, or a row of it, is not as it must be.
    """
    if not 0 <= process_index < process_count:
        raise CatalogueError(
            f"expected a process index from 0 to process_count - 1, got {process_index} of {process_count} processes"
        )
    artifact.read_manifest(table_dir, KIND)
    codec = load_codec(table_dir)
    mine = paths[process_index::process_count]
    num_items = sum(NewItemFile(path, codec.encoder.inputs).num_rows for path in mine)
    shards = []
    with tqdm(total=num_items, desc="assigning new items", unit=" items", unit_scale=True) as bar:
        for path in mine:
            shards.append(shard_path(directory, path))
            remove_leftovers(shards[-1])
            assign_file(codec, path, shards[-1], bar.update)
    return shards


def _finished(codec: Codec, source: NewItemFile, out_path: epath.Path) -> ShardFacts | None:
    """The facts of a shard that is there already and current; a damaged one is made again."""
    if not out_path.exists():
        return None
    try:
        facts = read_facts(out_path)
    except CatalogueError:
        return None
    current = facts.codec == codec.fingerprint and facts.source_fingerprint == source.fingerprint
    return facts if current else None
