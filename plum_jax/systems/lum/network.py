"""LUM's user encoder: a causal Transformer over a condition token and an item token for each event (§3.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Transformer
from plum_jax.model.item_history import FieldEmbedding, ItemEmbedding, Items
from plum_jax.model.masks import BeamMasks, PackedCausal
from plum_jax.model.projections import parameter
from plum_jax.objectives.info_nce import MOST_SCALE, unit


@dataclasses.dataclass(frozen=True)
class LumConfig:
    """Sizes and choices of the network.

    Attributes:
      transformer: of the user encoder; its `d_model` is that of tokens, and of what is asked and compared.
      item_ids: whether an item has a row of its own beside its features and codes.
      id_dropout: share of the items whose own row is left out in training.
      condition_dropout: share of the fields of conditions that are unknown in training, so that a question may leave
        fields out.
      temperature: of the similarity, a cosine; None: learnt, from 1/20 on. The paper says neither.
    """

    transformer: DecoderConfig = DecoderConfig(num_layers=2, scan_layers=False)
    item_ids: bool = True
    id_dropout: float = 0.0
    condition_dropout: float = 0.0
    temperature: float | None = None


class LumNetwork(nn.Module):
    """Histories {c1, i1, c2, i2, ...} to o at the conditions, unit vectors that are compared with those of items.

    A condition c_k belongs to the item that follows it; item tokens are both read and compared with (tied). Token
    encoders are one linear layer over all features of a token side by side, as the paper has it.

    Attributes:
      config: sizes.
      codebook_sizes: of the items' Semantic IDs; () reads none.
      num_items, feature_dim: N and F.
      condition_sizes: buckets of each field of a condition; () leaves one learnt token, which is next-item prediction.
      attention: the kernel.
    """

    config: LumConfig
    codebook_sizes: tuple[int, ...]
    num_items: int
    feature_dim: int
    condition_sizes: tuple[int, ...]
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        c, t = self.config, self.config.transformer
        sizes = (self.codebook_sizes, self.num_items, self.feature_dim)
        self.items = ItemEmbedding(t, *sizes, c.item_ids, c.id_dropout)
        self.fields = FieldEmbedding(t, self.condition_sizes) if self.condition_sizes else None
        self.condition = parameter(self, "condition", nn.initializers.normal(0.02), ("norm",), (t.d_model,), "float32")
        if c.temperature is None:
            init = nn.initializers.constant(jnp.log(20.0))
            self.log_scale = parameter(self, "log_scale", init, (), (), "float32")
        self.transformer = Transformer(t, self.attention)
        self.dropout = nn.Dropout(t.dropout_rate)

    def item_vectors(self, items: Items) -> jax.Array:
        """e_i, unit vectors float32 `[..., D]`."""
        return unit(self.items(items))

    def scale(self) -> jax.Array:
        """The inverse temperature."""
        fixed = self.config.temperature
        return jnp.minimum(jnp.exp(self.log_scale), MOST_SCALE) if fixed is None else jnp.float32(1 / fixed)

    def towers(
        self, batch: Mapping[str, jax.Array], deterministic: bool = True
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What `objectives.info_nce` compares: o at every condition and e of the item behind it, float32 `[B, T, D]`
        each, and the inverse temperature.

        The batch has "target_..." columns of items (`Known.columns`), "conditions" int32 `[B, T, F]`, and the segments
        and positions of packed rows, all by event.
        """
        items = self.items(items_of(batch), deterministic)
        conditions = self._dropped(batch["conditions"], deterministic)
        x = self._tokens(conditions, items, deterministic)
        segments, positions = tokens_of(batch["decoder_segment_ids"]), token_positions(batch["decoder_positions"])
        states = self.transformer(x, positions, PackedCausal(segments), deterministic=deterministic).values
        return unit(states[:, ::2]), unit(items), self.scale()

    def read(self, items: Items, conditions: jax.Array, segments: jax.Array, positions: jax.Array) -> KVCache:
        """Keys and values of whole histories `[B, T]` of events, computed once for all that is asked about them."""
        x = self._tokens(conditions, self.items(items), deterministic=True)
        mask = PackedCausal(tokens_of(segments))
        cache = self.transformer(x, token_positions(positions), mask, KVCache()).cache
        assert cache is not None
        return cache

    def ask(self, cache: KVCache, conditions: jax.Array, seen: jax.Array, positions: jax.Array) -> jax.Array:
        """o_q of Q conditions of each row, float32 `[B, Q, D]`, blind to each other; wants `BeamAttention`.

        Args:
          cache: of `read`, S = 2 T tokens.
          conditions: int32 `[B, Q, F]`.
          seen: bool `[B, Q or 1, S]`, tokens of the histories that each sees.
          positions: int32 `[B, Q]`, twice the events that each has behind it.
        """
        x = self._read_as(self._conditions(conditions))
        own = jnp.broadcast_to(jnp.arange(positions.shape[1], dtype=jnp.int32), positions.shape)
        masks = BeamMasks(seen, own[..., None])
        return unit(self.transformer(x, positions, masks, cache).values)

    def __call__(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Touches every parameter, for initialising."""
        return self.towers(batch)[0]

    def _conditions(self, conditions: jax.Array) -> jax.Array:
        """Buckets `[..., F]` to tokens `[..., D]`."""
        x = self.condition.astype(self.config.transformer.dtype)
        x = jnp.broadcast_to(x, (*conditions.shape[:-1], len(x)))
        return x if self.fields is None else x + self.fields(conditions)

    def _dropped(self, conditions: jax.Array, deterministic: bool) -> jax.Array:
        """Buckets, some of them unknown in training."""
        rate = self.config.condition_dropout
        if deterministic or not rate or not self.condition_sizes:
            return conditions
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - rate, conditions.shape)
        return jnp.where(kept, conditions, 0)

    def _tokens(self, conditions: jax.Array, items: jax.Array, deterministic: bool) -> jax.Array:
        """c1, i1, c2, i2, ...: `[B, 2 T, D]`."""
        both = jnp.stack([self._conditions(conditions), items], axis=2)
        x = self._read_as(both.reshape(both.shape[0], -1, both.shape[-1]))
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        return self.dropout(x, deterministic=deterministic)

    def _read_as(self, x: jax.Array) -> jax.Array:
        """With entries of about unit variance."""
        return x * jnp.asarray(x.shape[-1] ** 0.5, x.dtype)


def items_of(batch: Mapping[str, jax.Array]) -> Items:
    """The items of the events of a batch."""
    names = ("known", "codes", "features")
    return Items(batch["decoder_target_tokens"], *(batch[f"target_{name}"] for name in names))


def tokens_of(by_event: jax.Array) -> jax.Array:
    """`[B, T]` of events as `[B, 2 T]` of their two tokens."""
    return jnp.repeat(by_event, 2, axis=1)


def token_positions(by_event: jax.Array) -> jax.Array:
    """Positions `[B, T]` of events as those of their two tokens."""
    return tokens_of(2 * by_event) + jnp.tile(jnp.arange(2, dtype=by_event.dtype), by_event.shape[1])
