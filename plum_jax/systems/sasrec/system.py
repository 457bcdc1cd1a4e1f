"""SASRec as a system (Kang and McAuley, arXiv 1808.09781), by default with the full softmax (arXiv 2309.07602)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import Split
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import parameter_counts, train_step_flops
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.item_losses import BinaryCrossEntropy, SampledSoftmax
from plum_jax.objectives.next_token import NextToken
from plum_jax.objectives.objective import Objective
from plum_jax.stages import Stages
from plum_jax.systems.history_feed import history_feed
from plum_jax.systems.sasrec.scoring import sasrec_scorer
from plum_jax.systems.scored_items import FittedScorer, Scorer
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import initial_params
from plum_jax.training.loop import Evaluator


@dataclasses.dataclass(frozen=True)
class SasRec:
    """Item embeddings, a causal Transformer, and the same table as head: a decoder whose vocabulary is the catalogue.

    Deviations from the paper: RMSNorm before each branch, rotary positions instead of learned ones, a gated MLP, no
    dropout of attention weights; several windows share a row.

    Attributes:
      transformer: sizes; `tied_embeddings` is the paper's shared item embedding.
      objective: `NextToken` is the full softmax over items; `item_losses.BinaryCrossEntropy` the paper's own loss.
      training: steps, optimizer, periods, seed.
      history_length: items of a window, and the latest of a history that ranking reads.
      batch_size: rows of a batch.
      row_length: positions of a row.
      epochs: passes over the rows that `fit` trains for, instead of `training.steps`; None: those steps.
      curve_users: validation users for the curves and for choosing the best checkpoint.
    """

    transformer: DecoderConfig = DecoderConfig()
    objective: Objective = NextToken()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    history_length: int = 50
    batch_size: int = 16
    row_length: int = 100
    epochs: float | None = None
    curve_users: int = 5000

    def fit(self, stages: Stages, name: str) -> FittedScorer:
        """Trains on every training event but each user's first, or goes on, or reads what was trained."""
        if self.epochs is not None:
            training = self.training.for_passes(self.epochs, self.feed(stages.split).steps_per_epoch)
            return dataclasses.replace(self, training=training, epochs=None).fit(stages, name)
        directory, scorer = stages.directory / "systems" / name, self.scorer(stages.split.corpus.num_items)
        curve = scorer.curve(stages.split, self.curve_users)
        evaluators = {"validation": curve} if self.training.evaluation_period else {}
        params = self.train(stages.split, directory, evaluators=evaluators, description=name)
        return FittedScorer(scorer, params, self._facts(stages.split.corpus.num_items), epath.Path(directory))

    def train(
        self,
        split: Split,
        directory: epath.PathLike,
        *,
        evaluators: Mapping[str, Evaluator] | None = None,
        trunk: trainer.Trunk | None = None,
        description: str = "sasrec",
    ) -> Any:
        """Parameters after the last step, or after the best one; the arguments are those of `trainer.train`."""
        network = self.network(split.corpus.num_items)
        return trainer.train(
            self.training,
            directory=directory,
            init_params=initial_params(network),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=self.feed(split),
            fingerprints={"split": split.fingerprint, "system": artifact.fingerprint(self)},
            evaluators=evaluators,
            step_flops=self.step_flops(network.vocab_size),
            tokens_per_step=self.batch_size * self.row_length,
            trunk=trunk,
            description=description,
            described={"system": self},
        )

    def network(self, num_items: int) -> Decoder:
        """The decoder over items."""
        return Decoder(self.transformer, num_items)

    def scorer(self, num_items: int) -> Scorer:
        """How it ranks."""
        return sasrec_scorer(self.network(num_items), self.history_length)

    def feed(self, split: Split) -> ArrayBatches:
        """Packed rows of item indexes, reshuffled each epoch."""
        return history_feed(
            split,
            history_length=self.history_length,
            row_length=self.row_length,
            batch_size=self.batch_size,
            seed=self.training.seed,
            used_by="SASRec",
        )

    def scored(self, num_items: int) -> int:
        """Items that a position is scored against in training."""
        objective = self.objective
        if isinstance(objective, SampledSoftmax | BinaryCrossEntropy):
            return min(num_items, 1 + objective.num_negatives)
        return num_items

    def step_flops(self, num_items: int) -> float:
        """Model FLOPs of a training step."""
        return train_step_flops(self.transformer, self.scored(num_items), self.batch_size, self.row_length)

    def _facts(self, num_items: int) -> dict[str, float]:
        counts = parameter_counts(self.transformer, num_items)
        return {
            "seed": self.training.seed,
            "parameters": counts["total"],
            "non_embedding_parameters": counts["non_embedding"],
            "train_flops": self.training.steps * self.step_flops(num_items),
        }
