"""BERT: an encoder whose tokens see the whole text (Devlin et al., arXiv 1810.04805), one text or two in a row."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.config import DType
from plum_jax.model.projections import parameter, product

_INIT = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes; what is said of positions, norms and activation is BERT's own and no choice.

    Attributes:
      num_layers, d_model, num_heads, mlp_dim: L, D, N and F. A head is D / N wide.
      max_length: rows of the table of positions.
      num_types: rows of the table of token types.
      dropout_rate: on embeddings and on both branches of a layer (not on attention weights).
      norm_epsilon: of LayerNorm.
      dtype: of activations and matrix products; softmax and norms are float32 whatever it is.
      param_dtype: of the parameters.
    """

    num_layers: int = 12
    d_model: int = 768
    num_heads: int = 12
    mlp_dim: int = 3072
    max_length: int = 512
    num_types: int = 2
    dropout_rate: float = 0.0
    norm_epsilon: float = 1e-12
    dtype: DType = "float32"
    param_dtype: DType = "float32"

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads:
            raise ValueError(f"expected d_model to be a multiple of num_heads, got {self.d_model=} {self.num_heads=}")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ValueError(f"expected 0 <= dropout_rate < 1, got {self.dropout_rate=}")

    @property
    def head_dim(self) -> int:
        """H."""
        return self.d_model // self.num_heads


class Bert(nn.Module):
    """Tokens `[B, T]` to states `[B, T, D]`. The pooler and the heads of the pre-training are not here.

    Parameters lie as a `Decoder`'s do, "embedding" and "transformer/layer_<i>", with matrices of its forms (K = N,
    G = 1), so that what knows those by name (mesh, optimizers, pruning, 8 bits) knows these.

    Attributes:
      config: sizes.
      vocab_size: V.
    """

    config: BertConfig
    vocab_size: int

    def setup(self) -> None:
        c = self.config
        rows = {"embedding": self.vocab_size, "position_embedding": c.max_length, "type_embedding": c.num_types}
        axes = {"embedding": "vocab"}
        self.tables = {
            name: parameter(self, name, _INIT, (axes.get(name, "norm"), "embed"), (count, c.d_model), c.param_dtype)
            for name, count in rows.items()
        }
        self.embedding_norm = LayerNorm(c)
        self.dropout = nn.Dropout(c.dropout_rate)
        self.transformer = BertLayers(c)

    def __call__(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        first_lengths: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """`[B, T, D]` behind the last layer; those of filling mean nothing. Arguments as of `streams`."""
        return self.streams(tokens, lengths, first_lengths, deterministic)[-1]

    def streams(
        self,
        tokens: jax.Array,
        lengths: jax.Array,
        first_lengths: jax.Array | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, ...]:
        """`[B, T, D]` each, in front of the first layer and behind each.

        Args:
          tokens: int32 `[B, T]`.
          lengths: int32 `[B]`, tokens of each row that are no filling.
          first_lengths: int32 `[B]`, how many of these are the first of two texts; None: there is one text.
          deterministic: no dropout.

        Raises:
          ValueError: more tokens than there are positions.
        """
        c, length = self.config, tokens.shape[1]
        if length > c.max_length:
            raise ValueError(f"expected texts of at most {c.max_length} tokens, as BERT has positions, got {length}")
        places = jnp.arange(length)
        types = jnp.zeros(()) if first_lengths is None else places >= first_lengths[:, None]
        x = jnp.take(self.tables["embedding"], tokens, axis=0)
        x = x + self.tables["position_embedding"][:length]
        x = x + jnp.take(self.tables["type_embedding"], types.astype(jnp.int32), axis=0)
        x = nn.with_logical_constraint(self.embedding_norm(x), ("batch", "length", "embed_activation"))
        x = self.dropout(x, deterministic=deterministic)
        return self.transformer(x, places < lengths[:, None], deterministic)


class BertLayers(nn.Module):
    """The stack. `[B, T, D]` and which tokens are text, bool `[B, T]`, to the streams in front of it and behind each
    layer."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, real: jax.Array, deterministic: bool) -> tuple[jax.Array, ...]:
        streams = [x]
        for number in range(self.config.num_layers):
            streams.append(BertLayer(self.config, name=f"layer_{number}")(streams[-1], real, deterministic))
        return tuple(streams)


class BertLayer(nn.Module):
    """Attention, then an MLP, each added to the stream, which is normalised behind it. `[B, T, D] -> [B, T, D]`."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, real: jax.Array, deterministic: bool) -> jax.Array:
        c = self.config
        dropout = nn.Dropout(c.dropout_rate, deterministic=deterministic)
        x = LayerNorm(c, name="attention_norm")(x + dropout(BertAttention(c, name="attention")(x, real)))
        x = LayerNorm(c, name="mlp_norm")(x + dropout(BertMLP(c, name="mlp")(x)))
        return nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))


class BertAttention(nn.Module):
    """Attention of all tokens to all that are text, with biases. `[B, T, D] -> [B, T, D]`."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array, real: jax.Array) -> jax.Array:
        c = self.config
        shape, axes = (c.d_model, c.num_heads, 3, c.head_dim), ("embed", "kv_heads", "qkv", "head")
        zeros, dtype = nn.initializers.zeros_init(), c.param_dtype
        qkv = parameter(self, "qkv", _INIT, axes, shape, dtype)
        qkv_bias = parameter(self, "qkv_bias", zeros, axes[1:], shape[1:], dtype)
        out = parameter(
            self,
            "out",
            _INIT,
            ("kv_heads", "groups", "head", "embed"),
            (c.num_heads, 1, c.head_dim, c.d_model),
            dtype,
        )
        out_bias = parameter(self, "out_bias", zeros, ("norm",), (c.d_model,), dtype)
        projected = product(x, qkv.astype(c.dtype)) + qkv_bias.astype(c.dtype)
        query, key, value = (part[:, :, :, 0] for part in jnp.split(projected, 3, axis=3))
        scores = jnp.einsum("BTNH,BSNH->BNTS", query, key, preferred_element_type=jnp.float32) * c.head_dim**-0.5
        scores = jnp.where(real[:, None, None], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        attended = jnp.einsum("BNTS,BSNH->BTNH", weights, value)[:, :, :, None]
        return product(attended, out.astype(c.dtype), contracted=3) + out_bias.astype(c.dtype)


class BertMLP(nn.Module):
    """`down(gelu(up x + b)) + b`, with the exact GELU. `[B, T, D] -> [B, T, D]`."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        zeros, dtype = nn.initializers.zeros_init(), c.param_dtype
        up = parameter(self, "up", _INIT, ("embed", "mlp"), (c.d_model, c.mlp_dim), dtype)
        up_bias = parameter(self, "up_bias", zeros, ("mlp",), (c.mlp_dim,), dtype)
        down = parameter(self, "down", _INIT, ("mlp", "embed"), (c.mlp_dim, c.d_model), dtype)
        down_bias = parameter(self, "down_bias", zeros, ("norm",), (c.d_model,), dtype)
        hidden = jax.nn.gelu(product(x, up.astype(c.dtype)) + up_bias.astype(c.dtype), approximate=False)
        return product(hidden, down.astype(c.dtype)) + down_bias.astype(c.dtype)


class LayerNorm(nn.Module):
    """Mean 0 and variance 1 over the last axis, then a scale and a bias, in float32 (arXiv 1607.06450)."""

    config: BertConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, width = self.config, (self.config.d_model,)
        scale = parameter(self, "scale", nn.initializers.ones_init(), ("norm",), width, c.param_dtype)
        bias = parameter(self, "bias", nn.initializers.zeros_init(), ("norm",), width, c.param_dtype)
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + c.norm_epsilon)
        return (centred * inverse * scale.astype(jnp.float32) + bias.astype(jnp.float32)).astype(c.dtype)
