"""T5X's trainer with gradient accumulation that is exact: every microbatch counts by its tokens."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp

from plum_jax.interop.t5x import installed  # noqa: F401  (before t5x)

from t5x import trainer  # isort: skip

WHOLE_WEIGHT = "whole_batch_weight"


class Trainer(trainer.Trainer):
    """`t5x.trainer.Trainer` that tells each microbatch the weight of the whole batch, which it divides by.

    T5X adds the gradients of microbatches, so a loss that is a mean would count `num_microbatches` times, and a
    microbatch of few tokens as much as one of many. `SidModel` divides by this column where it is there.
    """

    @functools.cached_property
    def _partitioned_train_step(self) -> Any:
        def train_step(train_state: Any, batch: Any) -> Any:
            weights = batch["decoder_loss_weights"].astype(jnp.float32)
            whole = jnp.full(weights.shape[0], jnp.sum(weights))
            return trainer.train_with_lr(
                train_state,
                {**batch, WHOLE_WEIGHT: whole},
                learning_rate=self._learning_rate_fn(train_state.step),
                dropout_rng=self._get_step_rng(train_state.step),
                model=self._model,
                num_microbatches=self._num_microbatches,
                weight_metrics_computer=self._weight_metrics_computer,
                data_partition_spec=self._partitioner.data_partition_spec,
            )

        return self._partitioner.partition(
            train_step,
            in_axis_resources=(self._train_state_axes, self._partitioner.data_partition_spec),
            out_axis_resources=(self._train_state_axes, None),
            donate_argnums=(0,),
        )
