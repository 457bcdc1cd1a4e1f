"""Our optimizers as T5X's: the same Optax transformation, whose slots are split as their parameters are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax
import jax
from jax.sharding import PartitionSpec

from plum_jax.interop.t5x import installed  # noqa: F401  (before t5x)
from plum_jax.training.optimizer import AdamW, Optimizer
from plum_jax.training.schedules import Schedule
from plum_jax.training.slots import map_slots
from plum_jax.training.training_config import TrainingConfig

from t5x import optimizers  # isort: skip


class OptimizerDef(optimizers.OptaxWrapper):
    """AdamW, Muon or Adafactor of `plum_jax.training.optimizer`, clipping and schedule included.

    T5X's own wrapper knows the axes of the states that it lists; here a slot is found by its parameter's path, so all
    of ours work, masked, partitioned or factored. T5X's `learning_rate_fn` is for its log alone: `logged_rate`.
    """

    def __init__(self, optimizer: Optimizer = AdamW(), steps: int = 1000, ema_decay: float = 0.0) -> None:  # noqa: B008
        """The optimizer of a run of `steps`, with the average of the parameters that `TrainingConfig` would keep."""
        self.config = TrainingConfig(steps=steps, optimizer=optimizer, ema_decay=ema_decay)
        super().__init__(self.config.transformation())

    def derive_logical_axes(self, optimizer: Any, param_logical_axes: Any) -> Any:
        """Logical axes in place of all arrays: a slot of its parameter's shape has its axes, others are replicated."""
        shapes, axes = optimizer.target, dict(_flat(param_logical_axes))
        paired = jax.tree_util.tree_map_with_path(lambda keys, leaf: (leaf.shape, axes[_path(keys)]), shapes)

        def of_slot(slot: Any, parameter: Any) -> Any:
            return parameter[1] if parameter is not None and parameter[0] == slot.shape else None

        paired = jax.tree.map(_Pair, paired, is_leaf=lambda x: isinstance(x, tuple) and len(x) == 2)
        slots = map_slots(lambda slot, pair: of_slot(slot, pair and pair.both), optimizer.state.param_states, paired)
        state = optimizers.OptimizerState(step=None, param_states=slots)
        return optimizers.Optimizer(optimizer.optimizer_def, state, param_logical_axes)


class _Pair:
    """A parameter's shape and axes as one leaf."""

    def __init__(self, both: tuple[Any, Any]) -> None:
        self.both = both


def _path(keys: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(key.key) for key in keys)


def _flat(tree: Any) -> list[tuple[tuple[str, ...], Any]]:
    return list(flax.traverse_util.flatten_dict(flax.core.unfreeze(tree), is_leaf=_is_axes).items())


def _is_axes(_: Any, node: Any) -> bool:
    return node is None or isinstance(node, PartitionSpec)


def logged_rate(schedule: Schedule, steps: int) -> Callable[[Any], Any]:
    """What T5X's log calls learning_rate; the optimizer has the schedule itself."""
    return schedule.build(steps)
