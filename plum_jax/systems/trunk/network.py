"""The trunk: a causal Transformer over events, whose state says who the user is and what comes next, and after that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Transformer
from plum_jax.model.item_history import FieldEmbedding
from plum_jax.model.masks import Mask, PackedCausal
from plum_jax.model.projections import RMSNorm, parameter
from plum_jax.model.repeats import AGES as REPEAT_AGES
from plum_jax.model.repeats import SCALE
from plum_jax.systems.trunk.items import ItemMix, ItemVectors, TrunkItems

Layers = Literal["last", "mixture", "concat"]
Heads = Literal["separate", "shared"]


@dataclasses.dataclass(frozen=True)
class TrunkConfig:
    """Sizes and choices of the network.

    Attributes:
      transformer: over events; its `d_model` is that of users and items. Some `layer_windows` make long histories
        cheap.
      layers: what of the stack represents the user. "last", the state behind the last layer; "mixture", a learnt
        softmax over the states before the first and behind each layer; "concat", all of them side by side, projected.
      tokens: n of multi-token prediction, the next items that each state predicts (arXiv 2404.19737).
      heads: for each of the further items a layer of its own ("separate"), or one for all that is told which
        ("shared"). The next item is the representation times the item's vector, whatever n is.
      item_mix: of an item's own row and its features (`items.ItemVectors`).
      id_dropout: share of the items that are as new in each training step.
      request_dropout: share of the fields of requests that are unknown in training, so that a user can be represented
        without one.
      repeats: whether a score knows that its item is in the history, and how long ago (`model.repeats`).
    """

    transformer: DecoderConfig = DecoderConfig(num_layers=2, scan_layers=False)
    layers: Layers = "mixture"
    tokens: int = 1
    heads: Heads = "separate"
    item_mix: ItemMix = "age"
    id_dropout: float = 0.1
    request_dropout: float = 0.2
    repeats: bool = True

    def __post_init__(self) -> None:
        for name, said, choices in (
            ("layers", self.layers, get_args(Layers)),
            ("heads", self.heads, get_args(Heads)),
            ("item_mix", self.item_mix, get_args(ItemMix)),
        ):
            if said not in choices:
                raise ValueError(f"expected {name} of the trunk to be one of {choices}, got {said!r}")
        if self.layers != "last" and self.transformer.scan_layers:
            raise ValueError(
                f"layers {self.layers!r} reads every layer's state, and a scan keeps the last: set scan_layers=False"
            )
        if self.tokens < 1:
            raise ValueError(f"expected to predict at least 1 token, got tokens={self.tokens}")


class TrunkOutput(NamedTuple):
    """What a batch is trained by.

    Attributes:
      vectors: float32 `[N, D]`, of all items.
      states: float32 `[B, T, n, D]`, compared with the vectors for each of the next n items.
      auxiliary: logits `[B, T, W]` of each auxiliary target.
      repeat_worth: float32 `[AGES]`, see `TrunkNetwork.repeat_worth`.
    """

    vectors: jax.Array
    states: jax.Array
    auxiliary: tuple[jax.Array, ...]
    repeat_worth: jax.Array


class TrunkNetwork(nn.Module):
    """What is trained.

    The token of an event is its item, what came of it (post-action fields), and what is known of the *next* request
    (its hour, the time since): the state behind it predicts what is taken then, by all that is known at that moment.

    Attributes:
      config: sizes and choices.
      items: what is known of all items.
      post_sizes, request_sizes, auxiliary_sizes: buckets of each field.
      attention: the kernel.
    """

    config: TrunkConfig
    items: TrunkItems
    post_sizes: tuple[int, ...] = ()
    request_sizes: tuple[int, ...] = ()
    auxiliary_sizes: tuple[int, ...] = ()
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        c, t = self.config, self.config.transformer
        self.item_vectors = ItemVectors(t, self.items, c.item_mix, c.id_dropout)
        self.post = FieldEmbedding(t, self.post_sizes) if self.post_sizes else None
        self.request = FieldEmbedding(t, self.request_sizes) if self.request_sizes else None
        self.transformer = Transformer(t, self.attention)
        self.dropout = nn.Dropout(t.dropout_rate)
        if c.layers != "last":
            self.layer_norms = [RMSNorm(t) for _ in range(t.num_layers)]
        if c.layers == "mixture":
            zeros = nn.initializers.zeros_init()
            self.layer_bias = parameter(self, "layer_bias", zeros, ("norm",), (1 + t.num_layers,), "float32")
        elif c.layers == "concat":
            self.joined = nn.Dense(t.d_model, use_bias=False)
        further = c.tokens - 1
        self.further = [FurtherHead(t) for _ in range(min(further, 1) if c.heads == "shared" else further)]
        if c.heads == "shared" and further:
            init, shape = nn.initializers.normal(0.02), (further, t.d_model)
            self.offsets = parameter(self, "offsets", init, ("vocab", "embed"), shape, "float32")
        self.auxiliary = [nn.Dense(size) for size in self.auxiliary_sizes]
        if c.repeats:
            init = nn.initializers.zeros_init()
            self.repeats = parameter(self, "repeats", init, ("norm",), (REPEAT_AGES,), "float32")

    def vectors(self, deterministic: bool = True) -> jax.Array:
        """float32 `[N, D]` of all items."""
        return self.item_vectors(deterministic)

    def repeat_worth(self) -> jax.Array:
        """float32 `[AGES]`, added to the score of an item that was seen so long ago."""
        return SCALE * self.repeats if self.config.repeats else jnp.zeros(REPEAT_AGES, jnp.float32)

    def age_shares(self) -> jax.Array:
        """float32 `[AGES]`, what an item's own row has of its vector, by age; 0 of a new item."""
        return self.item_vectors.age_shares()

    def layer_shares(self) -> jax.Array:
        """float32 `[1 + layers]`, what each state has of a "mixture"."""
        return jax.nn.softmax(SCALE * self.layer_bias)

    def represented(
        self,
        vectors: jax.Array,
        batch: Mapping[str, jax.Array],
        mask: Mask,
        cache: KVCache | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, KVCache | None]:
        """The user behind each event, `[B, T, D]`, and the cache, one piece longer, where one is given.

        Args:
          vectors: of `vectors`.
          batch: "decoder_input_tokens" int32 `[B, T]`, "post" int32 `[B, T, F]`, "request" int32 `[B, T, G]` of the
            request behind each event, "decoder_positions" int32 `[B, T]`.
          mask: as in `Transformer`.
          cache: keys and values of the events before.
          deterministic: no dropout.
        """
        c = self.config
        x = jnp.take(vectors, batch["decoder_input_tokens"], axis=0).astype(c.transformer.dtype)
        if self.post is not None:
            x = x + self.post(batch["post"])
        if self.request is not None:
            x = x + self.request(self._dropped(batch["request"], deterministic))
        x = x * jnp.asarray(x.shape[-1] ** 0.5, x.dtype)  # entries of about unit variance
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        x = self.dropout(x, deterministic=deterministic)
        positions = batch["decoder_positions"]
        output, streams = self.transformer.with_streams(x, positions, mask, cache, deterministic=deterministic)
        return self._of_layers(output.values, streams).astype(jnp.float32), output.cache

    def outputs(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> TrunkOutput:
        """Of packed rows: a batch of `represented` with "decoder_segment_ids"."""
        vectors = self.vectors(deterministic)
        mask = PackedCausal(batch["decoder_segment_ids"])
        user, _ = self.represented(vectors, batch, mask, deterministic=deterministic)
        states = jnp.stack([user, *(self.later(user, k) for k in range(1, self.config.tokens))], axis=2)
        return TrunkOutput(vectors, states, tuple(head(user) for head in self.auxiliary), self.repeat_worth())

    def later(self, user: jax.Array, offset: int) -> jax.Array:
        """What is compared with the item `offset` events behind the next one, from representations `[B, T, D]`."""
        if self.config.heads == "shared":
            return self.further[0](user, self.offsets[offset - 1])
        return self.further[offset - 1](user, jnp.zeros((), user.dtype))

    def __call__(self, batch: Mapping[str, jax.Array]) -> TrunkOutput:
        """Touches every parameter, for initialising."""
        return self.outputs(batch)

    def _of_layers(self, last: jax.Array, streams: tuple[jax.Array, ...]) -> jax.Array:
        kind = self.config.layers
        if kind == "last":
            return last
        states = [norm(x) for norm, x in zip(self.layer_norms, streams[:-1], strict=True)] + [last]
        if kind == "concat":
            return self.joined(jnp.concatenate(states, axis=-1))
        shares = self.layer_shares().astype(last.dtype)
        return sum((share * state for share, state in zip(shares, states, strict=True)), jnp.zeros((), shares.dtype))

    def _dropped(self, request: jax.Array, deterministic: bool) -> jax.Array:
        if deterministic or not self.config.request_dropout:
            return request
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.config.request_dropout, request.shape)
        return jnp.where(kept, request, 0)


class FurtherHead(nn.Module):
    """From the user to what a later item is compared with: a residual layer, `[B, T, D]`.

    A smaller one than the paper's, which has a layer of the Transformer for each token.
    """

    config: DecoderConfig

    @nn.compact
    def __call__(self, user: jax.Array, told: jax.Array) -> jax.Array:
        width = self.config.d_model
        hidden = jax.nn.silu(nn.Dense(width, name="in")(RMSNorm(self.config, name="norm")(user) + told))
        return user + nn.Dense(width, kernel_init=nn.initializers.normal(0.02), name="out")(hidden)
