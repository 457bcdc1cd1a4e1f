"""New items as a stream from Parquet files: ids and feature blocks, chunk by chunk, at constant memory."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.semantic_ids.inputs import BlockInput

ITEM_ID = "item_id"
NUMBERS_AT_ONCE = 1 << 22
_FOOTER = 1 << 16  # bytes at a file's end that go into its fingerprint


class CatalogueError(ValueError):
    """New items that cannot be given Semantic IDs: names the file, and the row and item where one is at fault."""


class Chunk(NamedTuple):
    """Rows `first_row`, `first_row + 1`, ... of a file: ids (strings) and the features of the same items."""

    first_row: int
    item_ids: pa.Array
    features: ItemFeatures


def new_item_files(files: str | Sequence[str]) -> list[epath.Path]:
    """The files that a pattern such as 'new/*.parquet' or a list names (local or gs://), sorted by name.

    Raises:
      CatalogueError: no file, one that does not exist, or two of one name (shards are named after them).
    """
    if isinstance(files, str):
        paths = _matching(files)
        if not paths:
            raise CatalogueError(f"expected Parquet files of new items, but nothing matches {files!r}")
    else:
        paths = [epath.Path(file) for file in files]
    for path in paths:
        if not path.exists():
            raise CatalogueError(f"there is no file {path} of new items")
    paths = sorted(paths, key=lambda path: (path.name, str(path)))
    for path, following in zip(paths, paths[1:], strict=False):
        if path.name == following.name:
            raise CatalogueError(f"{path} and {following} have one name, which their shards would share: rename one")
    if not paths:
        raise CatalogueError("expected one or more Parquet files of new items, got an empty list")
    return paths


def _matching(pattern: str) -> list[epath.Path]:
    if not any(mark in pattern for mark in "*?["):
        return [epath.Path(pattern)]
    head = pattern[: min(pattern.index(mark) for mark in "*?[" if mark in pattern)]
    root, slash, _ = head.rpartition("/")
    return list(epath.Path(root + slash or ".").glob(pattern[len(root + slash) :]))


@dataclasses.dataclass(frozen=True, eq=False)
class NewItemFile:
    """A Parquet file of new items: `item_id` (text or integers) and a column of lists for each feature block.

    A null cell says that the item does not have the block. Columns that the codec does not read are left alone.

    Attributes:
      path: of the file.
      inputs: the blocks that are read, with their dimensions.
    """

    path: epath.Path
    inputs: tuple[BlockInput, ...]

    @functools.cached_property
    def location(self) -> str:
        """The path, absolute where it is local."""
        return str(self.path) if "://" in str(self.path) else os.path.abspath(self.path)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of size, time of change and the file's end, where Parquet describes all that is in it."""
        stat = self.path.stat()
        with self.path.open("rb") as file:
            file.seek(max(0, stat.length - _FOOTER))
            return artifact.fingerprint(stat.length, stat.mtime, file.read())

    @functools.cached_property
    def num_rows(self) -> int:
        """Rows of the file, whose columns are checked on the way.

        Raises:
          CatalogueError: no Parquet file, a column that is missing or of another type, or vectors of another length.
        """
        try:
            with self.path.open("rb") as file:
                parquet = pq.ParquetFile(file)
                self._check_columns(parquet.schema_arrow)
                return int(parquet.metadata.num_rows)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def chunks(self) -> Iterator[Chunk]:
        """The items in order, in chunks whose features take 16 MB.

        Raises:
          CatalogueError: the file cannot be read to its end, or a row has no id, a vector of another length than the
            codebooks were made for, null inside a vector, NaN or infinity.
        """
        rows_at_once = max(1, NUMBERS_AT_ONCE // sum(block_input.dim for block_input in self.inputs))
        columns = [ITEM_ID, *(block_input.name for block_input in self.inputs)]
        first_row = 0
        try:
            with self.path.open("rb") as file:
                parquet = pq.ParquetFile(file)
                self._check_columns(parquet.schema_arrow)
                for batch in parquet.iter_batches(rows_at_once, columns=columns):
                    yield self._chunk(first_row, batch)
                    first_row += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> CatalogueError:
        if "Expected all lists to be of size" in str(error):  # a limit of Arrow's reader
            return CatalogueError(f"{self.path} has null in a column of fixed-size arrays: write the column as lists")
        return CatalogueError(
            f"{self.path} cannot be read as Parquet ({one_line(error)}): it is damaged or half-written; write it again"
        )

    def _check_columns(self, schema: pa.Schema) -> None:
        for name in (ITEM_ID, *(block_input.name for block_input in self.inputs)):
            if name not in schema.names:
                raise CatalogueError(
                    f"{self.path} has no column {name!r}, only {schema.names}: expected {ITEM_ID!r} and a column of "
                    f"lists for each of {[i.name for i in self.inputs]} (null where an item does not have the block)"
                )
        kind = schema.field(ITEM_ID).type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise CatalogueError(f"{self.path}, column {ITEM_ID!r}: expected text or integers, got {kind}")
        for block_input in self.inputs:
            kind = schema.field(block_input.name).type
            lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            numbers = lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))
            if not (numbers or pa.types.is_null(kind)):
                raise CatalogueError(
                    f"{self.path}, column {block_input.name!r}: expected lists of {block_input.dim} numbers, got {kind}"
                )
            if pa.types.is_fixed_size_list(kind) and kind.list_size != block_input.dim:
                raise CatalogueError(_wrong_length(self.path, block_input, f"vectors of {kind.list_size}"))

    def _chunk(self, first_row: int, batch: pa.RecordBatch) -> Chunk:
        item_ids = batch.column(ITEM_ID).cast(pa.string())
        empty = pc.fill_null(pc.equal(item_ids, ""), True).to_numpy(zero_copy_only=False)
        if empty.any():
            raise CatalogueError(
                f"{self.path}, row {first_row + int(empty.argmax()) + 1}: expected an item id, got none"
            )
        blocks = []
        for block_input in self.inputs:
            present, values = self._vectors(first_row, item_ids, batch.column(block_input.name), block_input)
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                row = int(finite.argmin())
                number = values[row][~np.isfinite(values[row])][0]
                where = self._where(first_row, item_ids, row)
                raise CatalogueError(
                    f"{where}: block {block_input.name!r} has {number} in it (a null in a vector counts as nan); write "
                    "null for the whole vector if the item does not have the block"
                )
            blocks.append(FeatureBlock(block_input.name, values, present))
        return Chunk(first_row, item_ids, ItemFeatures(tuple(blocks)))

    def _vectors(
        self, first_row: int, item_ids: pa.Array, column: pa.Array, block_input: BlockInput
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which rows have the block, bool [rows], and its values float32 [rows, D], zero where they do not."""
        present = column.is_valid().to_numpy(zero_copy_only=False)
        dim = block_input.dim
        if not present.any():
            return present, np.zeros((len(present), dim), np.float32)
        if not pa.types.is_fixed_size_list(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), dim).to_numpy(zero_copy_only=False)
            if (lengths != dim).any():
                row = int((lengths != dim).argmax())
                raise CatalogueError(
                    _wrong_length(self._where(first_row, item_ids, row), block_input, f"a vector of {lengths[row]}")
                )
        numbers = column.flatten().cast(pa.float32(), safe=False)  # the null cells' values are left out
        found = numbers.to_numpy(zero_copy_only=False).reshape(-1, dim)
        if present.all():
            return present, found
        values = np.zeros((len(present), dim), np.float32)
        values[present] = found
        return present, values

    def _where(self, first_row: int, item_ids: pa.Array, row: int) -> str:
        return f"{self.path}, row {first_row + row + 1}, item {item_ids[row].as_py()!r}"


def one_line(error: Exception) -> str:
    """The message of an error that another library wrote."""
    return " ".join(str(error).split())


def _wrong_length(where: object, block_input: BlockInput, got: str) -> str:
    return (
        f"{where}: block {block_input.name!r} has {got} numbers, the codebooks were made for {block_input.dim}: make "
        "the features the way they were made then"
    )
