"""The one evaluator: whatever ranks items, judged once into `evaluation/<name>.json`, each user's ranks beside it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.evaluation.files import per_user_path, write_evaluation
from plum_jax.evaluation.metrics import NOT_FOUND, Catalogue, ranking_metrics, summarise, target_ranks
from plum_jax.evaluation.metrics.ranking import per_user_metrics
from plum_jax.evaluation.system import Ranking, System
from plum_jax.stages import Stages
from plum_jax.training.run_record import run_record


def evaluated(
    stages: Stages,
    name: str,
    system: System,
    ks: Sequence[int],
    facts: Mapping[str, Any] | None = None,
    folder: str = "evaluation",
) -> dict[str, Any]:
    """The row of `evaluation/<name>.json` on the test fold; made unless it is there from the same inputs.

    Args:
      stages: shared by all systems of the comparison.
      name: of the row.
      system: is trained, where it is not yet.
      ks: cut-offs.
      facts: what all rows of the comparison say besides.
      folder: of the run, for the files.
    """
    fitted = system.fit(stages, name)
    path = stages.directory / folder / f"{name}.json"
    fingerprint = artifact.fingerprint(stages.split.fingerprint, _sids(stages), fitted.fingerprint, tuple(ks))
    if path.exists() and per_user_path(path).exists():
        stored = json.loads(path.read_text())
        if stored["fingerprint"] == fingerprint:
            return stored["row"]
    start = time.perf_counter()
    evaluation = stages.split.evaluation("test")
    ranking = fitted.rank(evaluation, max(ks))
    rank_seconds = time.perf_counter() - start
    metrics, per_user = judged(ranking, evaluation.user, evaluation.target_item, ks, catalogue_of(stages))
    said = {**(facts or {}), **fitted.facts, "users_per_second": round(len(evaluation) / rank_seconds, 1)}
    seconds = said.get("train_seconds", 0.0) + time.perf_counter() - start
    said["wall_seconds"] = round(seconds, 1)
    row = run_record(name, metrics, config=artifact.fingerprint(stages.data, system), **said)
    write_evaluation(path, row, with_ids(stages.corpus, per_user), fingerprint)
    return row


def judged(
    ranking: Ranking, users: np.ndarray, targets: np.ndarray, ks: Sequence[int], catalogue: Catalogue
) -> tuple[dict[str, float], pl.DataFrame]:
    """Metrics by name, and what they are means of: a row a user, as `per_user_ranks` makes them.

    Names: those of `metrics.judge.ranking_metrics`, of items; "sid_recall@k", "sid_ndcg@k" and "sid_mrr@k" where the
    ranking knows Semantic IDs, which ask for the target's SID only and so flatter a table with collisions; the
    ranking's shares; each with "_se", the standard error over users.
    """
    result = ranking_metrics(ranking.lists, targets, ks, catalogue)
    if ranking.sid_ranks is not None:
        result |= summarise(per_user_metrics(ranking.sid_ranks, ks, prefix="sid_"))
    result |= summarise(ranking.shares)
    return result, per_user_ranks(users, targets, ranking)


def per_user_ranks(users: np.ndarray, targets: np.ndarray, ranking: Ranking) -> pl.DataFrame:
    """Per user: "user", "target_item" and the target's rank (0 is first, null is not found) in each of the lists.

    Columns "rank" (all items), "rank_unseen" (seen ones removed), "sid_rank" (its SID among the beams, where given).
    """
    lists = ranking.lists
    ranks = {"rank": target_ranks(lists.items, targets), "rank_unseen": target_ranks(lists.unseen, targets)}
    if ranking.sid_ranks is not None:
        ranks["sid_rank"] = ranking.sid_ranks
    found = [pl.when(pl.col(name) != NOT_FOUND).then(pl.col(name)).alias(name) for name in ranks]
    return pl.DataFrame({"user": users, "target_item": targets, **ranks}).with_columns(found)


def catalogue_of(stages: Stages) -> Catalogue:
    """What metrics may know of the items: popularity, cold items, and the features and Semantic IDs that there are."""
    popularity = stages.split.item_popularity
    codes = None if stages.data.quantizer is None else stages.table.codes
    embeddings = stages.features.blocks[0].values if stages.data.feature_builders else None
    return Catalogue(stages.corpus.num_items, popularity == 0, popularity, codes, embeddings)


def _sids(stages: Stages) -> str:
    """Diversity of lists is measured by Semantic IDs, where there are any."""
    return "none" if stages.data.quantizer is None else stages.table.fingerprint


def with_ids(corpus: Corpus, per_user: pl.DataFrame) -> pl.DataFrame:
    """Ranks by the names of users and items, which other runs share; indexes are a corpus's own."""
    names = {
        "user_id": corpus.users["user_id"].gather(per_user["user"]).cast(pl.String),
        "target_item_id": corpus.items["item_id"].gather(per_user["target_item"]).cast(pl.String),
    }
    return pl.DataFrame(names).hstack(per_user.drop("user", "target_item"))
