"""Offline inference: recommendations of every user to one Parquet file, in shards that several processes may share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.metrics import NOTHING
from plum_jax.ragged import Ragged
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.new_items import NewItems
from plum_jax.retrieval.recommend import Recommender, rank_items
from plum_jax.retrieval.shards import ALONE, ShardedTable, Worker

Rank = Callable[[EvaluationSet, int], tuple[np.ndarray, np.ndarray, np.ndarray | None]]

KIND = "recommendations"
FILE = "recommendations.parquet"
_SCHEMA = pa.schema([("user_id", pa.string()), ("rank", pa.int32()), ("item_id", pa.string()), ("score", pa.float32())])


def recommend_all(
    recommender: Recommender,
    params: Params,
    prompts: pl.DataFrame,
    *,
    directory: epath.PathLike,
    user_ids: Sequence[str],
    items_per_user: int = 10,
    remove_seen: bool = True,
    users_per_shard: int = 4096,
    new_items: NewItems | None = None,
    worker: Worker = ALONE,
) -> epath.Path | None:
    """Writes each user's recommendations as the artefact "recommendations" and returns the path of its Parquet file.

    The rows are user_id, rank (1 is best), item_id, score (the model's log-probability of the item's SID), in the
    order of the prompts; users for whom the beams held fewer items have fewer rows. The same call after a kill makes
    what is missing only, and after the end nothing.

    Args:
      recommender: decoder, vocabulary, table and beams.
      params: the decoder's.
      prompts: columns "user" (index into `user_ids`), "prompt" and "seen_items".
      directory: of the artefact.
      user_ids: names of the users.
      items_per_user: K, at most `recommender.num_beams`.
      remove_seen: leave out the items in "seen_items".
      users_per_shard: users that a kill can cost.
      new_items: which have places of their own in the lists, with scores among themselves; None: none.
      worker: which of the processes this is; None is returned where another puts the file together.

    Raises:
      ValueError: more items than beams, or no prompts.
    """
    require_beams(recommender, prompts, items_per_user)
    names = np.asarray(user_ids, dtype=np.str_)

    def make(start: int, stop: int) -> pa.Table:
        rows = prompts[start:stop]
        watched, tokens = Ragged.from_series(rows["seen_items"]), Ragged.from_series(rows["prompt"])
        seen = watched if remove_seen else None
        lists = searched_lists(recommender, params, tokens, items_per_user, seen)
        if new_items is not None:
            found = new_items.found(recommender, params, tokens, items_per_user, watched)
            lists = new_items.placed(lists, found)
        row, rank, item, score = as_rows(*lists)
        of_user = names[rows["user"].to_numpy()[row]].tolist()
        return pa.table([of_user, rank, recommender.table.item_ids[item].tolist(), score], schema=_SCHEMA)

    seen = Ragged.from_series(prompts["seen_items"])
    inputs = {
        **search_inputs(recommender, params, Ragged.from_series(prompts["prompt"])),
        "users": artifact.fingerprint(prompts["user"].to_numpy(), seen.values, seen.lengths, "\n".join(user_ids)),
    }
    of_new = {} if new_items is None else {"new_items": (new_items.share, artifact.fingerprint(new_items.items))}
    table = ShardedTable(
        directory=epath.Path(directory),
        file=FILE,
        kind=KIND,
        schema=_SCHEMA,
        config={**search_config(recommender), "items_per_user": items_per_user, "remove_seen": remove_seen, **of_new},
        inputs=inputs,
        rows=len(prompts),
        rows_per_shard=users_per_shard,
    )
    return table.make(make, worker=worker, description="recommending for all users")


def recommend_ranked(
    rank: Rank,
    evaluation: EvaluationSet,
    *,
    fingerprint: str,
    directory: epath.PathLike,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    items_per_user: int = 10,
    remove_seen: bool = True,
    users_per_shard: int = 4096,
    worker: Worker = ALONE,
) -> epath.Path | None:
    """`recommend_all` for whatever ranks items itself: the same artefact, made in the same way.

    Args:
      rank: (users, k) -> item indexes [U, k] with seen items kept, the same without them, and scores [U, k] of the
        latter in the system's own unit (None: not known).
      evaluation: whose lists are wanted.
      fingerprint: of all that decides the lists but the users.
      directory, items_per_user, remove_seen, users_per_shard, worker: as in `recommend_all`; where seen items are kept
        the scores are null.
      user_ids, item_ids: names.
    """
    of_users, of_items = np.asarray(user_ids, dtype=np.str_), np.asarray(item_ids, dtype=np.str_)

    def make(start: int, stop: int) -> pa.Table:
        some = evaluation.take(np.arange(start, stop))
        kept, unseen, scores = rank(some, items_per_user)
        lists = (unseen if remove_seen else kept)[:, :items_per_user]
        row, place = np.nonzero(lists != NOTHING)
        score = None if scores is None or not remove_seen else scores[row, place]
        names = of_users[some.user[row]].tolist(), of_items[lists[row, place]].tolist()
        values = pa.nulls(len(row), pa.float32()) if score is None else pa.array(score, pa.float32())
        return pa.table([names[0], (place + 1).astype(np.int32), names[1], values], schema=_SCHEMA)

    histories = (evaluation.user, evaluation.history_items, evaluation.history_offsets)
    table = ShardedTable(
        directory=epath.Path(directory),
        file=FILE,
        kind=KIND,
        schema=_SCHEMA,
        config={"items_per_user": items_per_user, "remove_seen": remove_seen},
        inputs={"system": fingerprint, "users": artifact.fingerprint(*histories, "\n".join(user_ids))},
        rows=len(evaluation),
        rows_per_shard=users_per_shard,
    )
    return table.make(make, worker=worker, description="recommending for all users")


def require_beams(recommender: Recommender, prompts: pl.DataFrame, k: int) -> None:
    """Refuses lists that are longer than the beams, and no prompts."""
    if k > recommender.num_beams or not len(prompts):
        raise ValueError(
            f"expected prompts and lists of at most {recommender.num_beams} items (the number of beams), "
            f"got {len(prompts)} prompts and lists of {k}"
        )


def ranked_lists(
    recommender: Recommender, params: Params, prompts: Ragged, k: int, seen: Ragged | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`searched_lists` as a table."""
    return as_rows(*searched_lists(recommender, params, prompts, k, seen))


def searched_lists(
    recommender: Recommender, params: Params, prompts: Ragged, k: int, seen: Ragged | None
) -> tuple[np.ndarray, np.ndarray]:
    """Items int32 [U, k] and scores float32 [U, k] as `rank_items` gives them.

    Items in `seen` are kept out inside the search, so that the beams are full of others.
    """
    codes, log_probs = recommender.search(params, prompts, exclude=seen, description="beam search")
    return rank_items(codes, log_probs, recommender.table, k, seen)


def as_rows(items: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lists as a table: row of the prompt, rank (from 1), item index and score, each [entries]."""
    row, place = np.nonzero(items != NOTHING)
    return row, (place + 1).astype(np.int32), items[row, place], scores[row, place]


def search_config(recommender: Recommender) -> dict[str, object]:
    """What of the recommender decides its lists besides its inputs."""
    groups = (
        {} if recommender.beam_groups == 1 else {"groups": recommender.beam_groups, "penalty": recommender.beam_penalty}
    )
    return {"num_beams": recommender.num_beams, "decoder": artifact.describe(recommender.decoder.config), **groups}


def search_inputs(recommender: Recommender, params: Params, prompts: Ragged) -> dict[str, str]:
    """Fingerprints of all that decides a search."""
    return {
        "params": artifact.tree_fingerprint(params),
        "sid_table": recommender.table.fingerprint,
        "vocabulary": recommender.vocabulary.fingerprint,
        "prompts": artifact.fingerprint(prompts.values, prompts.lengths),
    }
