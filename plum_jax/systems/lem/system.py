"""The large-embedding model as a system: two towers, InfoNCE with negatives from the batch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import Split
from plum_jax.feeds.item_columns import ItemColumns
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import train_flops_parts
from plum_jax.objectives.info_nce import InfoNce
from plum_jax.stages import Stages
from plum_jax.systems.history_feed import history_feed, log_q
from plum_jax.systems.lem.network import TwoTowers
from plum_jax.systems.lem.scoring import lem_scorer
from plum_jax.systems.scored_items import FittedScorer, Scorer
from plum_jax.training import trainer, training_config
from plum_jax.training.loop import Evaluator


@dataclasses.dataclass(frozen=True)
class Lem:
    """PLUM's baseline (§1.4): an embedding for each item, its content features, and two towers whose product ranks.

    The paper gives sizes and results, no layers; here the user tower is a Transformer over the items' vectors, and the
    item tower the sum of embedding and projected features. All of a run's feature blocks are read.

    Attributes:
      transformer: sizes of the user tower.
      objective: InfoNCE, with or without the correction for popularity.
      training: steps, optimizer, periods, seed; one microbatch, for negatives come from the batch.
      history_length: items of a window, and the latest of a history that ranking reads.
      batch_size, row_length: rows of a batch and positions of a row; their product is the number of negatives.
      epochs: passes over the rows that `fit` trains for, instead of `training.steps`; None: those steps.
      curve_users: validation users for the curves and for choosing the best checkpoint.
    """

    transformer: DecoderConfig = DecoderConfig()
    objective: InfoNce = InfoNce()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    history_length: int = 50
    batch_size: int = 16
    row_length: int = 100
    epochs: float | None = None
    curve_users: int = 5000

    def __post_init__(self) -> None:
        if self.training.microbatches != 1:
            raise ValueError(
                f"LEM takes its negatives from the batch: expected microbatches=1, got {self.training.microbatches}, "
                "which would leave each piece its own positions alone; lower batch_size, or use more devices"
            )

    def fit(self, stages: Stages, name: str) -> FittedScorer:
        """Trains on every training event but each user's first, or goes on, or reads what was trained."""
        split, features = stages.split, item_features(stages)
        if self.epochs is not None:
            training = self.training.for_passes(self.epochs, self.feed(split, features).rows.steps_per_epoch)
            return dataclasses.replace(self, training=training, epochs=None).fit(stages, name)
        directory, scorer = stages.directory / "systems" / name, self.scorer(features)
        evaluators = {"validation": scorer.curve(split, self.curve_users)} if self.training.evaluation_period else {}
        params = self.train(split, features, directory, evaluators=evaluators, description=name)
        return FittedScorer(scorer, params, self._facts(params, features.shape[1]), epath.Path(directory))

    def train(
        self,
        split: Split,
        features: np.ndarray,
        directory: epath.PathLike,
        *,
        evaluators: Mapping[str, Evaluator] | None = None,
        trunk: trainer.Trunk | None = None,
        description: str = "lem",
    ) -> Any:
        """Parameters after the last step, or after the best one; the arguments are those of `trainer.train`."""
        network, training = self.network(*features.shape), self.training
        return trainer.train(
            training,
            directory=directory,
            init_params=functools.partial(initial_towers, network),
            objective=self.objective.on(network, training.mesh.build()),
            feed=self.feed(split, features),
            fingerprints={
                "split": split.fingerprint,
                "features": artifact.fingerprint(features),
                "system": artifact.fingerprint(self),
            },
            evaluators=evaluators,
            step_flops=self.step_flops(features.shape[1]),
            tokens_per_step=self.batch_size * self.row_length,
            trunk=trunk,
            description=description,
            described={"system": self},
        )

    def network(self, num_items: int, feature_dim: int) -> TwoTowers:
        """The towers for these items."""
        return TwoTowers(self.transformer, num_items, feature_dim)

    def scorer(self, features: np.ndarray) -> Scorer:
        """How it ranks."""
        return lem_scorer(self.network(*features.shape), features, self.history_length)

    def feed(self, split: Split, features: np.ndarray) -> ItemColumns:
        """Packed rows of item indexes with features, reshuffled each epoch."""
        histories = history_feed(
            split,
            history_length=self.history_length,
            row_length=self.row_length,
            batch_size=self.batch_size,
            seed=self.training.seed,
            used_by="LEM",
        )
        inputs, targets = "decoder_input_tokens", "decoder_target_tokens"
        return ItemColumns(
            histories,
            {
                "input_features": (inputs, features),
                "target_features": (targets, features),
                "target_log_q": (targets, log_q(split)),
            },
        )

    def step_flops(self, feature_dim: int) -> float:
        """Model FLOPs of a training step."""
        return self.batch_size * self.row_length * sum(self.flops_parts(feature_dim, causal=False).values())

    def flops_parts(self, feature_dim: int, *, causal: bool = True) -> dict[str, float]:
        """Training FLOPs of one position by part (`model.counts.train_flops_parts`): the tower, both projections of
        features among the "projections", and as "head" the scores against the whole batch, as large as a vocabulary of
        that size.
        """
        context = (self.row_length + 1) / 2 if causal else self.row_length
        parts = train_flops_parts(self.transformer, self.batch_size * self.row_length, context)
        return parts | {"projections": parts["projections"] + 3 * 2 * 2 * feature_dim * self.transformer.d_model}

    def _facts(self, params: Any, feature_dim: int) -> dict[str, float]:
        total = sum(np.size(leaf) for leaf in jax.tree.leaves(params))
        return {
            "seed": self.training.seed,
            "parameters": total,
            "non_embedding_parameters": total - np.size(params["embedding"]),
            "train_flops": self.training.steps * self.step_flops(feature_dim),
        }


def item_features(stages: Stages) -> np.ndarray:
    """float32 [N, F]: all blocks of the run side by side; F is 0 where there are none."""
    if not stages.data.feature_builders:
        return np.zeros((stages.split.corpus.num_items, 0), np.float32)
    return np.concatenate([block.values for block in stages.features.blocks], axis=1)


def initial_towers(network: TwoTowers, key: jax.Array) -> Any:
    """Random parameters with their logical axes."""
    one, width = jnp.zeros((1, 1), jnp.int32), network.feature_dim
    batch = {name: one for name in ("decoder_input_tokens", "decoder_target_tokens", "decoder_positions")}
    batch |= {"decoder_segment_ids": one + 1}
    batch |= {name: jnp.zeros((1, 1, width)) for name in ("input_features", "target_features")}
    return network.init(key, batch, method="towers")["params"]
