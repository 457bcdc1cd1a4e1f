"""The retrieval evaluator: metrics of items over the full catalogue, and beside them those of SIDs."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl

from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import NOTHING, Catalogue, RankedItems
from plum_jax.evaluation.system import Ranking
from plum_jax.ragged import Ragged
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.new_items import NewItems
from plum_jax.retrieval.ranking import ranking_of
from plum_jax.retrieval.recommend import Recommender, select_rows


@dataclasses.dataclass(frozen=True, eq=False)
class RetrievalEvaluator:
    """`(params) -> {name: value}` over the users of some prompt rows.

    Names: those of `evaluation.judge.judged`; "valid_share": of the first max(ks) SIDs that a search without the trie
    generates, how many some item has.

    Attributes:
      recommender: decoder, vocabulary, table and beams.
      prompts: columns "user", "prompt", "target_item", "seen_items".
      ks: cut-offs, at most `recommender.num_beams`.
      max_users: evaluate on so many users, evenly spread over the rows (for curves while training); None for all.
      free_search_users: users of the search without the trie; 0 leaves "valid_share" out.
      catalogue: of the items; None: no item is cold, and diversity is by Semantic ID only.
      new_items: which have places of their own in the lists; None: none.
    """

    recommender: Recommender
    prompts: pl.DataFrame
    ks: tuple[int, ...] = (5, 10)
    max_users: int | None = None
    free_search_users: int = 1000
    catalogue: Catalogue | None = None
    new_items: NewItems | None = None

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
        table = self.recommender.table
        catalogue = self.catalogue or Catalogue(table.num_items, codes=table.codes)
        ranking = self.rank(params, rows, max(self.ks))
        return judged(ranking, rows["user"].to_numpy(), rows["target_item"].to_numpy(), self.ks, catalogue)

    def rank(self, params: Params, rows: pl.DataFrame, k: int) -> Ranking:
        """The first k items of some prompt rows."""
        table = self.recommender.table
        prompts = Ragged.from_series(rows["prompt"])
        codes, log_probs = self.recommender.search(params, prompts, description="evaluating")
        seen = Ragged.from_series(rows["seen_items"])
        ranking = ranking_of(codes, log_probs, table, rows["target_item"].to_numpy(), k, seen)
        if self.new_items is not None:
            found = self.new_items.found(self.recommender, params, prompts, k, seen)
            assert ranking.scores is not None, "beams have scores"
            kept, _ = self.new_items.placed((ranking.lists.items, ranking.scores), found)
            unseen, scores = self.new_items.placed((ranking.lists.unseen, ranking.scores), found)
            ranking = dataclasses.replace(ranking, lists=RankedItems(kept, unseen), scores=scores)
        shares = {"valid_share": self._valid_share(params, rows)} if self.free_search_users else {}
        return dataclasses.replace(ranking, shares=shares)

    def _valid_share(self, params: Params, rows: pl.DataFrame) -> np.ndarray:
        """float64 [users]: share of each user's first max(ks) generated SIDs that exist."""
        prompts = Ragged.from_series(rows[select_rows(len(rows), self.free_search_users)]["prompt"])
        codes, _ = self.recommender.search(params, prompts, constrained=False, description="searching without the trie")
        first = codes[:, : max(self.ks)]
        generated = first[:, :, 0] != NOTHING  # a codebook of few codes has fewer SIDs than beams
        exist = self.recommender.table.lookup(first) >= 0
        return exist.sum(axis=1) / generated.sum(axis=1)
