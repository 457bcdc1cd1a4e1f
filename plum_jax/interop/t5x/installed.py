"""Whether T5X is there, and is one that the bridge knows; imported before anything of T5X."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from plum_jax.interop import InteropError

# What is used of T5X; its commit cc342d4 (April 2026) has it all.
USED: Mapping[str, tuple[str, ...]] = {
    "t5x.checkpoints": ("OrbaxCheckpointManagerInterface", "get_checkpoint_dir", "load_t5x_checkpoint"),
    "t5x.checkpoint_utils": ("CheckpointTypes", "detect_checkpoint_type"),
    "t5x.metrics": ("AveragePerStep", "StepsPerTime", "Sum", "Time", "TimeRate"),
    "t5x.models": ("BaseTransformerModel",),
    "t5x.optimizers": ("Optimizer", "OptaxWrapper", "OptimizerState"),
    "t5x.partitioning": ("PjitPartitioner",),
    "t5x.trainer": ("Trainer", "train_with_lr"),
    "t5x.train_state": ("FlaxOptimTrainState",),
    "t5x.utils": ("TrainStateInitializer", "get_dataset"),
}


class T5xError(InteropError):
    """T5X is not there, is another than the bridge knows, or brings what is not the run's."""


def require_t5x(used: Mapping[str, tuple[str, ...]] = USED) -> None:
    """Refuses to go on without T5X.

    Raises:
      T5xError: it cannot be imported, with the reason, or lacks what is used, by name.
    """
    missing = []
    for module, names in used.items():
        try:
            found = importlib.import_module(module)
        except ImportError as error:
            raise T5xError(
                f"expected T5X beside plum_jax, but {module} cannot be imported ({error}): it is on no package index; "
                "docs/t5x.md says how to install it from source"
            ) from error
        missing += [f"{module}.{name}" for name in names if not hasattr(found, name)]
    if missing:
        raise T5xError(
            f"this T5X lacks {', '.join(missing)}, which the bridge uses: take a commit that has them "
            "(docs/t5x.md names one), or change plum_jax/interop/t5x/"
        )


require_t5x()
