"""How a day judges: the next item of each user, and everything that is watched on it, by the age of the item."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import polars as pl

from plum_jax.corpus.life import alive, births
from plum_jax.corpus.splits import TEST, EvaluationSet
from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import Catalogue, RankedItems
from plum_jax.retrieval.beams import Params
from plum_jax.systems.generative.pipeline import GenerativeStages

AGES = ("new", "young", "old", "cold")


@dataclasses.dataclass(frozen=True, eq=False)
class DayJudge:
    """Judges parameters on the users who come back on the day that judges.

    All items that are alive when the day begins are ranked. Every user is asked once, with the history before the day.

    "recall@k", "ndcg@k", "..._unseen" (seen items removed): of the user's first item of the day. By age, with seen
    items removed: of all that these users watch on the day, which share is in their lists of that morning: "new" items
    that came since the last day that was learnt, "young" ones that came before but after the base, "old" ones of the
    base; "cold" ones, new or young, that no event has shown in training, whose text alone was there to learn.

    Attributes:
      stages: of the day; table, prompts and search.
      base_until: unix seconds, the end of the base.
    """

    stages: GenerativeStages
    base_until: int

    def judge(self, params: Params) -> tuple[dict[str, float], pl.DataFrame]:
        """Metrics, and what they are made of: a row a user, "<age>_targets" and "<age>_hits" among its columns."""
        stages = self.stages
        evaluation = stages.split.evaluation("test")
        living = self.living
        evaluator = dataclasses.replace(
            stages.evaluator("test"),
            recommender=dataclasses.replace(stages.recommender, item_sets=(living,)),
            free_search_users=0,
        )
        ks = stages.config.evaluation.ks
        ranking = evaluator.rank(params, evaluator.prompts, max(ks))
        catalogue = Catalogue(stages.corpus.num_items)
        found, per_user = judged(ranking, evaluation.user, evaluation.target_item, ks, catalogue)
        named = [f"{metric}@{k}{end}" for metric in ("recall", "ndcg") for k in ks for end in ("", "_unseen")]
        metrics = {"users": found["users"]} | {n: found[n] for name in named for n in (name, f"{name}_se")}
        metrics["items"] = int(living.sum())
        counts = self._by_age(evaluation, ranking.lists, max(ks))
        metrics[f"chance@{max(ks)}"] = float(np.mean(np.minimum(1, max(ks) / self._choices(evaluation))))
        return metrics | age_metrics(counts, max(ks)), per_user.hstack(counts)

    @property
    def living(self) -> np.ndarray:
        """bool [N]."""
        return alive(self.stages.corpus, self.stages.split.config.judged_from)

    def _choices(self, evaluation: EvaluationSet) -> np.ndarray:
        """int64 [U]: living items that a user has not seen; 1 for none."""
        of_user = np.repeat(np.arange(len(evaluation)), np.diff(evaluation.history_offsets))
        seen = np.unique(np.stack([of_user, evaluation.history_items]), axis=1)
        living = self.living
        seen_living = np.bincount(seen[0], weights=living[seen[1]], minlength=len(evaluation)).astype(np.int64)
        return np.maximum(living.sum() - seen_living, 1)

    def _by_age(self, evaluation: EvaluationSet, lists: RankedItems, k: int) -> pl.DataFrame:
        corpus, split = self.stages.corpus, self.stages.split
        row_of = np.full(corpus.num_users, -1)
        row_of[evaluation.user] = np.arange(len(evaluation))
        users, items = (corpus.events[name].to_numpy()[split.fold == TEST] for name in ("user", "item"))
        pairs = np.unique(np.stack([row_of[users], items])[:, row_of[users] >= 0], axis=1)
        hit = (lists.unseen[pairs[0], :k] == pairs[1][:, None]).any(axis=1)
        born, unwatched = births(corpus), split.item_popularity == 0
        came = born >= self.base_until
        of_age = {
            "new": born >= split.config.train_until,
            "young": came & (born < split.config.train_until),
            "old": ~came,
            "cold": came & unwatched,
        }
        columns: dict[str, Any] = {}
        for age in AGES:
            chosen = of_age[age][pairs[1]]
            columns[f"{age}_targets"] = np.bincount(pairs[0][chosen], minlength=len(evaluation))
            columns[f"{age}_hits"] = np.bincount(pairs[0][chosen & hit], minlength=len(evaluation))
        return pl.DataFrame(columns)


def age_metrics(per_user: pl.DataFrame, k: int) -> dict[str, float]:
    """ "<age>_targets" and, where there are any, "<age>_recall@k" with its standard error over users."""
    metrics: dict[str, float] = {}
    for age in AGES:
        targets, hits = (per_user[f"{age}_{what}"].to_numpy() for what in ("targets", "hits"))
        metrics[f"{age}_targets"] = int(targets.sum())
        if targets.sum():
            share = hits.sum() / targets.sum()
            metrics[f"{age}_recall@{k}"] = float(share)
            metrics[f"{age}_recall@{k}_se"] = ratio_error(hits - share * targets, targets)
    return metrics


def differences(per_user: pl.DataFrame, base: pl.DataFrame, k: int) -> dict[str, float]:
    """Recall less another's on the same users, with standard errors of the paired difference: "..._less_never".

    Args:
      per_user, base: of `DayJudge.judge`.
      k: as in the names.
    """
    found: dict[str, float] = {}
    for name, rank in ((f"recall@{k}", "rank"), (f"recall@{k}_unseen", "rank_unseen")):
        less = _within(per_user[rank], k) - _within(base[rank], k)
        found[f"{name}_less_never"] = float(less.mean())
        found[f"{name}_less_never_se"] = ratio_error(less - less.mean(), np.ones(len(less)))
    for age in AGES:
        targets = per_user[f"{age}_targets"].to_numpy()
        if targets.sum():
            less = (per_user[f"{age}_hits"] - base[f"{age}_hits"]).to_numpy().astype(np.float64)
            share = less.sum() / targets.sum()
            found[f"{age}_recall@{k}_less_never"] = float(share)
            found[f"{age}_recall@{k}_less_never_se"] = ratio_error(less - share * targets, targets)
    return found


def ratio_error(residuals: np.ndarray, weights: np.ndarray) -> float:
    """Standard error over users of sum(x) / sum(w), by the residuals x - ratio w of each user; NaN for one user."""
    users = len(weights)
    if users < 2:
        return float("nan")
    return float(np.sqrt((residuals**2).sum() * users / (users - 1)) / weights.sum())


def _within(ranks: pl.Series, k: int) -> np.ndarray:
    return (ranks < k).fill_null(False).cast(pl.Float64).to_numpy()
