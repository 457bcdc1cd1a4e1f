"""Systems that score an item by the product of a user's vector and the item's: how they train and rank."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import Catalogue, summarise
from plum_jax.evaluation.system import Ranking
from plum_jax.retrieval.recommend import select_rows
from plum_jax.training.loop import Evaluator
from plum_jax.training.metrics_log import training_facts

# (parameters, histories) -> float32 [U, D]; parameters -> float32 [N, D].
UserVectors = Callable[[Any, list[np.ndarray]], np.ndarray]
ItemVectors = Callable[[Any], np.ndarray]
CURVE_KS = (5, 10)
_USERS = 256  # of one device call


@dataclasses.dataclass(frozen=True, eq=False)
class Scorer:
    """Two functions of parameters whose product ranks.

    Attributes:
      users: of the histories of some users.
      items: of all items.
    """

    users: UserVectors
    items: ItemVectors

    def rank(self, params: Any, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user."""
        histories = [evaluation.history(row) for row in range(len(evaluation))]
        lists, scores = exact_top_k(self.users(params, histories), self.items(params), evaluation, k)
        return Ranking(lists, scores)

    def curve(self, split: Split, max_users: int) -> Evaluator:
        """The evaluator of some validation users, evenly spread: all metrics but deciles and diversity."""
        everybody = split.evaluation("validation")
        rows = np.unique(np.linspace(0, len(everybody) - 1, min(max_users, len(everybody)), dtype=int))
        return curve_on(everybody.take(rows), split, self.rank)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedScorer:
    """A trained system that ranks by products.

    Attributes:
      scorer: how.
      params: with what (host arrays).
      told: seed, parameters, train_flops...
      directory: of the training run, whose log knows the seconds.
    """

    scorer: Scorer
    params: Any
    told: Mapping[str, Any]
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.tree_fingerprint(self.params)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {**self.told, **training_facts(self.directory, self.told["train_flops"])}

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user, exactly."""
        return self.scorer.rank(self.params, evaluation, k)


def curve_on(some: EvaluationSet, split: Split, rank: Callable[[Any, EvaluationSet, int], Ranking]) -> Evaluator:
    """The evaluator of these users, for the curves while training: all metrics but deciles and diversity."""
    catalogue = Catalogue(split.corpus.num_items, split.item_popularity == 0)

    def evaluate(params: Any) -> dict[str, float]:
        ranking = rank(params, some, max(CURVE_KS))
        return judged(ranking, some.user, some.target_item, CURVE_KS, catalogue)[0]

    return evaluate


def evaluation_users(split: Split, fold: str, max_users: int | None) -> EvaluationSet:
    """Users of a fold, evenly spread; all of them for None."""
    everybody = split.evaluation(fold)
    return everybody.take(select_rows(len(everybody), max_users))


def judged_with_loss(
    scorer: Scorer, params: Any, split: Split, max_users: int | None, ks: Sequence[int], scale: float = 1.0
) -> dict[str, Any]:
    """What a study says of the test users: "loss" (-log p of each user's item under the softmax over all items of the
    scores times `scale`) with its standard error, and the metrics at `ks`.
    """
    test, ks = evaluation_users(split, "test", max_users), tuple(ks)
    histories = [test.history(row) for row in range(len(test))]
    nats = item_nats(scorer.users(params, histories) * np.float32(scale), scorer.items(params), test.target_item)
    return summarise({"loss": nats}) | judged_on(test, split, scorer.rank(params, test, max(ks)), ks)


def judged_on(test: EvaluationSet, split: Split, ranking: Ranking, ks: Sequence[int]) -> dict[str, Any]:
    """The metrics at `ks` of lists of some test users, with deciles of popularity."""
    popularity = split.item_popularity
    catalogue = Catalogue(split.corpus.num_items, popularity == 0, popularity)
    return judged(ranking, test.user, test.target_item, tuple(ks), catalogue)[0]


def item_nats(users: np.ndarray, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """float64 [U]: -log p of each user's target int32 [U] under the softmax of products of users float32 [U, D] with
    all items float32 [N, D].
    """
    return in_blocks(functools.partial(_nats, jnp.asarray(items)), _USERS, users, targets).astype(np.float64)


@jax.jit
def _nats(items: jax.Array, users: jax.Array, targets: jax.Array) -> jax.Array:
    scores = jnp.einsum("UD,ND->UN", users, items, preferred_element_type=jnp.float32)
    return jax.nn.logsumexp(scores, axis=-1) - jnp.take_along_axis(scores, targets[:, None], axis=1)[:, 0]


def in_blocks(run: Callable[..., Any], block: int, *arrays: np.ndarray) -> np.ndarray:
    """`run` on blocks of rows, all of one shape, for another would compile again; the answers one after the other."""
    found = []
    for start in range(0, len(arrays[0]), block):
        some = [array[start : start + block] for array in arrays]
        count = len(some[0])
        filled = [np.concatenate([part, np.repeat(part[:1], block - count, axis=0)]) for part in some]
        found.append(np.asarray(run(*filled))[:count])
    return np.concatenate(found)
