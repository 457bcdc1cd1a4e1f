"""Shards: the Semantic IDs of one file of new items, as a Parquet file that says what it was made from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import uuid
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from plum_jax.semantic_ids.catalogue.new_items import ITEM_ID, CatalogueError, one_line

_METADATA = b"plum_jax.catalogue_shard"


@dataclasses.dataclass(frozen=True)
class ShardFacts:
    """What a shard says of itself.

    Attributes:
      source: the file of new items.
      source_fingerprint: of that file as it was read.
      codec: fingerprint of encoder and codebooks.
      items: rows.
      absent: feature block -> items that do not have it.
      without_features: items that have none of the blocks: their codes say nothing of them.
    """

    source: str
    source_fingerprint: str
    codec: str
    items: int
    absent: Mapping[str, int]
    without_features: int


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
    """A shard read whole: ids (strings) [N], codes int32 [N, L], squared error after all levels float32 [N]."""

    path: epath.Path
    facts: ShardFacts
    item_ids: pa.ChunkedArray
    codes: np.ndarray
    squared_error: np.ndarray


@dataclasses.dataclass(eq=False)
class ShardWriter:
    """Writes a shard aside, a row group at a time; `finish` puts it in its place, `discard` takes it away.

    The name aside is this writer's own, so that two that make the same shard at once (a runner of many machines starts
    slow work a second time) do not write into each other's.
    """

    path: epath.Path
    num_levels: int

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = self.path.parent / f".{self.path.name}.{uuid.uuid4().hex}.aside"
        self._file = self._aside.open("wb")
        levels = [(f"code_{level}", pa.int32()) for level in range(self.num_levels)]
        self._schema = pa.schema([(ITEM_ID, pa.string()), *levels, ("squared_error", pa.float32())])
        self._writer = pq.ParquetWriter(self._file, self._schema, write_page_checksum=True)

    def write(self, item_ids: pa.Array, codes: np.ndarray, squared_error: np.ndarray) -> None:
        """Adds items as a row group."""
        self._writer.write_table(pa.table([item_ids, *codes.T, squared_error], schema=self._schema))

    def finish(self, facts: ShardFacts) -> None:
        """Adds the facts; then the shard is there, whole."""
        self._writer.add_key_value_metadata({_METADATA: json.dumps(dataclasses.asdict(facts))})
        self._writer.close()
        self._file.close()
        self._aside.replace(self.path)

    def discard(self) -> None:
        """Removes what is there so far."""
        with contextlib.suppress(OSError):  # of a full disk, say, which is why it is discarded
            self._writer.close()
            self._file.close()
        self._aside.unlink(missing_ok=True)


def remove_leftovers(path: epath.Path) -> None:
    """Removes what killed writers of this shard left aside; for a process that alone writes it."""
    for leftover in path.parent.glob(f".{path.name}.*.aside"):
        leftover.unlink(missing_ok=True)


def shard_path(directory: epath.PathLike, source: epath.Path) -> epath.Path:
    """Where the shard of a file of new items lies."""
    name = source.name if source.name.endswith(".parquet") else f"{source.name}.parquet"
    return epath.Path(directory) / name


def read_facts(path: epath.Path) -> ShardFacts:
    """What a shard says of itself.

    Raises:
      CatalogueError: it is damaged, or no shard.
    """
    try:
        with path.open("rb") as file:
            return _facts(path, pq.ParquetFile(file))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def read_shard(path: epath.Path) -> Shard:
    """Reads a shard, and the checksums of its pages.

    Raises:
      CatalogueError: it is damaged, or no shard.
    """
    try:
        with path.open("rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            facts = _facts(path, parquet)
            table = parquet.read()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    levels = [name for name in table.column_names if name.startswith("code_")]
    if table.num_rows != facts.items or not levels:
        raise CatalogueError(f"{path} has {table.num_rows} rows of {table.column_names}, but says {facts.items} items")
    codes = np.stack([table[f"code_{level}"].to_numpy() for level in range(len(levels))], axis=1)
    return Shard(path, facts, table[ITEM_ID], codes, table["squared_error"].to_numpy())


def total(facts: Iterable[ShardFacts]) -> dict[str, object]:
    """Items, absent blocks and items without any, of all these shards, as JSON values."""
    items, without, absent = 0, 0, dict[str, int]()
    for of_one in facts:
        items += of_one.items
        without += of_one.without_features
        for name, count in of_one.absent.items():
            absent[name] = absent.get(name, 0) + count
    return {"items": items, "absent_blocks": absent, "items_without_features": without}


def _facts(path: epath.Path, parquet: pq.ParquetFile) -> ShardFacts:
    stored = (parquet.metadata.metadata or {}).get(_METADATA)
    if stored is None:
        raise CatalogueError(
            f"{path} is a Parquet file, but no shard of new items: expected what gin/run/assign_new_items.gin wrote"
        )
    return ShardFacts(**json.loads(stored))


def _damaged(path: epath.Path, error: Exception) -> CatalogueError:
    return CatalogueError(
        f"shard {path} cannot be read ({one_line(error)}): it is damaged; delete it and run "
        "gin/run/assign_new_items.gin again, which makes what is missing"
    )
