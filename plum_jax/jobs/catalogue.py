"""Jobs for a living catalogue: Semantic IDs for items that came after the codebooks."""

from __future__ import annotations

import json
from collections.abc import Sequence

from etils import epath

from plum_jax.semantic_ids.catalogue.assign import assign_files
from plum_jax.semantic_ids.catalogue.beam import assign_files_on_beam
from plum_jax.semantic_ids.catalogue.drift import DRIFT_FILE, drift_table
from plum_jax.semantic_ids.catalogue.extend import EXTENSION_FILE, extend_table
from plum_jax.semantic_ids.catalogue.new_items import CatalogueError, new_item_files
from plum_jax.semantic_ids.catalogue.shards import read_facts, shard_path, total

SHARDS = "new_item_shards"


def assign_new_items(
    model_dir: str,
    table: str | None,
    new_items: str | Sequence[str],
    process_index: int = 0,
    process_count: int = 1,
    runner: str | None = None,
    runner_options: Sequence[str] = (),
) -> None:
    """A shard of codes for each file of new items; finished ones are kept.

    Args:
      model_dir: of the run.
      table: directory of a SidTable with a codec, whose shards go to MODEL_DIR/new_item_shards; None: the run's own
        table, and MODEL_DIR/new_items/new_item_shards.
      new_items: pattern or list of Parquet files.
      process_index, process_count: this process takes every process_count-th file, from process_index on.
      runner: None, or the Apache Beam runner that all files are given to.
      runner_options: of that runner, as on a command line.

    Raises:
      CatalogueError: files or rows that are not as they must be, or processes and a runner at once.
    """
    files = new_item_files(new_items)
    table, directory = _table_and_directory(model_dir, table)
    shards = directory / SHARDS
    if runner is None:
        made = assign_files(table, files, shards, process_index, process_count)
    elif process_count == 1:
        made = assign_files_on_beam(table, files, shards, runner, runner_options)
    else:
        raise CatalogueError(
            f"expected either a runner, which spreads the files itself, or processes, got RUNNER {runner!r} and "
            f"PROCESS_COUNT {process_count}"
        )
    print(json.dumps(total(read_facts(shard) for shard in made), indent=1))
    print(f"{len(made)} shards: {shards}")


def extend_catalogue(model_dir: str, table: str | None, new_items: str | Sequence[str]) -> None:
    """The table with the new items, and how far they have drifted from the old ones.

    Args:
      model_dir: of the run that assigned the new items.
      table: directory of the SidTable they were assigned with, extended in MODEL_DIR/sids; None: the run's own,
        extended in MODEL_DIR/new_items/sids.
      new_items: the same files.

    Raises:
      CatalogueError: a file whose shard is missing, or shards that `extend_table` refuses.
    """
    files = new_item_files(new_items)
    table, model_directory = _table_and_directory(model_dir, table)
    shards = [shard_path(model_directory / SHARDS, file) for file in files]
    missing = [str(file) for file, shard in zip(files, shards, strict=True) if not shard.exists()]
    if missing:
        raise CatalogueError(
            f"{len(missing)} of {len(files)} files of new items have no shard in {model_directory / SHARDS}, such as "
            f"{missing[0]}: run gin/run/assign_new_items.gin (all of its processes) first"
        )
    directory = model_directory / "sids"
    extended = extend_table(table, shards, directory)
    print((directory / EXTENSION_FILE).read_text())
    drifted = json.loads((directory / DRIFT_FILE).read_text())
    print("no new items, no drift" if drifted is None else drift_table(drifted))
    print(f"SidTable {extended.fingerprint}, {extended.num_items} items: {directory}")


def _table_and_directory(model_dir: str, table: str | None) -> tuple[str, epath.Path]:
    """The table that new items are coded by, and where what comes of it goes: never over a run's own stages."""
    directory = epath.Path(model_dir)
    return (str(directory / "sids"), directory / "new_items") if table is None else (table, directory)
