"""What asking nobody in particular saves: recall of watch-next tables and of shorter prompts, against FLOPs a user."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.evaluation.system import System
from plum_jax.jobs.chosen import chosen_decoder
from plum_jax.jobs.measured import write_measured
from plum_jax.model.counts import search_flops
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import rank_items, select_rows
from plum_jax.stages import Data
from plum_jax.systems.generative.pipeline import GenerativeStages
from tasks.histories import evaluation_windows


def offline_recall(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    events: Sequence[int] = (1, 2, 5, 10, 20),
    lists: Sequence[int] = (1, 3, 10),
    k: int = 10,
    users: int | None = None,
    system: str | None = None,
    results_file: str | None = None,
) -> list[dict[str, Any]]:
    """Prints, and writes to MODEL_DIR/offline_recall.json, recall against FLOPs a user; returns the rows.

    YouTube's offline recipe takes what is personal out of the prompt and makes a list for every item, once for all
    users. Two families: "personal", the model asked for each user with the newest `events` of the history, and "table",
    where a user gets the lists of the newest `lists` items of the history, merged by the sum of the probabilities that
    they give. A row: "family", "events" or "lists", "recall" of the first k with seen items removed, "flops_per_user",
    "of_full", its share of the most that a personal row takes, and the "change" of recall from that row with its 95%
    interval over users (paired bootstrap). A table's FLOPs are those of all its lists over all test users, whether they
    are asked about or not: the more users, the cheaper.

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      events: newest events of a personal prompt, at most the run's history length.
      lists: of a user, which are merged.
      k: length of a list, at most the number of beams.
      users: test users that are asked, evenly spread; None: all.
      system: name of the row; None: the last of the table.
      results_file: a study's rows, which also get these; None: none.

    Raises:
      ValueError: no such system, one without prompts, a list longer than the beams, or more events than the run has.
    """
    stages = data.stages(model_dir)
    name, fitted = chosen_decoder(stages, systems, system, "has no prompts")
    own = fitted.stages
    most = own.config.retrieval_task.history_length
    if (
        k > own.recommender.num_beams
        or not events
        or min(events) < 1
        or max(events) > most
        or min(lists, default=1) < 1
    ):
        raise ValueError(
            f"expected TOP of at most {own.recommender.num_beams}, the beams, and EVENTS of 1 to {most}, the run's "
            f"history, and LISTS of 1 or more; got {k}, {tuple(events)} and {tuple(lists)}"
        )
    test = stages.split.evaluation("test")
    count = len(test)
    test = test.take(select_rows(count, users))
    asked = _Asked(own, fitted.params, test, k)
    found = [({"family": "personal", "events": length}, *asked.personal(length)) for length in sorted(events)]
    table, flops = asked.table()
    found += [({"family": "table", "lists": merged}, asked.merged(table, merged), flops / count) for merged in lists]
    _, full_hits, full_flops = found[len(events) - 1]
    rows = []
    for row, hits, per_user in found:
        change = paired_bootstrap(hits, full_hits)
        row |= {"users": len(test), "recall": float(hits.mean()), "flops_per_user": per_user}
        rows.append(row | {"of_full": per_user / full_flops, **change.named("change")})
    print(_text(rows, k))
    write_measured(stages, fitted, "offline_recall", rows, results_file, system=name, k=k)
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """A model and the users that are asked about."""

    stages: GenerativeStages
    params: Any
    users: EvaluationSet
    k: int

    @property
    def seen(self) -> Ragged:
        return Ragged(self.users.history_items, np.diff(self.users.history_offsets))

    def personal(self, events: int) -> tuple[np.ndarray, float]:
        """Hits, float [U], of prompts with the newest events, and FLOPs a user."""
        own = self.stages
        task = dataclasses.replace(own.config.retrieval_task, history_length=events, stride=None)
        prompts = task.prompts_of(evaluation_windows(self.users, events), own.split, own.table, own.vocabulary)
        items, _ = self._search(prompts, self.seen)
        return self._hits(items[:, : self.k]), float(self._flops(prompts).mean())

    def table(self) -> tuple[tuple[np.ndarray, np.ndarray], float]:
        """Items and log-probabilities of each item's list [N, beams], and what they take together."""
        own = self.stages
        prompts = own.config.retrieval_task.watch_next_prompts(own.split, own.table, own.vocabulary)
        tokens = Ragged.from_series(prompts["prompt"])
        itself = Ragged(prompts["item"].to_numpy(), np.ones(len(prompts), np.int64))
        return self._search(tokens, itself), float(self._flops(tokens).sum())

    def merged(self, table: tuple[np.ndarray, np.ndarray], lists: int) -> np.ndarray:
        """Hits, float [U], where the lists of each user's newest items are added up; no model is asked."""
        items, log_probs = table
        found = np.full((len(self.users), self.k), -1, np.int64)
        for user in range(len(self.users)):
            history = self.users.history(user)
            of_lists, worth = items[history[-lists:]].ravel(), np.exp(log_probs[history[-lists:]].ravel())
            there = of_lists >= 0
            score = np.bincount(of_lists[there], worth[there], minlength=len(items))
            score[history] = 0
            best = np.argsort(-score, kind="stable")[: self.k]
            found[user, : len(best)] = np.where(score[best] > 0, best, -1)
        return self._hits(found)

    def _search(self, prompts: Ragged, exclude: Ragged) -> tuple[np.ndarray, np.ndarray]:
        recommender = self.stages.recommender
        codes, log_probs = recommender.search(self.params, prompts, exclude=exclude)
        return rank_items(codes, log_probs, recommender.table, recommender.num_beams, exclude)

    def _hits(self, items: np.ndarray) -> np.ndarray:
        return (items == self.users.target_item[:, None]).any(axis=1).astype(float)

    def _flops(self, prompts: Ragged) -> np.ndarray:
        """float [U], of each search."""
        own = self.stages
        lengths, place = np.unique(prompts.lengths, return_inverse=True)
        beams, levels = own.recommender.num_beams, own.table.num_levels
        config, size = own.decoder.config, own.decoder.vocab_size
        return np.array([search_flops(config, size, int(length), beams, levels) for length in lengths])[place]


def _text(rows: Sequence[Mapping[str, Any]], k: int) -> str:
    lines = [f"{'':26s}{f'recall@{k}':>12s}{'FLOPs a user':>15s}{'of the most':>13s}{'change of recall':>18s}"]
    for row in rows:
        what = (
            f"prompts of {row['events']} events" if row["family"] == "personal" else f"{row['lists']} lists of a table"
        )
        line = (
            f"{what:26s}{row['recall']:12.4f}{row['flops_per_user']:15.3g}{row['of_full']:13.3f}{row['change']:+18.4f}"
        )
        lines.append(f"{line} [{row['change_low']:+.4f}, {row['change_high']:+.4f}]")
    return "\n".join(lines)
