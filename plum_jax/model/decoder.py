"""The decoder: embed, a stack of layers, head. No loss, no optimizer, no vocabulary inside."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.beam_attention import BeamAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.layers import DecoderLayer, LayerContext, Wanted
from plum_jax.model.masks import BeamMasks, Mask, PackedCausal
from plum_jax.model.moe.routing import RouterStatistics
from plum_jax.model.projections import RMSNorm, parameter, product, soft_capped
from plum_jax.model.rotary import rotary_tables

_REMAT_POLICIES = {
    "full": None,
    "save_dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "save_attention": jax.checkpoint_policies.save_only_these_names("qkv", "attended"),
}


class DecoderOutput(NamedTuple):
    """What a decoder, or its stack, gives.

    Attributes:
      values: `[B, T, V]` float32 logits, or `[B, T, D]` states.
      cache: with the new tokens' keys and values; None where none was given.
      router: statistics of each layer's router, leaves `[layers, ...]`; None without experts.
    """

    values: jax.Array
    cache: KVCache | None
    router: RouterStatistics | None


class Transformer(nn.Module):
    """The reuse seam: `[B, T, D] -> [B, T, D]` with positions, mask and cache as plain arguments.

    Attributes:
      config: sizes and choices.
      attention: the kernel.
    """

    config: DecoderConfig
    attention: AttentionFunction = EinsumAttention()

    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: Mask,
        cache: KVCache | None = None,
        *,
        deterministic: bool = True,
        last: jax.Array | None = None,
    ) -> DecoderOutput:
        """Runs the stack.

        Args:
          x: `[B, T, D]` embeddings.
          positions: `[B, T]` int32.
          mask: `[B, T, S]` bool, S = tokens in the cache, then the T new ones; or the segments of packed rows; or what
            else the kernel reads.
          cache: keys and values so far; None keeps none.
          deterministic: no dropout.
          last: int32 `[B]`, the last token of a segment of each `PackedCausal` row: only its state is wanted, `[B, 1,
            D]`. Where layers are not scanned, the last layer computes keys and values besides, and nothing else.

        Returns:
          states after the final norm, the advanced cache, the routers' statistics.
        """
        return self.with_streams(x, positions, mask, cache, deterministic=deterministic, last=last)[0]

    @nn.compact
    def with_streams(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: Mask,
        cache: KVCache | None = None,
        *,
        deterministic: bool = True,
        last: jax.Array | None = None,
    ) -> tuple[DecoderOutput, tuple[jax.Array, ...]]:
        """As `__call__`, and the streams `[B, T, D]` before the first layer and behind each, not normalised; none where
        layers are scanned, which keep the last alone.
        """
        c = self.config
        before = () if cache is None else cache.positions
        key_positions = jnp.concatenate([*before, positions], axis=1)
        context = LayerContext(
            masks=self.attention.prepare(mask, positions, key_positions, c),
            rotary=rotary_tables(positions, c),
            local_rotary=rotary_tables(positions, c, local=True) if c.local_rope_theta is not None else None,
            real=mask.segment_ids > 0 if isinstance(mask, PackedCausal) else None,
        )
        wanted = None if last is None else self._wanted(last, mask, positions)
        x, piece, statistics, streams = self._layers(x, cache, context, deterministic, wanted)
        x = RMSNorm(c, name="final_norm")(x)
        if cache is not None:
            cache = cache.with_piece(piece, positions)
        return DecoderOutput(x, cache, statistics), streams

    def _wanted(self, last: jax.Array, mask: Mask, positions: jax.Array) -> Wanted:
        assert isinstance(mask, PackedCausal), "a last token is that of a segment"
        place = last[:, None].astype(jnp.int32)
        seen = mask.segment_ids == jnp.take_along_axis(mask.segment_ids, place, axis=1)
        own = jnp.take_along_axis(positions, place, axis=1)
        masks = BeamMasks(seen[:, None], jnp.zeros((last.shape[0], 1, 0), jnp.int32))
        return Wanted(place, BeamAttention().prepare(masks, own, positions, self.config))

    def _layers(
        self,
        x: jax.Array,
        cache: KVCache | None,
        context: LayerContext,
        deterministic: bool,
        wanted: Wanted | None,
    ) -> tuple[jax.Array, Any, RouterStatistics | None, tuple[jax.Array, ...]]:
        c = self.config
        layer: type[nn.Module] = DecoderLayer
        if c.remat != "none":
            layer = nn.remat(DecoderLayer, prevent_cse=not c.scan_layers, policy=_REMAT_POLICIES[c.remat])
        if c.scan_layers:
            per_layer = jnp.asarray(c.local_layers) if c.has_mixed_layers else c.local_layers[0]
            stack = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, 0 if c.has_mixed_layers else nn.broadcast, nn.broadcast),
                length=c.num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, (piece, statistics) = stack(c, self.attention, deterministic, name="layers")(
                x, None if cache is None else cache.pieces, per_layer, context
            )
            return x if wanted is None else wanted.of(x), piece, statistics, ()
        pieces, routers, streams = [], [], [x]
        for i, is_local in enumerate(c.local_layers):
            one = None if cache is None else cache.layer(i)
            if i == c.num_layers - 1:
                context = context.replace(wanted=wanted)  # type: ignore[attr-defined]
            x, (new, router) = layer(c, self.attention, deterministic, name=f"layer_{i}")(x, one, is_local, context)
            pieces.append(new)
            routers.append(router)
            streams.append(x)
        piece = None if cache is None else tuple(zip(*pieces, strict=True))
        return x, piece, jax.tree.map(lambda *leaves: jnp.stack(leaves), *routers), tuple(streams)


class Decoder(nn.Module):
    """Token ids to next-token logits.

    Attributes:
      config: sizes and choices.
      vocab_size: V, rows of the embedding table.
      attention: the kernel: static, chosen by the machine and never by the model.
    """

    config: DecoderConfig
    vocab_size: int
    attention: AttentionFunction = EinsumAttention()

    # One softmax over the whole vocabulary.
    normalised_by_level: ClassVar[bool] = False

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.normal(c.d_model**-0.5 if c.embedding_std is None else c.embedding_std)
        axes, shape = ("vocab", "embed"), (self.vocab_size, c.d_model)
        self.embedding = parameter(self, "embedding", init, axes, shape, c.param_dtype)
        if not c.tied_embeddings:
            self.head = parameter(self, "head", init, axes, shape, c.param_dtype)
        self.transformer = Transformer(c, self.attention)
        self.dropout = nn.Dropout(c.dropout_rate)

    def hidden(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        mask: Mask,
        cache: KVCache | None = None,
        deterministic: bool = True,
        last: jax.Array | None = None,
    ) -> DecoderOutput:
        """`[B, T]` ids to `[B, T, D]` states, for callers that need logits at few positions only.

        With `last`, a place of each row, `[B, 1, D]`: see `Transformer`.
        """
        x = self._embedded(tokens, deterministic)
        return self.transformer(x, positions, mask, cache, deterministic=deterministic, last=last)

    def streams(self, tokens: jax.Array, positions: jax.Array, mask: Mask) -> tuple[jax.Array, ...]:
        """`[B, T, D]` each, as of `Transformer.with_streams`, without dropout."""
        return self.transformer.with_streams(self._embedded(tokens, True), positions, mask)[1]

    def _embedded(self, tokens: jax.Array, deterministic: bool) -> jax.Array:
        c = self.config
        x = jnp.take(self.embedding, tokens, axis=0).astype(c.dtype)
        if c.scale_embeddings:
            x = x * jnp.asarray(c.d_model**0.5, x.dtype)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        return self.dropout(x, deterministic=deterministic)

    def read_prompts(
        self, prompts: jax.Array, lengths: jax.Array, start_token: int
    ) -> tuple[jax.Array, KVCache, jax.Array, jax.Array]:
        """What a search goes on from.

        Args:
          prompts: int32 `[B, T]`, right-padded, without the start token.
          lengths: int32 `[B]`, real tokens of each.
          start_token: put first, as in training.

        Returns:
          the state after each prompt's last token `[B, 1, D]`, the cache, which of its slots are real `[B, 1, S]`, and
          the position `[B]` behind which codes follow.
        """
        tokens = jnp.pad(prompts, ((0, 0), (1, 0)), constant_values=start_token)
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        real = places <= lengths[:, None]
        segments = PackedCausal(real.astype(jnp.int32))
        output = self.hidden(tokens, places, segments, KVCache(), last=lengths)
        assert output.cache is not None
        return output.values, output.cache, real[:, None], lengths

    def logits(self, hidden: jax.Array) -> jax.Array:
        """`[B, T, D]` states to `[B, T, V]` float32 logits."""
        c = self.config
        table = self.embedding if c.tied_embeddings else self.head
        logits = product(hidden, table.astype(c.dtype).T, result="float32")
        if c.logits_scale != 1.0:
            logits = logits * c.logits_scale
        return soft_capped(logits, c.final_softcap)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        mask: Mask,
        cache: KVCache | None = None,
        deterministic: bool = True,
    ) -> DecoderOutput:
        """`[B, T]` ids to `[B, T, V]` float32 logits; `mask` and `cache` as in `Transformer`."""
        output = self.hidden(tokens, positions, mask, cache, deterministic)
        return output._replace(values=self.logits(output.values))
