"""What a trained user model answers before every event of a corpus, and about every user now: two tables on disk."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.fields_read import fields_read
from plum_jax.corpus.schema import Corpus
from plum_jax.ranking.event_rows import rows_of_all
from plum_jax.ranking.knowledge import KnowledgeTables
from plum_jax.retrieval.shards import ALONE, ShardedTable, Worker
from plum_jax.stages import Stages
from plum_jax.systems.lum.asking import Asker, moments
from plum_jax.systems.lum.system import FittedLum, Lum
from plum_jax.systems.scored_items import in_blocks

MOMENTS, USERS = "lum_moments", "lum_users"
_ROWS = 8  # packed rows of one device call
_ROWS_A_SHARD, _USERS_A_SHARD = 256, 4096  # that a kill can cost


@dataclasses.dataclass(frozen=True)
class LumKnowledge:
    """Knowledge querying before every event, for rankers (`ranking.Knowledge`): trains the model where it is not yet.

    Attributes:
      lum: the user model.
      asked: name of a condition -> its values by field: {"liked": {"rating": 5}, "disliked": {"rating": 1}}.
      name: of the model's directory in `systems/`, and of the table's in `knowledge/`.
    """

    lum: Lum
    asked: Mapping[str, Mapping[str, Any]]
    name: str = "lum"

    def __post_init__(self) -> None:
        if not self.asked:
            raise ValueError("expected at least one condition to ask for, e.g. {'liked': {'rating': 5}}, got none")

    def read(self, stages: Stages) -> KnowledgeTables:
        """Tables by rows of `stages.corpus`, float16; those that are there already are read."""
        fitted = self.lum.fit(stages, self.name)
        path = write_moments(stages, fitted, self.asked, stages.directory / "knowledge" / self.name)
        assert path is not None, "one process makes all"
        queries = _by_event(path, stages.corpus.num_events, len(self.asked))
        # Of model, corpus and conditions, which decide the items' vectors too: no need to hash all answers.
        fingerprint = artifact.read_manifest(path.parent, MOMENTS).fingerprint
        blocks = stages.data.feature_builders if self.lum.use_features else ()
        read = tuple(sorted({*fields_read(blocks, stages.corpus), *self.lum.conditions}))
        return KnowledgeTables(queries, fitted.asker.items(fitted.params), fingerprint, tuple(self.asked), read)


def write_moments(
    stages: Stages,
    fitted: FittedLum,
    asked: Mapping[str, Mapping[str, Any]],
    directory: epath.PathLike,
    worker: Worker = ALONE,
) -> epath.Path | None:
    """Answers before every event, as the artefact "lum_moments": "event" (its row in the corpus) and "answers".

    An event is asked about with the events of its user before it: all of them up to the model's `history_length`, and
    at least half as many where there are more (windows that overlap by a half, so that each is read twice at most). A
    model that was trained on training events reads later ones here, and learns nothing from them.

    Args:
      stages: of the run.
      fitted: the model.
      asked: name of a condition -> its values by field, N of them.
      directory: of the artefact.
      worker: which of the processes this is; None is returned where another puts the file together.
    """
    asker = fitted.asker
    conditions = asker.conditions(list(asked.values()))
    rows = rows_of_all(stages.split, asker.history_length)
    events, segments, positions = (rows[n] for n in ("events", "decoder_segment_ids", "decoder_positions"))
    run = functools.partial(_moments, asker, fitted.params, conditions)

    def make(start: int, stop: int) -> pa.Table:
        some = (events[start:stop], segments[start:stop], positions[start:stop])
        wanted = rows["answered"][start:stop]
        found = in_blocks(run, _ROWS, *some)[wanted]
        return pa.table({"event": some[0][wanted], "answers": _lists(found.astype(np.float16))}, schema)

    schema = _schema(("event", pa.int64()), pa.float16(), len(conditions) * asker.network.config.transformer.d_model)
    return _table(MOMENTS, stages.corpus, fitted, asked, schema, directory, len(events), _ROWS_A_SHARD).make(
        make, worker=worker, description=f"asking {fitted.directory.name} before every event"
    )


def write_users(
    stages: Stages,
    fitted: FittedLum,
    asked: Mapping[str, Mapping[str, Any]],
    directory: epath.PathLike,
    worker: Worker = ALONE,
) -> epath.Path | None:
    """Answers about every user after all of their events, as the artefact "lum_users": "user_id", and "answers" float32
    of all conditions one after another; the arguments are those of `write_moments`.
    """
    corpus, asker = stages.corpus, fitted.asker
    conditions = asker.conditions(list(asked.values()))
    names = corpus.users["user_id"].to_numpy()

    def make(start: int, stop: int) -> pa.Table:
        offsets = corpus.history_offsets[start : stop + 1]
        histories = [np.arange(first, end) for first, end in zip(offsets, offsets[1:], strict=False)]
        found = asker.answers(fitted.params, histories, conditions)
        return pa.table({"user_id": names[start:stop].tolist(), "answers": _lists(found)}, schema)

    schema = _schema(("user_id", pa.string()), pa.float32(), len(conditions) * asker.network.config.transformer.d_model)
    return _table(USERS, corpus, fitted, asked, schema, directory, corpus.num_users, _USERS_A_SHARD).make(
        make, worker=worker, description=f"asking {fitted.directory.name} about every user"
    )


def _moments(
    asker: Asker, params: Any, conditions: np.ndarray, events: np.ndarray, segments: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    """float32 [rows, T, N, D]."""
    found = moments(asker.network, params, *asker.read(events), segments, positions, conditions)
    return np.moveaxis(np.asarray(found), 0, 2)


def _schema(key: tuple[str, pa.DataType], number: pa.DataType, width: int) -> pa.Schema:
    return pa.schema([key, ("answers", pa.list_(number, width))])


def _lists(values: np.ndarray) -> pa.Array:
    """[n, ...] as lists of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values[0].size if len(values) else 1)


def _table(
    kind: str,
    corpus: Corpus,
    fitted: FittedLum,
    asked: Mapping[str, Mapping[str, Any]],
    schema: pa.Schema,
    directory: epath.PathLike,
    rows: int,
    rows_per_shard: int,
) -> ShardedTable:
    return ShardedTable(
        directory=epath.Path(directory),
        file=f"{kind}.parquet",
        kind=kind,
        schema=schema,
        config={"asked": asked, "history_length": fitted.asker.history_length},
        inputs={"corpus": corpus.fingerprint, "lum": fitted.fingerprint},
        rows=rows,
        rows_per_shard=rows_per_shard,
    )


def _by_event(path: epath.Path, num_events: int, num_conditions: int) -> np.ndarray:
    """float16 [E, N, D]."""
    with path.open("rb") as file:
        table = pq.read_table(file).combine_chunks()
    flat = table["answers"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    queries = np.zeros((num_events, len(flat) // num_events), np.float16)
    queries[table["event"].to_numpy()] = flat.reshape(len(table), -1)
    return queries.reshape(num_events, num_conditions, -1)
