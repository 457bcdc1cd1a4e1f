"""Offline inference: recommendations of every user to one Parquet file, in shards, so that a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.metrics import NOTHING
from plum_jax.retrieval.recommend import Ragged, Recommender, rank_items

KIND = "recommendations"
FILE = "recommendations.parquet"
_PLAN = "plan.json"
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
) -> epath.Path:
    """Writes each user's recommendations as the artefact "recommendations" and returns the path of its Parquet file.

    The rows are user_id, rank (1 is best), item_id, score (the model's log-probability of the item's SID), in the
    order of the prompts; users for whom the beams held fewer items have fewer rows. Shards are kept beside the
    directory until all are done: the same call after a kill makes the missing ones only, and after the end nothing.

    Args:
      recommender: decoder, vocabulary, table and beams.
      params: the decoder's.
      prompts: columns "user" (index into `user_ids`), "prompt" and "seen_items".
      directory: of the artefact.
      user_ids: names of the users.
      items_per_user: K, at most `recommender.num_beams`.
      remove_seen: leave out the items in "seen_items".
      users_per_shard: users that a kill can cost.

    Raises:
      ValueError: more items than beams, or no prompts.
    """
    if items_per_user > recommender.num_beams or not len(prompts):
        raise ValueError(
            f"expected prompts and at most {recommender.num_beams} items a user (the number of beams), "
            f"got {len(prompts)} prompts and {items_per_user=}"
        )
    directory = epath.Path(directory)
    config = {
        "num_beams": recommender.num_beams,
        "items_per_user": items_per_user,
        "remove_seen": remove_seen,
        "users_per_shard": users_per_shard,
        "decoder": artifact.describe(recommender.decoder.config),
    }
    inputs = _inputs(recommender, params, prompts, user_ids)
    if artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
        return directory / FILE
    shards = _open_shards(directory, {"config": artifact.describe(config), "inputs": inputs})
    paths = []
    starts = range(0, len(prompts), users_per_shard)
    for number, start in enumerate(tqdm(starts, desc="recommending for all users", unit="shard")):
        path = shards / f"shard-{number:05d}.parquet"
        paths.append(path)
        if not path.exists():
            rows = prompts[start : start + users_per_shard]
            _write(path, _recommend(recommender, params, rows, user_ids, items_per_user, remove_seen))

    def write(aside: epath.Path) -> None:
        with (aside / FILE).open("wb") as file, pq.ParquetWriter(file, _SCHEMA) as writer:
            for path in paths:
                with path.open("rb") as shard:
                    writer.write_table(pq.read_table(shard))

    digest = artifact.fingerprint(config, inputs)
    artifact.write_artifact(directory, kind=KIND, fingerprint=digest, config=config, inputs=inputs, write=write)
    shards.rmtree()
    return directory / FILE


def _inputs(recommender: Recommender, params: Params, prompts: pl.DataFrame, user_ids: Sequence[str]) -> dict[str, str]:
    tokens, seen = (Ragged.from_series(prompts[name]) for name in ("prompt", "seen_items"))
    ragged = (tokens.values, tokens.offsets, seen.values, seen.offsets)
    return {
        "params": artifact.tree_fingerprint(params),
        "sid_table": recommender.table.fingerprint,
        "prompts": artifact.fingerprint(prompts["user"].to_numpy(), *ragged, "\n".join(user_ids)),
    }


def _open_shards(directory: epath.Path, plan: Mapping[str, Any]) -> epath.Path:
    """The folder of shards; emptied if what is there was made by another plan."""
    shards = directory.parent / f".{directory.name}.shards"
    path = shards / _PLAN
    if path.exists() and json.loads(path.read_text()) == json.loads(json.dumps(plan)):
        return shards
    if shards.exists():
        shards.rmtree()
    artifact.write_json(path, plan)
    return shards


def _recommend(
    recommender: Recommender,
    params: Params,
    rows: pl.DataFrame,
    user_ids: Sequence[str],
    items_per_user: int,
    remove_seen: bool,
) -> pa.Table:
    codes, log_probs = recommender.search(params, Ragged.from_series(rows["prompt"]), description="beam search")
    seen = Ragged.from_series(rows["seen_items"]) if remove_seen else None
    items, scores = rank_items(codes, log_probs, recommender.table, items_per_user, seen)
    user, place = np.nonzero(items != NOTHING)
    names = np.asarray(user_ids, dtype=np.str_)[rows["user"].to_numpy()[user]]
    columns = {
        "user_id": names.tolist(),
        "rank": (place + 1).astype(np.int32),
        "item_id": recommender.table.item_ids[items[user, place]].tolist(),
        "score": scores[user, place],
    }
    return pa.table(columns, schema=_SCHEMA)


def _write(path: epath.Path, table: pa.Table) -> None:
    """Writes a shard aside and renames it: a shard that is there is whole."""
    aside = path.parent / f".{path.name}.aside"
    with aside.open("wb") as file:
        pq.write_table(table, file)
    aside.replace(path)
