"""The decoder as what a study scales: one phase of retrieval training from random parameters, judged by beam search."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.feeds.batches import TokenBatches
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token, parameter_counts, train_flops_parts
from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.recommend import Recommender, select_rows
from plum_jax.retrieval.target_loss import TargetLoss
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.stages import Source
from plum_jax.systems.generative.evaluator import RetrievalEvaluator
from plum_jax.systems.generative.phase import Phase, step_recipe, train_phase
from plum_jax.systems.generative.pipeline import Pipeline
from plum_jax.training.step_recipe import StepRecipe
from plum_jax.training.trainer import Trunk
from plum_jax.training.training_config import TrainingConfig
from tasks.retrieval import read_prompts

_OF_DATA = ("data", "vocabulary", "sid_text", "retrieval_task")  # pieces are trained on the texts of sid_text
_FILL_ROWS = 2048  # rows that the share of trained positions is measured on


@dataclasses.dataclass(frozen=True)
class ScaledDecoder:
    """Generative retrieval at any size (`evaluation.scalable.Scalable`).

    Attributes:
      pipeline: what all cells share, up to the token records and the prompts; its decoder, and `pipeline.retrieval`
        with optimizer and schedule, are of the size. Continued pre-training is not used.
    """

    pipeline: Pipeline

    def __post_init__(self) -> None:
        if self.pipeline.initialisation.pretrained is not None:
            raise ValueError("a study's cells begin with random parameters: leave PRETRAINED unset")

    @property
    def _phase(self) -> Phase:
        return self.pipeline.retrieval

    @property
    def training(self) -> TrainingConfig:
        return self._phase.training

    @property
    def length(self) -> int:
        return self._phase.length

    @property
    def source(self) -> Source:
        return self.pipeline.data.source

    @property
    def ks(self) -> Sequence[int]:
        return self.pipeline.evaluation.ks

    @property
    def data_config(self) -> Mapping[str, Any]:
        return {**{name: getattr(self.pipeline, name) for name in _OF_DATA}, "length": self.length}

    @property
    def own_config(self) -> Mapping[str, Any]:
        pipeline = self.pipeline
        return {"decoder": pipeline.decoder, "phase": self._phase, "evaluation": pipeline.evaluation}

    def sized(self, transformer: DecoderConfig, training: TrainingConfig, batch_size: int) -> ScaledDecoder:
        phase = dataclasses.replace(self._phase, training=training, batch_size=batch_size)
        return ScaledDecoder(dataclasses.replace(self.pipeline, decoder=transformer, retrieval=phase))

    def prepare(self, directory: epath.Path, max_users: int | None) -> Prepared:
        """Records, vocabulary, Semantic IDs and prompts."""
        stages = self.pipeline.stages(directory)
        feed = TokenBatches(
            stages.retrieval_records, batch_size=1, length=self.length, start_token=stages.vocabulary.start_id
        )
        prompts, table = stages.prompts("test"), stages.table
        users = prompts["user"].to_numpy()[select_rows(len(prompts), max_users)]
        data = DataFacts(
            vocab_size=stages.vocabulary.vocab_size,
            length=feed.length,
            unique_tokens=sum(task.statistics.weighted_tokens for task in feed.tasks),
            fill=_trained_share(feed),
            evaluation_users=len(users),
            prompt_tokens=float(np.mean(prompts["prompt"].list.len().to_numpy())),
            sid_levels=table.num_levels,
        )
        return Prepared(data, users, len(table.items_of_sid().sids) == table.num_items)

    def trial(self, directory: epath.Path, max_users: int | None) -> DecoderTrial:
        """Reads no corpus: the artefacts say of which they are."""
        return DecoderTrial(self.pipeline, directory, max_users)

    def counts(self, data: DataFacts) -> Mapping[str, int]:
        return parameter_counts(self.pipeline.decoder, data.vocab_size)

    def flops_parts(self, data: DataFacts) -> Mapping[str, float]:
        return train_flops_parts(self.pipeline.decoder, data.vocab_size, (data.length + 1) / 2)

    def evaluation_flops(self, data: DataFacts) -> float:
        """Of the held-out loss and the beam search over the test users."""
        per_token = forward_flops_per_token(self.pipeline.decoder, data.vocab_size, data.prompt_tokens / 2)
        searched = self.pipeline.evaluation.num_beams * (data.sid_levels - 1)
        return data.evaluation_users * per_token * (2 * data.prompt_tokens + data.sid_levels + searched)

    def step(self, data: DataFacts) -> StepRecipe:
        return step_recipe(self._phase, self.pipeline.decoder, data.vocab_size)


@dataclasses.dataclass(frozen=True)
class DecoderTrial:
    """One size of the decoder on prepared data."""

    pipeline: Pipeline
    directory: epath.Path
    max_users: int | None

    @functools.cached_property
    def vocabulary(self) -> SidVocabulary:
        return SidVocabulary.load(self.directory / "vocabulary")

    @functools.cached_property
    def table(self) -> SidTable:
        return SidTable.load(self.directory / "sids")

    @property
    def records(self) -> epath.Path:
        return self.directory / "records" / "retrieval"

    @functools.cached_property
    def prompts(self) -> pl.DataFrame:
        """Of the test users that are judged on."""
        prompts = read_prompts(self.directory / "prompts" / "test")
        return prompts[select_rows(len(prompts), self.max_users)]

    @property
    def decoder(self) -> Decoder:
        return Decoder(self.pipeline.decoder, self.vocabulary.vocab_size)

    def train(self, directory: epath.Path, branch_at: tuple[epath.Path, int] | None, description: str) -> Any:
        return train_phase(
            self.pipeline.retrieval,
            decoder=self.decoder,
            records=self.records,
            start_token=self.vocabulary.start_id,
            made_from={"sid_table": self.table.fingerprint, "vocabulary": self.vocabulary.fingerprint},
            directory=directory,
            trunk=None if branch_at is None else Trunk(*branch_at, may_differ=("phase",)),
            description=description,
        )

    def judge(self, params: Any) -> dict[str, Any]:
        evaluation = self.pipeline.evaluation
        recommender = Recommender(
            self.decoder,
            self.vocabulary,
            self.table,
            num_beams=evaluation.num_beams,
            batch_size=evaluation.batch_size,
        )
        judge = RetrievalEvaluator(
            recommender, self.prompts, ks=evaluation.ks, free_search_users=evaluation.free_search_users
        )
        return TargetLoss(recommender, self.prompts)(params) | judge(params)


def _trained_share(feed: TokenBatches) -> float:
    """Of the positions of the first rows, those with a loss weight."""
    iterator = feed.make_iterator()
    rows = min(_FILL_ROWS, max(1, int(feed.steps_per_epoch)))
    return float(np.mean([np.mean(next(iterator)["decoder_loss_weights"] > 0) for _ in range(rows)]))
