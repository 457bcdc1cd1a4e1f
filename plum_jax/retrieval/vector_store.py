"""Vectors of users and items in an embedded store, LanceDB, a version for each model that made them."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from tqdm import tqdm

from plum_jax import artifact

What = Literal["users", "items"]
KEYS: dict[What, str] = {"users": "user_id", "items": "item_id"}
VECTOR = "vector"
REGISTRY = "versions.json"
_BATCH = 8192  # rows of one write, that a kill can cost
_LEAST_INDEXED = 256  # rows that an index needs to learn from; fewer are searched exactly


class StoreError(ValueError):
    """The store has not what is asked of it, or cannot be opened."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A table of the store.

    Attributes:
      trunk: fingerprint of the model whose vectors they are.
      aligned_to: of the model in whose space they are, where that is another; "": their own.
      vectors: fingerprint of the artefact they came from.
      rows, width: of the table.
      complete: whether all of it is there, index and all.
    """

    trunk: str
    aligned_to: str
    vectors: str
    rows: int
    width: int
    complete: bool


@dataclasses.dataclass(frozen=True)
class VectorStore:
    """A directory of LanceDB tables, and a file that says which models they are of.

    Attributes:
      uri: the directory.
    """

    uri: str

    def push(self, what: What, directory: epath.PathLike) -> str:
        """Writes an artefact of vectors as a table, or goes on where a killed push was; returns the table's name.

        Args:
          what: "users" or "items".
          directory: an artefact of kind "trunk_users" or "trunk_items": a Parquet file with ids and vectors.

        Raises:
          StoreError: LanceDB is not installed.
        """
        kind = f"trunk_{what}"
        manifest = artifact.read_manifest(directory, kind)
        trunk, aligned_to = manifest.inputs["trunk"], manifest.inputs.get("aligned_to", "")
        path = epath.Path(directory) / f"{kind}.parquet"
        with path.open("rb") as file:
            rows = pq.read_table(file)
        width = rows.schema.field(VECTOR).type.list_size
        name = f"{what}_{trunk}" + (f"_as_{aligned_to}" if aligned_to else "")
        entry, there = Entry(trunk, aligned_to, manifest.fingerprint, len(rows), width, False), self.tables()
        if there.get(name) == dataclasses.replace(entry, complete=True):
            return name
        database = self._open()
        if there.get(name) != entry:  # none yet, or other vectors
            database.drop_table(name, ignore_missing=True)
            self._register(name, entry)
        table = _opened(database, name)
        if table is None:
            table = database.create_table(name, schema=rows.schema)
        for start in tqdm(range(table.count_rows(), len(rows), _BATCH), desc=f"pushing {name}", unit=" batches"):
            table.add(rows.slice(start, _BATCH))
        if len(rows) >= _LEAST_INDEXED:
            index = _lancedb().index.HnswSq(distance_type="dot", num_partitions=1)
            table.create_index(VECTOR, config=index, replace=True)
        self._register(name, dataclasses.replace(entry, complete=True))
        return name

    def tables(self) -> dict[str, Entry]:
        """Name of a table -> what it is, in the order in which they were pushed."""
        path = epath.Path(self.uri) / REGISTRY
        if not path.exists():
            return {}
        return {name: Entry(**fields) for name, fields in json.loads(path.read_text()).items()}

    def search(
        self, what: What, trunk: str, queries: np.ndarray, k: int, *, exact: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids (objects, strings) and products float32 [n, k] of the rows with the greatest products; "" and -inf where
        there are fewer.

        Args:
          what: is searched.
          trunk: fingerprint of the model that made the queries; a table that was aligned to it serves them too, the
            newest first.
          queries: float32 [n, D].
          k: of each.
          exact: whether all rows are looked at; else HNSW over scalar-quantised vectors is.

        Raises:
          StoreError: no complete table is of that model, or the width is another.
        """
        name, entry = self.table_of(what, trunk)
        if queries.shape[1:] != (entry.width,):
            raise StoreError(f"table {name} of {self.uri} has vectors of {entry.width} numbers, got {queries.shape}")
        table = self._open().open_table(name)
        ids = np.full((len(queries), k), "", object)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        for row, query in enumerate(queries):
            ask = table.search(query, vector_column_name=VECTOR).distance_type("dot").limit(k)
            ask = ask.bypass_vector_index() if exact else ask.ef(max(10 * k, 100))
            found = ask.select([KEYS[what], "_distance"]).to_arrow()
            count = len(found)
            ids[row, :count] = found[KEYS[what]].to_pylist()
            scores[row, :count] = 1 - found["_distance"].to_numpy()  # LanceDB's distance is 1 - product
        return ids, scores

    def table_of(self, what: What, trunk: str) -> tuple[str, Entry]:
        """The newest complete table that serves queries of a model."""
        there = {name: entry for name, entry in self.tables().items() if name.startswith(f"{what}_")}
        for name, entry in reversed(there.items()):
            if entry.complete and trunk in (entry.aligned_to or entry.trunk,):
                return name, entry
        complete = [entry.aligned_to or entry.trunk for entry in there.values() if entry.complete]
        raise StoreError(
            f"store {self.uri} has {what} in the space of the trunks {sorted(set(complete))}, and these queries are of "
            f"trunk {trunk!r}: push that trunk's {what} (gin/run/trunk_embed.gin), or vectors aligned to it "
            "(gin/run/trunk_versions.gin)"
        )

    def _open(self) -> Any:
        return _lancedb().connect(self.uri)

    def _register(self, name: str, entry: Entry) -> None:
        path = epath.Path(self.uri) / REGISTRY
        with artifact.alone(path):
            others = {known: fields for known, fields in self.tables().items() if known != name}
            entries = {known: dataclasses.asdict(fields) for known, fields in (others | {name: entry}).items()}
            artifact.write_text(path, json.dumps(entries, indent=1))  # the order is that of the pushes


def vectors_table(what: What, ids: list[str], vectors: np.ndarray) -> pa.Table:
    """Ids and float32 [n, D] vectors as a table of the form that is pushed."""
    return pa.table({KEYS[what]: ids, VECTOR: _lists(vectors)}, schema=vectors_schema(what, vectors.shape[1]))


def vectors_schema(what: What, width: int) -> pa.Schema:
    """Of `vectors_table`."""
    return pa.schema([(KEYS[what], pa.string()), (VECTOR, pa.list_(pa.float32(), width))])


def _lists(vectors: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _opened(database: Any, name: str) -> Any:
    try:
        return database.open_table(name)
    except ValueError:  # there is none
        return None


def _lancedb() -> Any:
    try:
        import lancedb
        import lancedb.index
    except ImportError:
        raise StoreError("LanceDB is not installed, and the store is its: pip install -e '.[store]'") from None
    return lancedb
