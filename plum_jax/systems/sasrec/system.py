"""SASRec as a system (Kang and McAuley, arXiv 1808.09781), by default with the full softmax (arXiv 2309.07602)."""

from __future__ import annotations

import dataclasses

from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import Split
from plum_jax.feeds.batches import ArrayBatches
from plum_jax.feeds.histories import history_rows
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import parameter_counts, train_step_flops
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.next_token import NextToken
from plum_jax.objectives.objective import Objective
from plum_jax.stages import Stages
from plum_jax.systems.sasrec.scoring import sasrec_scorer
from plum_jax.systems.scored_items import FittedScorer, training_histories
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import initial_params


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
      curve_users: validation users for the curves and for choosing the best checkpoint.
    """

    transformer: DecoderConfig = DecoderConfig()
    objective: Objective = NextToken()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    history_length: int = 50
    batch_size: int = 16
    row_length: int = 100
    curve_users: int = 5000

    def fit(self, stages: Stages, name: str) -> FittedScorer:
        """Trains on every training event but each user's first, or goes on, or reads what was trained."""
        split, directory = stages.split, stages.directory / "systems" / name
        network = Decoder(self.transformer, split.corpus.num_items)
        scorer = sasrec_scorer(network, self.history_length)
        training = self.training
        params = trainer.train(
            training,
            directory=directory,
            init_params=initial_params(network),
            objective=self.objective.on(network, training.mesh.build()),
            feed=self.feed(split),
            fingerprints={"split": split.fingerprint, "system": artifact.fingerprint(self)},
            evaluators={"validation": scorer.curve(split, self.curve_users)} if training.evaluation_period else {},
            step_flops=self.step_flops(network.vocab_size),
            tokens_per_step=self.batch_size * self.row_length,
            description=name,
            described={"system": self},
        )
        return FittedScorer(scorer, params, self._facts(network), epath.Path(directory))

    def feed(self, split: Split) -> ArrayBatches:
        """Packed rows of item indexes, reshuffled each epoch."""
        histories = training_histories(split, used_by="SASRec")
        rows = history_rows(histories, self.history_length, self.row_length, self.training.seed)
        return ArrayBatches(rows, min(self.batch_size, len(rows["decoder_positions"])), self.training.seed)

    def step_flops(self, num_items: int) -> float:
        """Model FLOPs of a training step with the full softmax; a sampled one has fewer in the head."""
        return train_step_flops(self.transformer, num_items, self.batch_size, self.row_length)

    def _facts(self, network: Decoder) -> dict[str, float]:
        counts = parameter_counts(self.transformer, network.vocab_size)
        return {
            "seed": self.training.seed,
            "parameters": counts["total"],
            "non_embedding_parameters": counts["non_embedding"],
            "train_flops": self.training.steps * self.step_flops(network.vocab_size),
        }
