"""Items that go with an item, and items in its place: co-watches across categories, and likeness within one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse

from plum_jax.corpus.co_watch import co_watch_pairs
from plum_jax.corpus.features.text import embed_texts, item_texts
from plum_jax.corpus.splits import Split
from plum_jax.corpus.taxonomy import NONE, ItemCategories
from plum_jax.evaluation.metrics import NOTHING, paired_bootstrap

COMPLEMENTARY, SUBSTITUTE = "complementary", "substitute"
_ROWS = 1024


@dataclasses.dataclass(frozen=True)
class RelatedItems:
    """Complementary items are watched by the same users and stand under another category, by the cosine of co-watches,
    n(a, b) / sqrt(n(a) n(b)); substitutes stand under the same category, by the cosine of their texts plus
    `behaviour_weight` times that of co-watches.

    Attributes:
      categories: of the items.
      text_fields: that are compared.
      window: positions of a user's training history that make a co-watch.
      behaviour_weight: of co-watches in a substitute's score; 0: text alone.
      text_dim: of the text vectors.
    """

    categories: ItemCategories
    text_fields: tuple[str, ...]
    window: int = 3
    behaviour_weight: float = 1.0
    text_dim: int = 256

    def fit(self, split: Split) -> FittedRelatedItems:
        """Counts training events."""
        _, category = self.categories.of(split.corpus)
        pairs = co_watch_pairs(split, self.window)
        a, b, count = (pairs[name].to_numpy() for name in ("item_a", "item_b", "count"))
        number = split.corpus.num_items
        rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
        counts = np.concatenate([count, count]).astype(np.float64)
        of_item = np.bincount(rows, weights=counts, minlength=number)
        cosine = (counts / np.sqrt(of_item[rows] * of_item[columns])).astype(np.float32)
        together = scipy.sparse.coo_array((cosine, (rows, columns)), shape=(number, number)).tocsr()
        text = embed_texts(item_texts(split.corpus, tuple(self.text_fields), "related items"), self.text_dim, "items")
        return FittedRelatedItems(self, category, together, text)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedRelatedItems:
    """`RelatedItems` of a split.

    Attributes:
      config: of it.
      category: int32 [N]; `NONE`.
      together: float32 [N, N], cosine of co-watches.
      text: float32 [N, D], of length 1.
    """

    config: RelatedItems
    category: np.ndarray
    together: scipy.sparse.csr_array
    text: np.ndarray

    def complementary(self, items: np.ndarray, k: int) -> np.ndarray:
        """int32 [n, k], the best first; -1 where there are no more."""
        return self._lists(items, k, same=False)

    def substitutes(self, items: np.ndarray, k: int) -> np.ndarray:
        """int32 [n, k], the best first; -1 where there are no more."""
        return self._lists(items, k, same=True)

    def watched_together(self, items: np.ndarray, k: int) -> np.ndarray:
        """int32 [n, k], of all categories, by co-watches alone; -1 where there are no more."""
        return np.concatenate([_best(self.together[some].toarray(), k) for some in _blocks(items)])

    def _lists(self, items: np.ndarray, k: int, same: bool) -> np.ndarray:
        found = []
        for some in _blocks(items):
            scores = self.together[some].toarray()
            alike = (self.category[some][:, None] == self.category) & (self.category != NONE)
            if same:
                of_text = np.maximum(self.text[some] @ self.text.T, 1e-6)
                scores = of_text + self.config.behaviour_weight * scores
            scores = np.where(alike if same else ~alike, scores, 0.0)
            scores[np.arange(len(some)), some] = 0.0
            found.append(_best(scores, k))
        return np.concatenate(found)


def _blocks(items: np.ndarray) -> list[np.ndarray]:
    return np.split(items, range(_ROWS, len(items), _ROWS))


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """int32 [n, k] of scores [n, N]; only those above 0."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(scores, best, axis=1) > 0, best, NOTHING).astype(np.int32)


def judged_related(split: Split, fitted: FittedRelatedItems, k: int = 10) -> list[dict[str, Any]]:
    """How often the item that a user takes next, the test item, is among the first k of each list of the one before.

    Rows "popular", "watched together" (all categories), "complementary", "substitute" and "both by turns"; the same for
    next items of another category and of the same. Differences are to "popular" and, of "both by turns", to "watched
    together", by paired bootstrap over users.
    """
    evaluation = split.evaluation("test")
    last = np.array([evaluation.history(row)[-1] for row in range(len(evaluation))])
    target = evaluation.target_item
    sources, of_user = np.unique(last, return_inverse=True)
    popular = np.argsort(-split.item_popularity, kind="stable")[:k].astype(np.int32)
    lists = {
        "popular": np.broadcast_to(popular, (len(sources), k)),
        "watched together": fitted.watched_together(sources, k),
        COMPLEMENTARY: fitted.complementary(sources, k),
        SUBSTITUTE: fitted.substitutes(sources, k),
    }
    lists["both by turns"] = by_turns(lists[COMPLEMENTARY], lists[SUBSTITUTE])
    hits = {name: (found[of_user] == target[:, None]).any(axis=1).astype(np.float64) for name, found in lists.items()}
    same = fitted.category[last] == fitted.category[target]
    groups = {"": np.ones(len(target), bool), "_other_category": ~same, "_same_category": same}
    rows = []
    for name, of_user_hits in hits.items():
        row: dict[str, Any] = {"list": name, "users": len(target), "share_same_category": float(same.mean())}
        for group, chosen in groups.items():
            values, key = of_user_hits[chosen], f"recall@{k}{group}"
            row |= {key: float(values.mean()), f"{key}_se": float(values.std() / np.sqrt(max(len(values), 1)))}
        for base in ("popular",) if name != "both by turns" else ("popular", "watched together"):
            one = paired_bootstrap(of_user_hits, hits[base])
            row |= one.named(f"recall@{k}_over_{base.replace(' ', '_')}")
        rows.append(row)
    return rows


def by_turns(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int32 [n, k] of lists int32 [n, k] that share no item: one of each by turns, what one lacks from the other."""
    k = first.shape[1]
    both = np.stack([first, second], axis=2).reshape(len(first), 2 * k)
    order = np.argsort(both == NOTHING, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(both, order, axis=1)


def named(split: Split, items: Sequence[int], field: str) -> list[str]:
    """ "id  text" of some items, -1 left out."""
    frame = split.corpus.items.select("item_id", field)
    return ["  ".join(str(value) for value in frame.row(int(one)) if value) for one in items if one != NOTHING]
