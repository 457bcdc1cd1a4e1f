"""The one language model: a decoder whose user side is read both ways, whole, or below a layer segment by segment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import EinsumAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.layers import DecoderLayer, LayerContext
from plum_jax.model.projections import RMSNorm, fan_in, parameter, product
from plum_jax.model.rotary import rotary_tables
from plum_jax.systems.m6rec.rows import NOTHING, NUM_SEGMENTS, SPECIAL, USER

Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Form:
    """What of the trunk is shared, split or small.

    Attributes:
      late_layers: the last so many layers see the whole text; those below see a segment alone, from position 1, so that
        their states can be kept ("multi-segment late interaction"). None: all see the whole text.
      shared: one layer's parameters for all layers (ALBERT, arXiv 1909.11942).
      embedding_dim: of the table, projected up to D (the same); None: D.
    """

    late_layers: int | None = None
    shared: bool = False
    embedding_dim: int | None = None

    def split_layers(self, num_layers: int) -> int:
        """How many layers see segments alone.

        Raises:
          ValueError: more late layers than there are layers, or none.
        """
        late = num_layers if self.late_layers is None else self.late_layers
        if not 1 <= late <= num_layers:
            raise ValueError(f"expected 1 to {num_layers} late_layers, as the decoder has layers, got {late}")
        return num_layers - late


class TextTrunk(nn.Module):
    """Rows of tokens to streams of states. Parameters lie as those of `model.decoder.Decoder` do, and beside them are
    "special", rows of the special tokens, and where `form` wants them "embedding_up" and "segment".

    Attributes:
      config: of the decoder, layers not scanned.
      vocab_size: V.
      form: of it.
    """

    config: DecoderConfig
    vocab_size: int
    form: Form = Form()

    def setup(self) -> None:
        c, form = self.config, self.form
        std = c.d_model**-0.5 if c.embedding_std is None else c.embedding_std
        init, axes = nn.initializers.normal(std), ("vocab", "embed")
        width = form.embedding_dim or c.d_model
        self.embedding = parameter(self, "embedding", init, axes, (self.vocab_size, width), c.param_dtype)
        if not c.tied_embeddings:
            self.head = parameter(self, "head", init, axes, (self.vocab_size, width), c.param_dtype)
        if form.embedding_dim:
            shape = (width, c.d_model)
            self.up = parameter(self, "embedding_up", fan_in(1.0, 0, 1), ("rank", "embed"), shape, c.param_dtype)
        self.special = parameter(self, "special", init, ("length", "embed"), (len(SPECIAL), c.d_model), c.param_dtype)
        self.num_split = form.split_layers(c.num_layers)
        if self.num_split:
            shape = (NUM_SEGMENTS, c.d_model)
            self.segment = parameter(self, "segment", init, ("length", "embed"), shape, c.param_dtype)
        self.transformer = Layers(c, form.shared)
        self.dropout = nn.Dropout(c.dropout_rate)

    def embedded(self, tokens: jax.Array, deterministic: bool = True) -> jax.Array:
        """Ids int32 [B, T] to [B, T, D]."""
        c = self.config
        special = jnp.take(self.special, jnp.maximum(tokens - self.vocab_size, 0), axis=0)
        words = jnp.take(self.embedding, jnp.minimum(tokens, self.vocab_size - 1), axis=0)
        if self.form.embedding_dim:
            words = product(words.astype(c.dtype), self.up.astype(c.dtype))
        x = jnp.where((tokens >= self.vocab_size)[..., None], special, words).astype(c.dtype)
        if c.scale_embeddings:
            x = x * jnp.asarray(c.d_model**0.5, x.dtype)
        return self.dropout(x, deterministic=deterministic)

    def below(self, x: jax.Array, batch: Batch, deterministic: bool = True) -> jax.Array:
        """The states that are kept of segments: [B, T, D] embeddings behind the layers that see them alone."""
        if not self.num_split:
            return x
        context = _context(self.config, segment_mask(batch), places_in_segments(batch))
        return self.transformer(x, (context,) * self.num_split, 0, deterministic)[0][-1]

    def above(self, x: jax.Array, batch: Batch, deterministic: bool = True) -> tuple[jax.Array, ...]:
        """Streams [B, T, D] behind each layer that sees the whole text, under the final norm, of `below`."""
        if self.num_split:
            x = x + jnp.take(self.segment, batch["segment"], axis=0).astype(x.dtype)
        contexts = (self._whole(batch),) * (self.config.num_layers - self.num_split)
        return self.transformer(x, contexts, self.num_split, deterministic)[1]

    def one_layer(self, x: jax.Array, batch: Batch, layer: int) -> tuple[jax.Array, jax.Array]:
        """The stream behind one layer of a trunk without split layers, and the same under the final norm."""
        streams, normed = self.transformer(x, (self._whole(batch),), layer, True)
        return streams[0], normed[0]

    def _whole(self, batch: Batch) -> LayerContext:
        """Of layers that see the whole text."""
        return _context(self.config, prefix_mask(batch), places(batch))

    def logits(self, states: jax.Array) -> jax.Array:
        """[B, T, D] under the final norm to float32 [B, T, V + special]."""
        c = self.config
        table = self.embedding if c.tied_embeddings else self.head
        words = states
        if self.form.embedding_dim:
            words = product(states, self.up.astype(c.dtype).T)
        parts = (words, table), (states, self.special)
        return jnp.concatenate([product(x, t.astype(c.dtype).T, result="float32") for x, t in parts], axis=-1)


class Layers(nn.Module):
    """The stack: parameters as of `model.decoder.Transformer`, one layer of them where they are shared."""

    config: DecoderConfig
    shared: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, contexts: tuple[LayerContext, ...], first: int, deterministic: bool
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """Layers from `first` on, one for each context: streams behind each, as they are and under the final norm."""
        c = self.config
        norm, layers, streams = RMSNorm(c, name="final_norm"), {}, []
        for number, context in enumerate(contexts, start=first):
            own = 0 if self.shared else number
            if own not in layers:
                layers[own] = DecoderLayer(c, EinsumAttention(), deterministic, name=f"layer_{own}")
            x, _ = layers[own](x, None, c.local_layers[number], context)
            streams.append(x)
        return tuple(streams), tuple(norm(stream) for stream in streams)


def prefix_mask(batch: Batch) -> jax.Array:
    """bool [B, T, T]: the user side sees all of itself, the candidate side that and its own tokens up to each (UniLM).

    Filling sees itself, so that no softmax is empty.
    """
    side = batch["side"]
    place = jnp.arange(side.shape[1])
    before = place[:, None] >= place[None, :]
    of_user = (side == USER)[:, None, :]
    same = side[:, :, None] == side[:, None, :]
    seen = jnp.where(of_user, (side != NOTHING)[:, :, None], same & before)
    return seen | jnp.eye(side.shape[1], dtype=bool)


def segment_mask(batch: Batch) -> jax.Array:
    """The same within segments; another side is another segment."""
    segment, side = batch["segment"], batch["side"]
    same = (segment[:, :, None] == segment[:, None, :]) & (side[:, :, None] == side[:, None, :])
    return prefix_mask(batch) & same


def places(batch: Batch) -> jax.Array:
    """int32 [B, T]: 0 for a row's first token, and on."""
    side = batch["side"]
    return jnp.broadcast_to(jnp.arange(side.shape[1], dtype=jnp.int32), side.shape)


def places_in_segments(batch: Batch) -> jax.Array:
    """int32 [B, T]: 1 for a segment's first token, and on."""
    segment, side = batch["segment"], batch["side"]
    place = places(batch)
    changed = (jnp.diff(segment, axis=1) != 0) | (jnp.diff(side, axis=1) != 0)
    begins = jnp.pad(changed, ((0, 0), (1, 0)), constant_values=True)
    start = jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    return place - start + 1


def _context(config: DecoderConfig, mask: jax.Array, place: jax.Array) -> LayerContext:
    local = rotary_tables(place, config, local=True) if config.local_rope_theta is not None else None
    return LayerContext(
        EinsumAttention().prepare(mask, place, place, config), rotary_tables(place, config), local, None
    )
