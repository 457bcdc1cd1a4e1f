"""What an objective is: a frozen configuration, bound in gin, that becomes the loss of a network on a mesh."""

from __future__ import annotations

from typing import Any, Protocol

from jax.sharding import Mesh

from plum_jax.training.step import Objective as Loss


class Objective(Protocol):
    """`NextToken`, softmax over items (full, sampled), binary, InfoNCE: each in its own file of this folder."""

    def on(self, network: Any, mesh: Mesh) -> Loss:
        """`(params, batch, rng) -> (loss_sum, weight_sum, metrics)` of sums and weights; `rng` None: no dropout.

        Args:
          network: the Linen module that is trained.
          mesh: of the step, which decides over kernels.
        """
