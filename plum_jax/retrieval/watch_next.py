"""Watch-next tables: for every item what to watch after it, for nobody in particular, made ahead of time.

YouTube's offline recipe for a model too dear to ask for every user: personal fields out of the prompt, every item as
context. What comes out is a table of N lists.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.metrics import NOTHING
from plum_jax.ragged import Ragged
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.offline import Rank, ranked_lists, require_beams, search_config, search_inputs
from plum_jax.retrieval.recommend import Recommender
from plum_jax.retrieval.shards import ALONE, ShardedTable, Worker

KIND = "watch_next"
FILE = "watch_next.parquet"
_SCHEMA = pa.schema(
    [("item_id", pa.string()), ("rank", pa.int32()), ("next_item_id", pa.string()), ("score", pa.float32())]
)


def write_watch_next(
    recommender: Recommender,
    params: Params,
    prompts: pl.DataFrame,
    *,
    directory: epath.PathLike,
    items_per_list: int = 10,
    prompts_per_shard: int = 4096,
    worker: Worker = ALONE,
) -> epath.Path | None:
    """Writes each item's list as the artefact "watch_next" and returns the path of its Parquet file.

    The rows are item_id, rank (1 is best), next_item_id, score (the model's log-probability of the next item's SID), in
    the order of the prompts. An item is never in its own list. Goes on after a kill, as `offline.recommend_all` does.

    Args:
      recommender: decoder, vocabulary, table and beams.
      params: the decoder's.
      prompts: columns "item" (index) and "prompt", of `Retrieval.watch_next_prompts`.
      directory: of the artefact.
      items_per_list: K, at most `recommender.num_beams`.
      prompts_per_shard: lists that a kill can cost.
      worker: which of the processes this is; None is returned where another puts the file together.

    Raises:
      ValueError: longer lists than beams, or no prompts.
    """
    require_beams(recommender, prompts, items_per_list)
    item_ids = recommender.table.item_ids

    def make(start: int, stop: int) -> pa.Table:
        rows = prompts[start:stop]
        itself = Ragged.from_series(rows["item"].reshape((-1, 1)).arr.to_list())
        lists = ranked_lists(recommender, params, Ragged.from_series(rows["prompt"]), items_per_list, itself)
        row, rank, item, score = lists
        after = item_ids[rows["item"].to_numpy()[row]].tolist()
        return pa.table([after, rank, item_ids[item].tolist(), score], schema=_SCHEMA)

    table = ShardedTable(
        directory=epath.Path(directory),
        file=FILE,
        kind=KIND,
        schema=_SCHEMA,
        config={**search_config(recommender), "items_per_list": items_per_list},
        inputs=search_inputs(recommender, params, Ragged.from_series(prompts["prompt"])),
        rows=len(prompts),
        rows_per_shard=prompts_per_shard,
    )
    return table.make(make, worker=worker, description="what to watch after each item")


def write_watch_next_ranked(
    rank: Rank,
    *,
    fingerprint: str,
    item_ids: Sequence[str],
    directory: epath.PathLike,
    items_per_list: int = 10,
    prompts_per_shard: int = 4096,
    worker: Worker = ALONE,
) -> epath.Path | None:
    """`write_watch_next` for whatever ranks items itself: what it gives to a user with this one item in the history.

    Args:
      rank: as in `offline.recommend_ranked`.
      fingerprint: of all that decides the lists.
      item_ids: names.
      directory, items_per_list, prompts_per_shard, worker: as in `write_watch_next`.
    """
    names, users = np.asarray(item_ids, dtype=np.str_), after_each_item(len(item_ids))

    def make(start: int, stop: int) -> pa.Table:
        _, lists, scores = rank(users.take(np.arange(start, stop)), items_per_list)
        row, place = np.nonzero(lists[:, :items_per_list] != NOTHING)
        worth = pa.nulls(len(row), pa.float32()) if scores is None else pa.array(scores[row, place], pa.float32())
        after, found = names[start + row].tolist(), names[lists[row, place]].tolist()
        return pa.table([after, (place + 1).astype(np.int32), found, worth], schema=_SCHEMA)

    table = ShardedTable(
        directory=epath.Path(directory),
        file=FILE,
        kind=KIND,
        schema=_SCHEMA,
        config={"items_per_list": items_per_list},
        inputs={"system": fingerprint, "items": artifact.fingerprint("\n".join(item_ids))},
        rows=len(names),
        rows_per_shard=prompts_per_shard,
    )
    return table.make(make, worker=worker, description="what to watch after each item")


def after_each_item(num_items: int) -> EvaluationSet:
    """Users of whom nothing is known but one item each, in the order of items; their events are none of the corpus."""
    items, none = np.arange(num_items, dtype=np.int32), np.full(num_items, -1, np.int64)
    return EvaluationSet(
        fold="test",
        user=items,
        target_item=items,
        target_event=none,
        history_items=items,
        history_events=none,
        history_offsets=np.arange(num_items + 1),
    )
