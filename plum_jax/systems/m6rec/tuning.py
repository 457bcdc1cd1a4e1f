"""What of the network learns a task: all of it, or little beside a trunk that stays as it is."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import jax
import numpy as np

from plum_jax.model.config import Adapter, DecoderConfig
from plum_jax.systems.m6rec.network import Heads
from plum_jax.training.optimizer import AdamW
from plum_jax.training.parameter_groups import ParameterGroups, matches
from plum_jax.training.parameter_roles import path_of

Method = Literal["full", "prompt", "option", "adapter", "option_adapter"]
# Patterns of what each method trains; the rest stays as it is, bit for bit.
_TUNED: dict[str, tuple[str, ...]] = {
    "full": (".*",),
    "prompt": ("soft_prompts", "decoder/special", "classes"),
    "option": ("soft_prompts", "decoder/special"),
    "adapter": (".*/adapter", "decoder/special", "classes"),
    "option_adapter": (".*/adapter", "soft_prompts", "decoder/special"),
}


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How a task is learnt.

    Attributes:
      method: "full": all parameters; "prompt": soft prompts, special tokens and class weights alone; "option": soft
        prompts and special tokens alone, for the last prompts are the class weights; "adapter": adapters, special
        tokens and class weights; "option_adapter": adapters, soft prompts and special tokens.
      soft_prompts: how many, where there are any.
      adapter: its size, where there is one.
    """

    method: Method = "full"
    soft_prompts: int = 10
    adapter: Adapter = Adapter()

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"expected a method of tuning among {get_args(Method)}, got {self.method!r}")

    def heads(self, heads: Heads) -> Heads:
        """With the soft prompts of the method."""
        with_prompts = self.method in ("prompt", "option", "option_adapter")
        return dataclasses.replace(
            heads, soft_prompts=self.soft_prompts if with_prompts else 0, options=self.method.startswith("option")
        )

    def decoder(self, config: DecoderConfig) -> DecoderConfig:
        """With the adapters of the method."""
        return dataclasses.replace(config, adapter=self.adapter) if "adapter" in self.method else config

    def optimizer(self, optimizer: Any) -> Any:
        """One that leaves alone what the method does.

        Raises:
          ValueError: another one than AdamW, of which a part would learn.
        """
        if self.method == "full":
            return optimizer
        if not isinstance(optimizer, AdamW):
            raise ValueError(f"method {self.method!r} tunes by AdamW, got {type(optimizer).__name__}: set M6_OPTIMIZER")
        rules = (*((pattern, 1.0) for pattern in _TUNED[self.method]), (".*", 0.0))
        return dataclasses.replace(optimizer, groups=ParameterGroups(rules))

    def tuned_parameters(self, params: Any) -> int:
        """How many parameters it trains, of arrays or their shapes."""
        return sum(
            int(np.prod(leaf.shape))
            for keys, leaf in jax.tree_util.tree_leaves_with_path(params)
            if any(matches(pattern, path_of(keys)) for pattern in _TUNED[self.method])
        )
