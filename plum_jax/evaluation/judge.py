"""Evaluations of a run: its models and baselines judged, each once, into `evaluation/<name>.json`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from plum_jax import artifact
from plum_jax.evaluation.files import per_user_path, write_evaluation
from plum_jax.evaluation.metrics import Catalogue, ranking_metrics
from plum_jax.model.counts import parameter_counts
from plum_jax.systems.generative.evaluator import per_user_ranks
from plum_jax.systems.generative.pipeline import Stages
from plum_jax.systems.item_knn import ItemKnn
from plum_jax.systems.popularity import Popularity
from plum_jax.training.metrics_log import read_metrics
from plum_jax.training.run_record import run_record


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What judging a system gives.

    Attributes:
      metrics: of the row.
      per_user: "user", "target_item" (indexes) and ranks, of `evaluator.per_user_ranks`.
      facts: what else the row says: seed, parameters, train_seconds...
    """

    metrics: Mapping[str, float]
    per_user: pl.DataFrame
    facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Judge:
    """A system that can be judged, and the hash of all that decides what comes of it."""

    fingerprint: str
    judge: Callable[[], Judgement]


def evaluated(stages: Stages, name: str, judge: Judge) -> dict[str, Any]:
    """The row of `evaluation/<name>.json`, made by `judge` unless it is there from the same inputs."""
    path = stages.directory / "evaluation" / f"{name}.json"
    if path.exists() and per_user_path(path).exists():
        stored = json.loads(path.read_text())
        if stored["fingerprint"] == judge.fingerprint:
            return stored["row"]
    start = time.perf_counter()
    found = judge.judge()
    seconds = found.facts.get("train_seconds", 0.0) + time.perf_counter() - start
    facts = {**found.facts, "wall_seconds": round(seconds, 1)}
    row = run_record(name, found.metrics, config=artifact.fingerprint(stages.config), **facts)
    write_evaluation(path, row, _with_ids(stages, found.per_user), judge.fingerprint)
    return row


def judge_baseline(stages: Stages, baseline: Popularity | ItemKnn) -> Judge:
    """A baseline on the test fold."""
    ks = stages.config.evaluation.ks
    fingerprint = artifact.fingerprint(stages.split.fingerprint, stages.table.fingerprint, baseline, ks)

    def judge() -> Judgement:
        evaluation = stages.split.evaluation("test")
        lists = baseline.recommend(stages.split, evaluation, max(ks))
        popularity = stages.split.item_popularity
        embeddings = stages.features.blocks[0].values
        catalogue = Catalogue(stages.corpus.num_items, popularity == 0, popularity, stages.table.codes, embeddings)
        metrics = ranking_metrics(lists, evaluation.target_item, ks, catalogue)
        per_user = per_user_ranks(evaluation.user, evaluation.target_item, lists)
        return Judgement(metrics, per_user, {"seed": stages.config.retrieval.training.seed, "parameters": 0})

    return Judge(fingerprint, judge)


def judge_model(stages: Stages, params: Any, phases: Sequence[str]) -> Judge:
    """A model on the test fold, whose `phases` of training it took."""
    evaluation = stages.config.evaluation
    fingerprint = artifact.fingerprint(artifact.tree_fingerprint(params), evaluation, stages.table.fingerprint)

    def judge() -> Judgement:
        counts = parameter_counts(stages.decoder.config, stages.decoder.vocab_size)
        metrics, per_user = stages.evaluator("test").judge(params)
        facts = {
            "seed": stages.config.retrieval.training.seed,
            "parameters": counts["total"],
            "non_embedding_parameters": counts["non_embedding"],
            "train_seconds": round(sum(_train_seconds(stages, phase) for phase in phases), 1),
            "sid_table": stages.table.fingerprint,
            "pretrained": stages.config.initialisation.pretrained,
        }
        return Judgement(metrics, per_user, facts)

    return Judge(fingerprint, judge)


def _train_seconds(stages: Stages, phase: str) -> float:
    rows = read_metrics(stages.directory / "train" / phase)
    return max((row["seconds"] for row in rows if "seconds" in row), default=0.0)


def _with_ids(stages: Stages, per_user: pl.DataFrame) -> pl.DataFrame:
    """Ranks by the names of users and items, which other runs share; indexes are a corpus's own."""
    corpus = stages.corpus
    names = {
        "user_id": corpus.users["user_id"].gather(per_user["user"]).cast(pl.String),
        "target_item_id": corpus.items["item_id"].gather(per_user["target_item"]).cast(pl.String),
    }
    return pl.DataFrame(names).hstack(per_user.drop("user", "target_item"))
