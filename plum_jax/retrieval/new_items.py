"""Places of a list that are kept for new items: what nobody watched in training, a search writes hardly ever."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.evaluation.metrics import NOTHING
from plum_jax.ragged import Ragged
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.recommend import Recommender, rank_items


@dataclasses.dataclass(frozen=True, eq=False)
class NewItems:
    """A share of each list for new items, the best of a search over these alone (TIGER, arXiv 2305.05065, cold start).

    A code that training has never written after a prefix has little probability, whatever the user. Among new items
    alone, with each step normalised over the codes that they have, what is left is which of them fits the user.
    TIGER lets at most a share epsilon of a list be unseen items, those that share codes with what the beams found;
    ours takes that share, as many as there are.

    Attributes:
      items: bool [N], which are new.
      share: of the places: of k, floor(k * share); place i is one of them where floor(i * share) is above
        floor((i - 1) * share), so that 0.2 keeps the fifth and the tenth.
    """

    items: np.ndarray
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not self.items.any():
            raise ValueError(
                f"expected a share above 0 and below 1 for new items, and some of those, got {self.share} for "
                f"{int(self.items.sum())} items"
            )

    @classmethod
    def of(cls, popularity: np.ndarray, share: float, num_items: int | None = None) -> NewItems | None:
        """Those without a training event (int [N], how many each has), and those that a table of `num_items` has more.

        None where the share is 0.
        """
        new = np.ones(num_items or len(popularity), bool)
        new[: len(popularity)] = popularity == 0
        return cls(new, share) if share else None

    def places(self, k: int) -> np.ndarray:
        """int [floor(k * share)], the places kept of a list of k, from 0."""
        # 10 * 0.1 is 1, but 0.7 / 0.1 is not 7.
        counts = np.floor(np.arange(k + 1) * self.share + 1e-9)
        return np.flatnonzero(np.diff(counts))

    def found(
        self, recommender: Recommender, params: Params, prompts: Ragged, k: int, seen: Ragged
    ) -> tuple[np.ndarray, np.ndarray]:
        """The new items for each user, best first: int32 [U, n] (-1: no more) and float32 [U, n], their scores.

        A score is the log-probability among the new items. Items of the user's history are left out.
        """
        wanted = len(self.places(k))
        among = dataclasses.replace(recommender, item_sets=(self.items,))
        codes, log_probs = among.search(
            params, prompts, exclude=seen, scores="renormalised", description="searching new items"
        )
        # Other items may have the Semantic ID of a new one.
        items, scores = rank_items(codes, log_probs, recommender.table, among.num_beams, seen)
        new = (items != NOTHING) & self.items[items]
        order = np.argsort(~new, axis=1, kind="stable")[:, :wanted]
        items, scores, new = (np.take_along_axis(x, order, axis=1) for x in (items, scores, new))
        return np.where(new, items, NOTHING), np.where(new, scores, -np.inf).astype(np.float32)

    def placed(
        self, lists: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lists with the new items at their places: items int32 [U, k], scores float32 [U, k].

        Args:
          lists: items [U, k] and scores [U, k] of the usual search.
          new: those of `found`.
        """
        items, scores = (x.copy() for x in lists)
        places = self.places(items.shape[1])
        others = np.setdiff1d(np.arange(items.shape[1]), places)
        for user in range(len(items)):
            chosen = new[0][user] != NOTHING
            fresh = new[0][user][chosen]
            at = places[: len(fresh)]
            rest = np.flatnonzero(~np.isin(lists[0][user], fresh))
            free = np.sort(np.concatenate([others, places[len(fresh) :]]))
            # What a list has of the new items moves to their places; the rest keeps its order.
            rest = np.pad(rest, (0, max(0, len(free) - len(rest))), constant_values=-1)[: len(free)]
            items[user, free] = np.where(rest >= 0, lists[0][user][rest], NOTHING)
            scores[user, free] = np.where(rest >= 0, lists[1][user][rest], -np.inf)
            items[user, at], scores[user, at] = fresh, new[1][user][chosen]
        return items, scores
