"""A taxonomy of categories: of paths that items have, or of a table with parents; ids, levels, leaves, ancestors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.schema import Corpus, CorpusError

NONE = -1  # in place of a category: a root's parent, what an item without a category stands under
TABLE_COLUMNS = ("category_id", "parent_id", "name")


@dataclasses.dataclass(frozen=True, eq=False)
class Taxonomy:
    """K categories, each with one parent at most.

    Attributes:
      ids: distinct; of paths, the path.
      names: what each is called, alone.
      parent: int32 [K]; `NONE` for a root.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    parent: np.ndarray

    @classmethod
    def from_paths(cls, paths: Sequence[str], separator: str = " > ") -> Taxonomy:
        """Of paths from the root down, such as "Beauty > Hair Care > Shampoos", and of all their beginnings.

        Raises:
          CorpusError: a name twice in one path (a cycle), or an empty one (a category without its parent).
        """
        found: dict[str, tuple[str, str]] = {}  # id -> name and the parent's id
        for row, path in enumerate(paths, start=1):
            names = [name.strip() for name in path.split(separator)]
            if "" in names:
                raise CorpusError(f"an empty name in the path {path!r}: a category without its parent", row=row)
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise CorpusError(f"{twice!r} stands twice in the path {path!r}: a category is its own parent", row=row)
            for depth, name in enumerate(names):
                found[separator.join(names[: depth + 1])] = name, separator.join(names[:depth])
        ids = tuple(sorted(found))
        number = {one: place for place, one in enumerate(ids)}
        parent = np.array([number.get(found[one][1], NONE) for one in ids], np.int32)
        return cls(ids, tuple(found[one][0] for one in ids), parent)

    @classmethod
    def from_table(cls, frame: pl.DataFrame, file: epath.PathLike | None = None) -> Taxonomy:
        """Of "category_id", "parent_id" (null or "" for a root) and "name", a row a category.

        Raises:
          CorpusError: a column that is missing, an id twice, a parent that there is not, or a cycle: with its row.
        """
        for column in TABLE_COLUMNS:
            if column not in frame.columns:
                raise CorpusError(f"expected columns {', '.join(TABLE_COLUMNS)}, got {frame.columns}", file=file)
        ids, parents, names = (frame[column].cast(pl.String).fill_null("").to_list() for column in TABLE_COLUMNS)
        number: dict[str, int] = {}
        for row, one in enumerate(ids):
            if one == "" or one in number:
                raise CorpusError(f"category {one!r} has no id or stands there twice", file=file, row=row + 1)
            number[one] = row
        for row, one in enumerate(parents):
            if one and one not in number:
                problem = f"category {ids[row]!r} is an orphan: there is no category {one!r} to be its parent"
                raise CorpusError(problem, file=file, row=row + 1, field="parent_id")
        parent = np.array([number.get(one, NONE) for one in parents], np.int32)
        above = parent.copy()
        for _ in range(len(ids).bit_length()):  # twice as far up each time: past the longest chain without a cycle
            above = np.where(above == NONE, NONE, above[above])
        if (above != NONE).any():
            row = int(np.flatnonzero(above != NONE)[0])
            problem = f"category {ids[row]!r} is in a cycle or below one: following its parents never ends"
            raise CorpusError(problem, file=file, row=row + 1, field="parent_id")
        return cls(tuple(ids), tuple(names), parent)

    def __len__(self) -> int:
        return len(self.ids)

    @functools.cached_property
    def lines(self) -> np.ndarray:
        """int32 [K, depth]: each category's line from its root to itself, filled with `NONE` behind."""
        upwards = [np.arange(len(self), dtype=np.int32)]
        while (upwards[-1] != NONE).any():
            last = upwards[-1]
            upwards.append(np.where(last == NONE, NONE, self.parent[last]).astype(np.int32))
        rows = np.stack(upwards[:-1], axis=1)[:, ::-1]  # root last made first; what is missing stands in front
        missing = (rows == NONE).sum(axis=1, keepdims=True)
        place = np.arange(rows.shape[1]) + missing
        inside = place < rows.shape[1]
        return np.where(inside, np.take_along_axis(rows, np.minimum(place, rows.shape[1] - 1), axis=1), NONE)

    @property
    def level(self) -> np.ndarray:
        """int32 [K], 1 for a root."""
        return (self.lines != NONE).sum(axis=1).astype(np.int32)

    @property
    def is_leaf(self) -> np.ndarray:
        """bool [K]: no category has it as its parent."""
        found = np.ones(len(self), bool)
        found[self.parent[self.parent != NONE]] = False
        return found

    def at_level(self, level: int) -> np.ndarray:
        """int32 [K]: of each category the one at `level` (1: its root) that it is or stands below; itself where it is
        higher.
        """
        own = np.arange(len(self), dtype=np.int32)
        if level > self.lines.shape[1]:
            return own
        above = self.lines[:, level - 1]
        return np.where(above == NONE, own, above)

    def common(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """int32 [n]: the lowest category that both of n pairs are or stand below; `NONE` where there is none."""
        one, other = self.lines[first], self.lines[second]
        depth = ((one == other) & (one != NONE)).sum(axis=1)
        lowest = np.take_along_axis(one, np.maximum(depth - 1, 0)[:, None], axis=1)[:, 0]
        return np.where(depth > 0, lowest, NONE)


def read_taxonomy(path: epath.PathLike) -> Taxonomy:
    """A taxonomy from a table, `.parquet`, `.tsv` or `.csv`; see `Taxonomy.from_table`.

    Raises:
      CorpusError: no such file, or what `from_table` refuses.
    """
    path = epath.Path(path)
    if not path.exists():
        raise CorpusError(f"there is no such file: expected a table of {', '.join(TABLE_COLUMNS)}", file=path)
    if path.suffix == ".parquet":
        frame = pl.read_parquet(path.read_bytes())
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        frame = pl.read_csv(path.read_bytes(), separator=separator, infer_schema=False)
    return Taxonomy.from_table(frame, path)


@dataclasses.dataclass(frozen=True)
class ItemCategories:
    """Which category each item stands under.

    Attributes:
      field: text of items: a path, or with a `table` the id of a category.
      separator: of a path's names.
      alternatives: between the paths of an item that has several, of which the first is its own.
      table: file of the taxonomy; None: it is made of the paths.
    """

    field: str
    separator: str = " > "
    alternatives: str = " | "
    table: str | None = None

    def of(self, corpus: Corpus) -> tuple[Taxonomy, np.ndarray]:
        """The taxonomy, and int32 [N] the category of each item; `NONE`: it has none.

        Raises:
          CorpusError: no such text of items, no item with a category, a category that the table does not have, or a
            taxonomy with a cycle or an orphan.
        """
        if corpus.items.schema.get(self.field) != pl.String:
            text = [name for name, kind in corpus.items.schema.items() if kind == pl.String]
            raise CorpusError(f"items of {corpus.name!r} have no text {self.field!r}; they have {text}")
        found = corpus.items[self.field].fill_null("").to_list()
        given = [one.partition(self.alternatives)[0].strip() for one in found]
        if not any(given):
            raise CorpusError(f"no item of {corpus.name!r} has a category", field=self.field)
        if self.table is not None:
            taxonomy = read_taxonomy(self.table)
        else:
            taxonomy = Taxonomy.from_paths([one for one in given if one], self.separator)
            given = [self.separator.join(name.strip() for name in one.split(self.separator)) for one in given]
        number = {one: place for place, one in enumerate(taxonomy.ids)}
        unknown = next((row for row, one in enumerate(given) if one and one not in number), None)
        if unknown is not None:
            problem = f"item {corpus.items['item_id'][unknown]!r} stands under {given[unknown]!r}, which is no category"
            raise CorpusError(f"{problem} of {self.table}", field=self.field)
        return taxonomy, np.array([number.get(one, NONE) for one in given], np.int32)
