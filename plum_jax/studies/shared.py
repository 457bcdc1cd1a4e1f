"""What all cells of a study share: made once, by whichever process comes first, and known by its figures."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.feeds.batches import TokenBatches
from plum_jax.retrieval.recommend import select_rows
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.studies.grid import DataFacts
from plum_jax.studies.records import shared_directory
from plum_jax.studies.study import Study
from plum_jax.systems.generative.pipeline import GenerativeStages
from tasks.retrieval import read_prompts

KIND = "study_shared"
FACTS = "facts.json"
_FILL_ROWS = 2048  # rows that the share of trained positions is measured on


@runtime_checkable
class KnowsTheBest(Protocol):
    """A source that knows how well its events can be predicted: the simulator."""

    def best_possible_recall(self, k: int, users: np.ndarray | None = None) -> float:
        """Of the best recommender there can be."""

    def best_possible_nats(self, users: np.ndarray | None = None) -> float:
        """Of an item, under the best model there can be."""


@dataclasses.dataclass(frozen=True, eq=False)
class Shared:
    """What a cell reads.

    Attributes:
      table, vocabulary, records, prompts: the artefacts; prompts of the test users that are evaluated.
      data: what a grid must know.
      best: "best_possible_recall@k" and "best_possible_loss" (nats a SID token) on these users, where the source knows
        them.
    """

    table: SidTable
    vocabulary: SidVocabulary
    records: epath.Path
    prompts: pl.DataFrame
    data: DataFacts
    best: dict[str, float]


def shared(study: Study, study_dir: epath.PathLike) -> Shared:
    """Makes what is not there yet, one process at a time, and reads it.

    Once all is made a cell reads no corpus: the directory says of which pipeline and files it is.
    """
    directory = shared_directory(study_dir)
    facts = directory / "facts"
    config, inputs = study.shared_config, study.pipeline.data.source.inputs()
    if not artifact.is_current(facts, kind=KIND, config=config, inputs=inputs):
        directory.mkdir(parents=True, exist_ok=True)
        with artifact.alone(directory / "all"):
            if not artifact.is_current(facts, kind=KIND, config=config, inputs=inputs):
                _make(study, directory, facts, config, inputs)
    said = json.loads((facts / FACTS).read_text())
    prompts = read_prompts(directory / "prompts" / "test")
    return Shared(
        table=SidTable.load(directory / "sids"),
        vocabulary=SidVocabulary.load(directory / "vocabulary"),
        records=directory / "records" / "retrieval",
        prompts=prompts[select_rows(len(prompts), study.evaluation_users)],
        data=DataFacts(**said["data"]),
        best=said["best"],
    )


def _make(study: Study, directory: epath.Path, facts: epath.Path, config: Any, inputs: dict[str, str]) -> None:
    stages = study.pipeline.stages(directory)
    feed = TokenBatches(
        stages.retrieval_records,
        batch_size=1,
        length=study.pipeline.retrieval.length,
        start_token=stages.vocabulary.start_id,
    )
    prompts = stages.prompts("test")
    users = prompts["user"].to_numpy()[select_rows(len(prompts), study.evaluation_users)]
    data = DataFacts(
        vocab_size=stages.vocabulary.vocab_size,
        length=feed.length,
        unique_tokens=sum(task.statistics.weighted_tokens for task in feed.tasks),
        fill=_trained_share(feed),
        evaluation_users=len(users),
        prompt_tokens=float(np.mean(prompts["prompt"].list.len().to_numpy())),
        sid_levels=stages.table.num_levels,
    )
    said = {"data": dataclasses.asdict(data), "best": _best(study, stages, users)}
    artifact.write_artifact(
        facts,
        kind=KIND,
        fingerprint=artifact.fingerprint(said),
        config=config,
        inputs=inputs,
        write=lambda aside: artifact.write_json(aside / FACTS, said),
    )


def _best(study: Study, stages: GenerativeStages, users: np.ndarray) -> dict[str, float]:
    source = study.pipeline.data.source
    if not isinstance(source, KnowsTheBest):
        return {}
    best = {f"best_possible_recall@{k}": source.best_possible_recall(k, users) for k in study.pipeline.evaluation.ks}
    if len(stages.table.items_of_sid().sids) == stages.table.num_items:  # else a SID is more probable than its item
        best["best_possible_loss"] = source.best_possible_nats(users) / stages.table.num_levels
    return best


def _trained_share(feed: TokenBatches) -> float:
    """Of the positions of the first rows, those with a loss weight."""
    iterator = feed.make_iterator()
    rows = min(_FILL_ROWS, max(1, int(feed.steps_per_epoch)))
    return float(np.mean([np.mean(next(iterator)["decoder_loss_weights"] > 0) for _ in range(rows)]))
