"""A click without a label to learn from: which of two endings of the event the trunk would rather write."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.ranking.labels import Label
from plum_jax.ranking.ranker import table_sizes
from plum_jax.stages import Stages
from plum_jax.systems.m6rec.losses import token_nats
from plum_jax.systems.m6rec.network import M6Network, applied
from plum_jax.systems.m6rec.pretraining import Pretrained, Pretraining
from plum_jax.systems.m6rec.rows import TextRows
from plum_jax.systems.m6rec.serving import by_blocks


@dataclasses.dataclass(frozen=True)
class ZeroShot:
    """Length-normalised log-likelihoods of "... Now, the user liked it." and of the other sentence, compared.

    No task is trained; the texts of the pre-training have such sentences about training events.

    Attributes:
      pretraining: the trunk.
    """

    pretraining: Pretraining = Pretraining()

    def fit(self, stages: Stages, label: Label, name: str) -> FittedZeroShot:
        """Pre-trains, or reads what was."""
        return FittedZeroShot(self.pretraining.fit(stages, label.of(stages.split)))


@dataclasses.dataclass(frozen=True, eq=False)
class FittedZeroShot:
    """Attributes:
    trunk: that writes.
    """

    trunk: Pretrained

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint("zero shot", self.trunk.fingerprint)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"seed": self.trunk.config.training.seed, "examples": 0, **table_sizes(self.trunk.written_by)}

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n], mean log-likelihood of a token with the ending of label 1 less that of label 0."""
        writer, tokens = self.trunk.writer, self.trunk.tokens
        likelihoods = [
            mean_log_likelihoods(
                self.trunk.network,
                self.trunk.written_by,
                tokens.rows([writer.outcome(int(row), label) for row in rows]),
            )
            for label in (1.0, 0.0)
        ]
        return likelihoods[0] - likelihoods[1]


def mean_log_likelihoods(network: M6Network, params: Any, rows: TextRows) -> np.ndarray:
    """float32 [n], of the candidate side's tokens, [EOS] among them, behind the user side."""
    params = jax.device_put(params)
    return by_blocks(lambda some: _mean(network, params, some.columns()), rows)


@functools.partial(jax.jit, static_argnums=0)
def _mean(network: M6Network, params: Any, batch: Any) -> jax.Array:
    nats, written = token_nats(applied(network, params, batch, method="language"), batch)
    return -jnp.sum(nats, axis=1) / jnp.maximum(jnp.sum(written, axis=1), 1)
