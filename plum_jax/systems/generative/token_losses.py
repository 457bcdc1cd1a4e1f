"""Losses by kind of token and by task: what a decoder knows of words, of each level of Semantic IDs, and of fields."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import lax

from plum_jax.feeds import token_records
from plum_jax.feeds.batches import Batch, TokenBatches
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import PackedCausal
from plum_jax.semantic_ids.vocabulary import SidVocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class TokenLosses:
    """`(params) -> {name: value}` over some batches of each task of an artefact of token records, without dropout.

    "loss": nats a token, weighted as in training, over all that is judged; "loss_text", "loss_sid_1" ..., "loss_field",
    "loss_control" (control tokens and the end) of the tokens to be predicted, each of one kind, with "share_..." of the
    weight, so that the whole is the sum of share times loss; "loss_task_<name>" of each task. A kind or task without
    weight is left out.

    Attributes:
      decoder: the model.
      vocabulary: says what kind a token is.
      records: artefact of token records.
      batch_size, length: of a batch.
      batches: of each task, at most.
      share: of each task's records that judge (`TokenBatches`).
    """

    decoder: Decoder
    vocabulary: SidVocabulary
    records: epath.Path
    batch_size: int
    length: int
    batches: int = 4
    share: tuple[float, float] = (0.0, 1.0)

    @functools.cached_property
    def kinds(self) -> tuple[str, ...]:
        """Names of the kinds."""
        return ("text", "control", "field", *(f"sid_{n}" for n in range(1, len(self.vocabulary.codebook_sizes) + 1)))

    def __call__(self, params: Any) -> dict[str, float]:
        """All figures."""
        by_task = self.sums(params)
        total = np.sum([*by_task.values()], axis=0)
        row = {"loss": float(total[0].sum() / total[1].sum())}
        for kind, (loss, weight) in zip(self.kinds, total.T.tolist(), strict=True):
            if weight:
                row |= {f"loss_{kind}": loss / weight, f"share_{kind}": weight / float(total[1].sum())}
        for task, (losses, weights) in by_task.items():
            if weights.sum():
                row[f"loss_task_{task}"] = float(losses.sum() / weights.sum())
        return row

    def sums(self, params: Any) -> dict[str, np.ndarray]:
        """Task -> float64 [2, kinds]: sums of loss and of weight."""
        kind_of = jnp.asarray(self._kind_of)
        found = {}
        for task, batches in self._batches.items():
            total = np.zeros((2, len(self.kinds)))
            for batch in batches:
                total += np.asarray(_sums(self.decoder, params, batch, kind_of, len(self.kinds)), np.float64)
            found[task] = total
        return found

    @functools.cached_property
    def _kind_of(self) -> np.ndarray:
        """int32 [V]: the kind of each token."""
        vocabulary, names = self.vocabulary, list(self.kinds)
        kinds = np.full(vocabulary.vocab_size, names.index("text"), np.int32)
        kinds[vocabulary.num_pieces : vocabulary.sid_offset] = names.index("field")
        specials = (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.start_id)
        kinds[[*map(vocabulary.control_id, vocabulary.control_tokens), *specials]] = names.index("control")
        for level, (first, size) in enumerate(zip(vocabulary.sid_offsets, vocabulary.codebook_sizes, strict=True)):
            kinds[first : first + size] = names.index(f"sid_{level + 1}")
        return kinds

    @functools.cached_property
    def _batches(self) -> dict[str, list[Batch]]:
        """Those of each task; made once for all evaluations."""
        made = {}
        for task in token_records.read_tasks(self.records):
            feed = TokenBatches(
                self.records,
                batch_size=self.batch_size,
                length=self.length,
                rates={task.name: 1.0},
                share=self.share,
                num_epochs=1,
                start_token=self.vocabulary.start_id,
            )
            made[task.name] = [batch for _, batch in zip(range(self.batches), feed.make_iterator(), strict=False)]
        return made


@functools.partial(jax.jit, static_argnames=("decoder", "num_kinds"))
def _sums(decoder: Decoder, params: Any, batch: Any, kind_of: jax.Array, num_kinds: int) -> jax.Array:
    """float32 [2, kinds]: sums of loss and of weight over a batch; logits of one row at a time."""
    segments = PackedCausal(batch["decoder_segment_ids"])
    tokens, positions = batch["decoder_input_tokens"], batch["decoder_positions"]
    hidden: Any = decoder.apply({"params": params}, tokens, positions, segments, method="hidden")

    def nats(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        states, targets = row
        logits = jnp.asarray(decoder.apply({"params": params}, states[None], method="logits"), jnp.float32)[0]
        return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]

    losses = lax.map(nats, (hidden.values, batch["decoder_target_tokens"]))
    weights = batch["decoder_loss_weights"].astype(jnp.float32)
    kinds = kind_of[batch["decoder_target_tokens"]].reshape(-1)
    parts = jnp.stack([(losses * weights).reshape(-1), weights.reshape(-1)], axis=1)
    return jax.ops.segment_sum(parts, kinds, num_segments=num_kinds).T
