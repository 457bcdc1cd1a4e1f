"""SASRec as what a study scales: trained on item histories, judged by exact scores of all items."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from etils import epath

from plum_jax.corpus.splits import Split
from plum_jax.evaluation.scalable import DataFacts, Prepared
from plum_jax.feeds.packing import random_rows
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token, parameter_counts, train_flops_parts, train_step_flops
from plum_jax.systems.sasrec.system import SasRec
from plum_jax.systems.scaled_items import ScaledItems, branch
from plum_jax.systems.scored_items import judged_with_loss
from plum_jax.training.initial import initial_params
from plum_jax.training.step_recipe import StepRecipe
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class ScaledSasRec(ScaledItems):
    """SASRec at any size (`evaluation.scalable.Scalable`); "loss" is nats of each test user's item among all items.

    Attributes:
      data: corpus and split; no features and no Semantic IDs are made.
      system: whose transformer, steps and batch a study sets.
      ks: cut-offs of recall.
    """

    system: SasRec = SasRec()

    @property
    def data_config(self) -> Mapping[str, Any]:
        system = self.system
        windows = {"history_length": system.history_length, "length": system.row_length}
        return {"source": self.data.source, "splitter": self.data.splitter, **windows}

    def sized(self, transformer: DecoderConfig, training: TrainingConfig, batch_size: int) -> ScaledSasRec:
        changed = dataclasses.replace(self.system, transformer=transformer, training=training, batch_size=batch_size)
        return dataclasses.replace(self, system=changed)

    def prepare(self, directory: epath.Path, max_users: int | None) -> Prepared:
        """The corpus; rows are packed when they are read."""
        split = self.data.stages(directory).split
        trained = self.system.feed(split).arrays["decoder_loss_weights"] > 0
        return self.prepared(split, trained, self.system.history_length, max_users)

    def trial(self, directory: epath.Path, max_users: int | None) -> SasRecTrial:
        """Reads the corpus that was made."""
        return SasRecTrial(self, directory, max_users)

    def counts(self, data: DataFacts) -> Mapping[str, int]:
        return parameter_counts(self.system.transformer, data.vocab_size)

    def flops_parts(self, data: DataFacts) -> Mapping[str, float]:
        scored = self.system.scored(data.vocab_size)
        return train_flops_parts(self.system.transformer, scored, (data.length + 1) / 2)

    def evaluation_flops(self, data: DataFacts) -> float:
        """Of the held-out loss and the lists: each reads the history and scores all items once."""
        tower = forward_flops_per_token(self.system.transformer, 0, data.prompt_tokens / 2)
        head = 2 * data.vocab_size * self.system.transformer.d_model
        return data.evaluation_users * 2 * (tower * data.prompt_tokens + head)

    def step(self, data: DataFacts) -> StepRecipe:
        system, network = self.system, self.system.network(data.vocab_size)
        scored = system.scored(data.vocab_size)
        return StepRecipe(
            training=system.training,
            init_params=initial_params(network),
            objective=functools.partial(system.objective.on, network),
            batch=functools.partial(random_rows, system.batch_size, system.row_length, data.vocab_size),
            batch_size=system.batch_size,
            length=system.row_length,
            flops=train_step_flops(system.transformer, scored, system.batch_size, system.row_length, causal=True),
            transformer=system.transformer,
        )


@dataclasses.dataclass(frozen=True)
class SasRecTrial:
    """One size on a prepared corpus."""

    config: ScaledSasRec
    directory: epath.Path
    max_users: int | None

    @functools.cached_property
    def split(self) -> Split:
        return self.config.data.stages(self.directory).split

    def train(self, directory: epath.Path, branch_at: tuple[epath.Path, int] | None, description: str) -> Any:
        return self.config.system.train(self.split, directory, trunk=branch(branch_at), description=description)

    def judge(self, params: Any) -> dict[str, Any]:
        scorer = self.config.system.scorer(self.split.corpus.num_items)
        return judged_with_loss(scorer, params, self.split, self.max_users, self.config.ks)
