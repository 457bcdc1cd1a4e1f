"""The trunk goes on with a text: explanations and answers, drawn token by token."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.retrieval.sampling import Sampling
from plum_jax.systems.m6rec.network import M6Network, applied, at, ends
from plum_jax.systems.m6rec.pretraining import Pretrained
from plum_jax.systems.m6rec.rows import CANDIDATE, SPECIAL, TextRows
from plum_jax.systems.m6rec.writer import Text

_ROWS = 32  # of a device call


@dataclasses.dataclass(frozen=True)
class Continuing:
    """How a text is gone on with. `language.generation` has Semantic IDs and causal prompts, and cannot.

    Attributes:
      max_tokens: that are written at most; [EOS] ends a text.
      temperature: 0: the likeliest token each time; else they are drawn.
      top_p: what draws are from.
      seed: of the draws.
    """

    max_tokens: int = 24
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"expected max_tokens of 1 or more, temperature of 0 or more and 0 < top_p <= 1, got {self}"
            )

    def write(self, trunk: Pretrained, texts: Sequence[Text]) -> list[str]:
        """What follows each text, whose candidate side is a beginning.

        Raises:
          ValueError: a text that leaves no room in a row.
        """
        found: list[str] = []
        for start in range(0, len(texts), _ROWS):
            some = texts[start : start + _ROWS]
            filled = [*some, *[some[0]] * (_ROWS - len(some))] if len(texts) > _ROWS else some
            found += self._written(trunk, filled, start)[: len(some)]
        return found

    def _written(self, trunk: Pretrained, texts: Sequence[Text], number: int) -> list[str]:
        tokens = trunk.tokens
        rows = _begun(tokens.rows(texts), tokens.special("end"), tokens.length + self.max_tokens)
        key = jax.random.fold_in(jax.random.key(self.seed), number)
        began = (rows.side > 0).sum(axis=1)
        params = jax.device_put(trunk.written_by)
        for step in range(self.max_tokens):
            written = _next(trunk.network, params, dict(rows.columns()), jax.random.fold_in(key, step), self)
            everyone, place = np.arange(len(texts)), began + step
            # They go on with the last segment.
            added = np.asarray(written), CANDIDATE, rows.segment[everyone, place - 1]
            for values, value in zip(rows, added, strict=True):
                values[everyone, place] = value
        found = []
        for row, start in enumerate(began):
            ids = rows.tokens[row, start : start + self.max_tokens].tolist()
            ids = ids[: ids.index(tokens.special("end"))] if tokens.special("end") in ids else ids
            found.append(tokens.pieces.decode([i for i in ids if i < tokens.vocab_size]))
        return found


def _begun(rows: TextRows, end: int, length: int) -> TextRows:
    """Rows of `length` without the [EOS] that stands last."""
    wider = TextRows(*(np.pad(values, ((0, 0), (0, length - values.shape[1]))) for values in rows))
    last = (rows.side > 0).sum(axis=1) - 1
    assert (rows.tokens[np.arange(len(last)), last] == end).all(), "a candidate side ends with [EOS]"
    for values in wider:
        values[np.arange(len(last)), last] = 0
    return wider


@functools.partial(jax.jit, static_argnums=(0, 4))
def _next(network: M6Network, params: Any, batch: Any, key: jax.Array, how: Continuing) -> jax.Array:
    """int32 [B], the token behind each row's last one."""
    logits = at(applied(network, params, batch, method="language"), ends(batch))
    # Of the special tokens only [EOS] is written.
    allowed = jnp.arange(logits.shape[-1])
    end = network.vocab_size + SPECIAL.index("end")
    logits = jnp.where((allowed < network.vocab_size) | (allowed == end), logits, -jnp.inf)
    if not how.temperature:
        return jnp.argmax(logits, axis=-1)
    scores = Sampling(how.temperature, top_p=how.top_p).log_probs(jax.nn.log_softmax(logits, axis=-1))
    return jax.random.categorical(key, scores, axis=-1)
