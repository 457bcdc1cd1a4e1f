"""Feature blocks from a file that the user brings: embeddings of images, audio, video or any text model."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.features.block import FeatureBlock, FeatureError
from plum_jax.corpus.splits import Split


@dataclasses.dataclass(frozen=True)
class FileEmbedding:
    """Vectors by item id from `.npz` (two arrays) or Parquet (two columns, the second of lists), taken as they are.

    What the file was made from is its maker's business: vectors learnt from interactions must leave out those held out.

    Attributes:
      path: the file.
      name: name of the block.
      id_column: array or column of item ids, text or integers.
      value_column: array [rows, D] or column of lists of D numbers.
      dim: D that is expected; None = whatever the file has.
    """

    path: str
    name: str
    id_column: str = "item_id"
    value_column: str = "values"
    dim: int | None = None

    def inputs(self) -> dict[str, str]:
        with self._existing().open("rb") as file:
            return {"file": hashlib.file_digest(file, "sha256").hexdigest()[:16]}

    def compute(self, split: Split) -> FeatureBlock:
        """Items that the file does not have are absent; ids that the corpus does not have are ignored.

        Raises:
          FeatureError: no such file, array or column; an id twice; vectors of several lengths or not of `dim`; NaN or
            infinity; or no id in common with the corpus.
        """
        ids, values = self._read()
        self._check(ids, values)
        items = split.corpus.items.select("item_id").with_row_index("item")
        found = pl.DataFrame({"item_id": ids}).with_row_index("row").join(items, on="item_id", how="inner")
        if not found.height:
            raise FeatureError(
                f"{self.path}, block {self.name!r}: none of its ids (such as {ids[:3].to_list()}) is an item of corpus "
                f"{split.corpus.name!r} (such as {items['item_id'][:3].to_list()}): set `id_column` to the ids' column"
            )
        result = np.zeros((split.corpus.num_items, values.shape[1]), np.float32)
        result[found["item"].to_numpy()] = values[found["row"].to_numpy()]
        present = np.zeros(split.corpus.num_items, bool)
        present[found["item"].to_numpy()] = True
        return FeatureBlock(self.name, result, present)

    def _existing(self) -> epath.Path:
        path = epath.Path(self.path)
        if not path.exists():
            raise FeatureError(f"block {self.name!r}: there is no file {self.path}")
        return path

    def _read(self) -> tuple[pl.Series, np.ndarray]:
        path = self._existing()
        if path.suffix == ".npz":
            return self._read_npz(path)
        if path.suffix in (".parquet", ".pq"):
            return self._read_parquet(path)
        raise FeatureError(f"block {self.name!r}: expected a .npz or .parquet file, got {self.path}")

    def _read_npz(self, path: epath.Path) -> tuple[pl.Series, np.ndarray]:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                self._require(list(arrays))
                ids, values = arrays[self.id_column], arrays[self.value_column]
        except FeatureError:
            raise
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise FeatureError(
                f"{self.path}, block {self.name!r} cannot be read ({error}): save plain arrays with "
                "np.savez(path, item_id=..., values=...), ids as strings (dtype U) or integers"
            ) from None
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.number) or ids.shape != values.shape[:1]:
            raise FeatureError(
                f"{self.path}, block {self.name!r}: expected {self.id_column!r} [rows] and {self.value_column!r} "
                f"[rows, D] of numbers, got {list(ids.shape)} and {values.dtype} {list(values.shape)}"
            )
        return pl.Series(ids).cast(pl.String), values.astype(np.float32)

    def _read_parquet(self, path: epath.Path) -> tuple[pl.Series, np.ndarray]:
        with path.open("rb") as file:
            self._require(list(pl.read_parquet_schema(file)))
        with path.open("rb") as file:
            frame = pl.read_parquet(file, columns=[self.id_column, self.value_column])
        ids, vectors = frame[self.id_column].cast(pl.String), frame[self.value_column]
        if isinstance(vectors.dtype, pl.Array):
            vectors = vectors.arr.to_list()
        if not isinstance(vectors.dtype, pl.List) or not vectors.dtype.inner.is_numeric():
            raise FeatureError(
                f"{self.path}, block {self.name!r}: expected lists of numbers in {self.value_column!r}, got "
                f"{vectors.dtype}"
            )
        lengths = vectors.list.len().fill_null(0)
        if lengths.n_unique() > 1:
            row = int((lengths != lengths[0]).arg_max() or 0)
            raise FeatureError(
                f"{self.path}, block {self.name!r}: expected vectors of one length, but item {ids[0]!r} (row 1) has "
                f"{lengths[0]} numbers and item {ids[row]!r} (row {row + 1}) has {lengths[row]}"
            )
        flat = (
            vectors.explode(empty_as_null=False, keep_nulls=False).cast(pl.Float32).fill_null(float("nan")).to_numpy()
        )
        return ids, flat.reshape(len(ids), -1 if len(flat) else 0)

    def _require(self, names: list[str]) -> None:
        for column in (self.id_column, self.value_column):
            if column not in names:
                raise FeatureError(f"{self.path}, block {self.name!r}: no {column!r}; it has {names}")

    def _check(self, ids: pl.Series, values: np.ndarray) -> None:
        if not values.size or self.dim not in (None, values.shape[1]):
            raise FeatureError(
                f"{self.path}, block {self.name!r}: expected vectors of {self.dim or 'at least 1'} numbers, got "
                f"{values.shape[0]} rows of {values.shape[1]}"
            )
        for wrong, what in (
            (~ids.is_first_distinct().to_numpy(), "is there twice"),
            (~np.isfinite(values).all(axis=1), "has NaN or infinity"),
        ):
            if wrong.any():
                row = int(np.argmax(wrong))
                raise FeatureError(f"{self.path}, block {self.name!r}: item {ids[row]!r} {what} (row {row + 1})")
