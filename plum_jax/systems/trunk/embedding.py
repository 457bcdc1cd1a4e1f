"""Vectors of all users and items as artefacts, which a store, and models that know nothing of the trunk, read."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.fields_read import READ
from plum_jax.corpus.splits import FOLDS, Split
from plum_jax.retrieval.alignment import Version
from plum_jax.retrieval.shards import ALONE, ShardedTable, Worker
from plum_jax.retrieval.vector_store import KEYS, VECTOR, What, vectors_schema, vectors_table
from plum_jax.stages import Stages
from plum_jax.systems.trunk.system import FittedTrunk

Until = Literal["validation", "test"] | None
_ROWS_A_SHARD = 4096  # that a kill can cost


def folder_of(stages: Stages, name: str, until: Until) -> epath.Path:
    """Where the vectors of a trunk are."""
    return stages.directory / "embeddings" / (name if until is None else f"{name}_{until}")


def write_vectors(
    stages: Stages, fitted: FittedTrunk, name: str, until: Until = None, worker: Worker = ALONE
) -> dict[What, epath.Path | None]:
    """The artefacts "users" and "items" of `folder_of`: ids and vectors, in the order of the corpus.

    A user's vector is what is compared with items, after the user's events and without a request.

    Args:
      stages: of the run.
      fitted: the trunk.
      name: of its folder.
      until: a fold: of a user's events those are read that lie in earlier folds; None: all.
      worker: which of several processes this is.

    Returns:
      path of each Parquet file; None where another process puts it together.
    """
    corpus, folder = stages.corpus, folder_of(stages, name, until)
    read = fitted.system.fields_read(stages)
    histories, items = histories_until(stages.split, until), fitted.reader.items(fitted.params)
    ids = {"users": corpus.users["user_id"].to_list(), "items": corpus.items["item_id"].to_list()}

    def users(start: int, stop: int) -> pa.Table:
        vectors = fitted.reader.users(fitted.params, histories[start:stop])
        return vectors_table("users", ids["users"][start:stop], vectors)

    def of_items(start: int, stop: int) -> pa.Table:
        return vectors_table("items", ids["items"][start:stop], items[start:stop])

    paths: dict[What, epath.Path | None] = {}
    makers = {"users": users, "items": of_items}
    for what in KEYS:
        table = ShardedTable(
            directory=folder / what,
            file=f"trunk_{what}.parquet",
            kind=f"trunk_{what}",
            schema=vectors_schema(what, items.shape[1]),
            config={"until": until, "history_length": fitted.reader.history_length, READ: read},
            inputs={"corpus": corpus.fingerprint, "trunk": fitted.fingerprint, "split": stages.split.fingerprint},
            rows=len(ids[what]),
            rows_per_shard=_ROWS_A_SHARD,
        )
        paths[what] = table.make(makers[what], worker=worker, description=f"vectors of {what}")
    return paths


def histories_until(split: Split, until: Until) -> list[np.ndarray]:
    """int64 [n] of every user of the corpus: the rows of the events that are read."""
    offsets, corpus = split.corpus.history_offsets, split.corpus
    read = np.ones(corpus.num_events, bool) if until is None else split.fold < FOLDS[until]
    return [start + np.flatnonzero(read[start:stop]) for start, stop in zip(offsets, offsets[1:], strict=False)]


@dataclasses.dataclass(frozen=True, eq=False)
class StoredVectors:
    """What `write_vectors` wrote.

    Attributes:
      user_ids, item_ids: in the order of the vectors.
      version: the vectors.
      trunk: fingerprint of the model that made them.
      corpus: of its corpus.
    """

    user_ids: list[str]
    item_ids: list[str]
    version: Version
    trunk: str
    corpus: str

    @classmethod
    def read(cls, folder: epath.PathLike) -> StoredVectors:
        """Both artefacts of a folder.

        Raises:
          artifact.ArtifactError: one is missing, or they are of two models.
        """
        ids, vectors, inputs = {}, {}, {}
        for what, key in KEYS.items():
            directory = epath.Path(folder) / what
            inputs[what] = artifact.read_manifest(directory, f"trunk_{what}").inputs
            with (directory / f"trunk_{what}.parquet").open("rb") as file:
                table = pq.read_table(file).combine_chunks()
            width = table.schema.field(VECTOR).type.list_size
            ids[what] = table[key].to_pylist()
            vectors[what] = table[VECTOR].combine_chunks().flatten().to_numpy().reshape(-1, width)
        trunk = {what: said["trunk"] for what, said in inputs.items()}
        if trunk["users"] != trunk["items"]:
            raise artifact.ArtifactError(
                f"{folder}: users are of trunk {trunk['users']}, items of trunk {trunk['items']}, and products of the "
                "two mean nothing: write both anew (gin/run/trunk_embed.gin)"
            )
        version = Version(vectors["users"], vectors["items"])
        return cls(ids["users"], ids["items"], version, trunk["users"], inputs["users"]["corpus"])

    def write(self, folder: epath.PathLike, aligned_to: str) -> None:
        """As artefacts like those that were read, in the space of another model."""
        ids = {"users": self.user_ids, "items": self.item_ids}
        arrays = {"users": self.version.users, "items": self.version.items}
        for what in KEYS:
            table = vectors_table(what, ids[what], arrays[what])

            def write(aside: epath.Path, what: What = what, table: pa.Table = table) -> None:
                with (aside / f"trunk_{what}.parquet").open("wb") as file:
                    pq.write_table(table, file)

            artifact.write_artifact(
                epath.Path(folder) / what,
                kind=f"trunk_{what}",
                fingerprint=artifact.fingerprint(ids[what], arrays[what]),
                config={"aligned": True},
                inputs={"corpus": self.corpus, "trunk": self.trunk, "aligned_to": aligned_to},
                write=write,
            )
