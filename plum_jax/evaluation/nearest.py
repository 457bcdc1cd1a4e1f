"""Retrieval by a product: exactly in catalogues that one product can hold, in larger ones by faiss's HNSW."""

from __future__ import annotations

import dataclasses

import faiss
import numpy as np

from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.metrics import NOTHING, RankedItems


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """How the items that are nearest to users are found.

    Attributes:
      exact_below: catalogues smaller than this are searched by a product with all items.
      links: M of HNSW (arXiv 1603.09320), links of an item on each level.
      build_effort, search_effort: efConstruction and efSearch: more finds more and takes longer.
    """

    exact_below: int = 200_000
    links: int = 32
    build_effort: int = 200
    search_effort: int = 512

    def rank(
        self, users: np.ndarray, items: np.ndarray, evaluation: EvaluationSet, k: int
    ) -> tuple[RankedItems, np.ndarray]:
        """The items with the greatest products, seen ones kept and removed, as `exact_top_k` gives them; in a large
        catalogue nearly those.

        Args:
          users: float32 [U, D], in the order of the evaluation set.
          items: float32 [N, D].
          evaluation: whose histories are the seen items.
          k: length of a list; -1 fills it where fewer items are found.

        Raises:
          ValueError: vectors of items that are not finite.
        """
        if not np.isfinite(items).all():
            raise ValueError(f"expected finite vectors of items, got {int((~np.isfinite(items)).sum())} that are not")
        if len(items) < self.exact_below:
            return exact_top_k(users, items, evaluation, k)
        longest = int(np.diff(evaluation.history_offsets).max(initial=0))
        scores, found = self.search(self.index(items), users, min(k + longest, len(items)))
        kept, unseen = (np.full((len(users), k), NOTHING, np.int32) for _ in range(2))
        of_unseen = np.full((len(users), k), -np.inf, np.float32)
        kept[:, : found.shape[1]] = found[:, :k]
        for row in range(len(users)):
            new = np.flatnonzero(~np.isin(found[row], evaluation.history(row)) & (found[row] >= 0))[:k]
            unseen[row, : len(new)], of_unseen[row, : len(new)] = found[row, new], scores[row, new]
        return RankedItems(kept, unseen), of_unseen

    def index(self, items: np.ndarray) -> faiss.IndexHNSWFlat:
        """HNSW over items float32 [N, D]."""
        index = faiss.IndexHNSWFlat(items.shape[1], self.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = self.build_effort
        index.add(np.ascontiguousarray(items, np.float32))
        return index

    def search(self, index: faiss.IndexHNSWFlat, users: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [U, k] and items int64 [U, k] of users float32 [U, D]; -1 where fewer were reached."""
        index.hnsw.efSearch = max(self.search_effort, k)
        scores, found = index.search(np.ascontiguousarray(users, np.float32), k)
        return scores, found
