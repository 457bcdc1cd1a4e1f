"""The retrieval evaluator: metrics of items over the full catalogue, and beside them those of SIDs."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax.evaluation.metrics import (
    NOT_FOUND,
    NOTHING,
    Catalogue,
    RankedItems,
    ranking_metrics,
    summarise,
    target_ranks,
)
from plum_jax.evaluation.metrics.ranking import per_user_metrics
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.recommend import Ragged, Recommender, rank_items, select_rows


@dataclasses.dataclass(frozen=True, eq=False)
class RetrievalEvaluator:
    """`(params) -> {name: value}` over the users of some prompt rows.

    Names: those of `metrics.judge.ranking_metrics`, of items; "sid_recall@k", "sid_ndcg@k" and "sid_mrr@k", which ask
    for the target's SID only and so flatter a table with collisions; each with "_se", the standard error over users.
    "valid_share": of the first max(ks) SIDs that a search without the trie generates, how many some item has.

    Attributes:
      recommender: decoder, vocabulary, table and beams.
      prompts: columns "user", "prompt", "target_item", "seen_items".
      ks: cut-offs, at most `recommender.num_beams`.
      max_users: evaluate on so many users, evenly spread over the rows (for curves while training); None for all.
      free_search_users: users of the search without the trie; 0 leaves "valid_share" out.
      cold_items: bool [N], items without training events, judged apart; None: not told apart.
      popularity: int [N], training events of each item, for hit rates by decile; None: without them.
      embeddings: float [N, D], for the diversity of lists; None: by Semantic ID only.
    """

    recommender: Recommender
    prompts: pl.DataFrame
    ks: tuple[int, ...] = (5, 10)
    max_users: int | None = None
    free_search_users: int = 1000
    cold_items: np.ndarray | None = None
    popularity: np.ndarray | None = None
    embeddings: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.ks or max(self.ks) > self.recommender.num_beams:
            raise ValueError(
                f"expected num_beams of at least {max(self.ks, default=1)} for ks {self.ks}, "
                f"got {self.recommender.num_beams}"
            )
        if not len(self.prompts):
            raise ValueError("expected at least one prompt row to evaluate on, got none")

    def __call__(self, params: Params) -> dict[str, float]:
        """All metrics. The order of the users plays no part."""
        return self.judge(params)[0]

    def judge(self, params: Params) -> tuple[dict[str, float], pl.DataFrame]:
        """All metrics, and what they are means of: a row a user, as `per_user_ranks` makes them."""
        rows = self.prompts[select_rows(len(self.prompts), self.max_users)]
        lists, sid_ranks = self._rank(params, rows)
        targets = rows["target_item"].to_numpy()
        table = self.recommender.table
        catalogue = Catalogue(table.num_items, self.cold_items, self.popularity, table.codes, self.embeddings)
        result = ranking_metrics(lists, targets, self.ks, catalogue)
        result |= summarise(per_user_metrics(sid_ranks, self.ks, prefix="sid_"))
        if self.free_search_users:
            result |= summarise({"valid_share": self._valid_share(params, rows)})
        return result, per_user_ranks(rows["user"].to_numpy(), targets, lists, sid_ranks)

    def _rank(self, params: Params, rows: pl.DataFrame) -> tuple[RankedItems, np.ndarray]:
        table = self.recommender.table
        codes, log_probs = self.recommender.search(params, Ragged.from_series(rows["prompt"]), description="evaluating")
        seen = Ragged.from_series(rows["seen_items"])
        k = max(self.ks)
        items, _ = rank_items(codes, log_probs, table, k)
        unseen, _ = rank_items(codes, log_probs, table, k, seen)
        target_sids = table.lookup(table.codes[rows["target_item"].to_numpy()])
        return RankedItems(items, unseen), target_ranks(table.lookup(codes), target_sids)

    def _valid_share(self, params: Params, rows: pl.DataFrame) -> np.ndarray:
        """float64 [users]: share of each user's first max(ks) generated SIDs that exist."""
        prompts = Ragged.from_series(rows[select_rows(len(rows), self.free_search_users)]["prompt"])
        codes, _ = self.recommender.search(params, prompts, constrained=False, description="searching without the trie")
        first = codes[:, : max(self.ks)]
        generated = first[:, :, 0] != NOTHING  # a codebook of few codes has fewer SIDs than beams
        exist = self.recommender.table.lookup(first) >= 0
        return exist.sum(axis=1) / generated.sum(axis=1)


def per_user_ranks(
    users: np.ndarray, targets: np.ndarray, lists: RankedItems, sid_ranks: np.ndarray | None = None
) -> pl.DataFrame:
    """Per user: "user", "target_item" and the target's rank (0 is first, null is not found) in each of the lists.

    Columns "rank" (all items), "rank_unseen" (seen ones removed), "sid_rank" (its SID among the beams, where given).
    """
    ranks = {"rank": target_ranks(lists.items, targets), "rank_unseen": target_ranks(lists.unseen, targets)}
    if sid_ranks is not None:
        ranks["sid_rank"] = sid_ranks
    found = [pl.when(pl.col(name) != NOT_FOUND).then(pl.col(name)).alias(name) for name in ranks]
    return pl.DataFrame({"user": users, "target_item": targets, **ranks}).with_columns(found)
