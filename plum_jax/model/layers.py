"""One layer of the decoder: attention, then an MLP or experts, on a residual stream."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from plum_jax.model.attention import AttentionFunction
from plum_jax.model.beam_attention import BeamAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.moe.experts import Experts
from plum_jax.model.moe.routing import RouterStatistics
from plum_jax.model.projections import GatedMLP, RMSNorm, fan_in, normalised, parameter, product
from plum_jax.model.rotary import Rotary, rotate

Piece = tuple[jax.Array, jax.Array]  # key and value `[B, S, K, H]` of tokens read by one call


@flax.struct.dataclass
class Wanted:
    """One token of each row: all that a last layer has to compute, keys and values apart.

    Attributes:
      place: int32 `[B, 1]`.
      masks: what it sees, prepared by `BeamAttention`.
    """

    place: jax.Array
    masks: Any

    def of(self, x: jax.Array) -> jax.Array:
        """`[B, T, ...]` -> `[B, 1, ...]`."""
        return jnp.take_along_axis(x, self.place.reshape(-1, *[1] * (x.ndim - 1)), axis=1)


@flax.struct.dataclass
class LayerContext:
    """What all layers of one step share.

    Attributes:
      masks: of the attention function.
      rotary: of layers that see everything.
      local_rotary: of layers with a window; None where it is the same.
      real: bool `[B, T]`, tokens that are no padding; None: all.
      wanted: for the last layer, the only tokens whose states are wanted; None: all.
    """

    masks: Any
    rotary: Rotary
    local_rotary: Rotary | None
    real: jax.Array | None
    wanted: Wanted | None = None

    def rotary_of(self, is_local: bool | jax.Array) -> Rotary:
        """The tables of one layer."""
        if self.local_rotary is None:
            return self.rotary
        return jax.tree.map(lambda ours, all_: jnp.where(is_local, ours, all_), self.local_rotary, self.rotary)


class Attention(nn.Module):
    """Grouped-query attention. `[B, T, D] -> [B, T, D]`, and the new tokens' piece of the cache when one is given.

    Attributes:
      config: sizes and choices.
      attention: the kernel.
    """

    config: DecoderConfig
    attention: AttentionFunction

    @nn.compact
    def __call__(
        self, x: jax.Array, cache: tuple[Piece, ...] | None, is_local: bool | jax.Array, context: LayerContext
    ) -> tuple[jax.Array, Piece | None]:
        c = self.config
        query, key, value = self._projected(x, context.rotary_of(is_local))
        keys, values = zip(*(cache or ()), (key, value), strict=True)
        if context.wanted is None:
            attended = self.attention(query, keys, values, context.masks, is_local, c)
        else:
            attended = BeamAttention()(context.wanted.of(query), keys, values, context.wanted.masks, is_local, c)
        attended = checkpoint_name(attended, "attended")
        # Each of the 2 x layers residual branches adds 1 / (2 x layers) of the stream's variance at the start (GPT-2).
        groups = c.num_heads // c.num_kv_heads
        out_shape = (c.num_kv_heads, groups, c.head_dim, c.d_model)
        out_axes = ("kv_heads", "groups", "head", "embed")
        out = parameter(self, "out", fan_in(0.5 / c.num_layers, (0, 1, 2), 3), out_axes, out_shape, c.param_dtype)
        new = None if cache is None else (key, value)
        return product(attended, out.astype(c.dtype), contracted=3), new

    def _projected(self, x: jax.Array, rotary: Rotary) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries `[B, T, K, G, H]`, keys and values `[B, T, K, H]`; positions applied, queries scaled."""
        c = self.config
        groups = c.num_heads // c.num_kv_heads
        # One product, grouped by key-value head so that tensor parallelism splits K.
        shape = (c.d_model, c.num_kv_heads, groups + 2, c.head_dim)
        qkv = parameter(
            self, "qkv", fan_in(1.0, 0, (1, 2, 3)), ("embed", "kv_heads", "qkv", "head"), shape, c.param_dtype
        )
        projected = product(x, qkv.astype(c.dtype))
        if c.qkv_bias:
            zeros = nn.initializers.zeros_init()
            bias = parameter(self, "qkv_bias", zeros, ("kv_heads", "qkv", "head"), shape[1:], c.param_dtype)
            projected = projected + bias.astype(c.dtype)
        projected = checkpoint_name(projected, "qkv")
        # Not by index: the gradient of a split is one concatenation, that of three indices is padded sums.
        query, key, value = jnp.split(projected, (groups, groups + 1), axis=3)
        key, value = key[:, :, :, 0], value[:, :, :, 0]
        if c.qk_norm:
            ones = nn.initializers.ones_init()
            norms = [
                parameter(self, name, ones, ("norm",), (c.head_dim,), c.param_dtype)
                for name in ("query_norm", "key_norm")
            ]
            query, key = normalised(query, norms[0], c), normalised(key, norms[1], c)
        query = query * (c.head_dim**-0.5 if c.query_scale is None else c.query_scale)
        batch, length = x.shape[:2]
        heads = query.reshape(batch, length, c.num_heads, c.head_dim)
        return rotate(heads, rotary).reshape(query.shape), rotate(key, rotary), value


class BranchGate(nn.Module):
    """How much of a branch is added to the stream `[B, T, D]`, between 0 and 1 for each entry; 1/2 at the start."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        shape, zeros = (c.d_model, c.d_model), nn.initializers.zeros_init()
        gate = parameter(self, "gate", fan_in(1.0, 0, 1), ("embed", "embed_gate"), shape, c.param_dtype)
        bias = parameter(self, "bias", zeros, ("norm",), (c.d_model,), c.param_dtype)
        return jax.nn.sigmoid(product(x, gate.astype(c.dtype)) + bias.astype(c.dtype))


class AdapterBranch(nn.Module):
    """`Adapter` of the normalised stream that the MLP reads. `[B, T, D] -> [B, T, D]`, zeros at the start."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        assert c.adapter is not None
        rank, zeros = c.adapter.rank, nn.initializers.zeros_init()
        down = parameter(self, "down", fan_in(1.0, 0, 1), ("embed", "rank"), (c.d_model, rank), c.param_dtype)
        down_bias = parameter(self, "down_bias", zeros, ("norm",), (rank,), c.param_dtype)
        up = parameter(self, "up", zeros, ("rank", "embed"), (rank, c.d_model), c.param_dtype)
        up_bias = parameter(self, "up_bias", zeros, ("norm",), (c.d_model,), c.param_dtype)
        inner = c.activation(product(x, down.astype(c.dtype)) + down_bias.astype(c.dtype))
        return c.adapter.scale * (product(inner, up.astype(c.dtype)) + up_bias.astype(c.dtype))


class DecoderLayer(nn.Module):
    """Attention and MLP or experts. Shaped for `nn.scan`: carry in; carry, and the new piece with statistics, out."""

    config: DecoderConfig
    attention: AttentionFunction
    deterministic: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        cache: tuple[Piece, ...] | None,
        is_local: bool | jax.Array,
        context: LayerContext,
    ) -> tuple[jax.Array, tuple[Piece | None, RouterStatistics | None]]:
        c = self.config
        attended, new_piece = Attention(c, self.attention, name="attention")(
            RMSNorm(c, name="attention_norm")(x), cache, is_local, context
        )
        if context.wanted is not None:
            x = context.wanted.of(x)
        x = self._added(x, attended, "attention")
        statistics = None
        read = RMSNorm(c, name="mlp_norm")(x)
        if c.moe is None:
            branch = GatedMLP(c, c.mlp_dim, name="mlp")(read)
        else:
            real = context.real if context.wanted is None else None
            branch, statistics = Experts(c, name="moe")(read, real, dropless=cache is not None)
        if c.adapter is not None:
            branch = branch + AdapterBranch(c, name="adapter")(read)
        return self._added(x, branch, "mlp"), (new_piece, statistics)

    def _added(self, x: jax.Array, branch: jax.Array, name: str) -> jax.Array:
        """The stream with one more branch."""
        if self.config.post_norms:
            branch = RMSNorm(self.config, name=f"{name}_post_norm")(branch)
        branch = nn.Dropout(self.config.dropout_rate, deterministic=self.deterministic)(branch)
        if self.config.branch_gates:
            branch = branch * BranchGate(self.config, name=f"{name}_gate")(x)
        return nn.with_logical_constraint(x + branch, ("batch", "length", "embed_activation"))
