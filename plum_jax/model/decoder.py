"""The decoder: embed, a stack of layers, head. No loss, no optimizer, no vocabulary inside."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.config import DecoderConfig
from plum_jax.model.layers import DecoderLayer, KVCache, RMSNorm, parameter, rotary_tables


class Transformer(nn.Module):
    """The reuse seam: `[B, T, D] -> [B, T, D]` with positions, mask and cache as plain arguments."""

    config: DecoderConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cache: KVCache | None = None,
        *,
        deterministic: bool = True,
    ) -> tuple[jax.Array, KVCache | None]:
        """Runs the stack.

        Args:
          x: `[B, T, D]` embeddings.
          positions: `[B, T]` int32.
          mask: `[B, T, S]` bool; S = T without a cache, else the cache's slots.
          cache: keys and values so far; the T new tokens are written at slots `cache.index` and following.
          deterministic: no dropout.

        Returns:
          `[B, T, D]` after the final norm, and the advanced cache.
        """
        c = self.config
        layer: type[nn.Module] = DecoderLayer
        if c.remat:
            layer = nn.remat(DecoderLayer, prevent_cse=not c.scan_layers)
        rotary = rotary_tables(positions, c)
        layer_cache = None if cache is None else (cache.key, cache.value)
        index = None if cache is None else cache.index
        if c.scan_layers:
            stack = nn.scan(
                layer,
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=c.num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )
            x, layer_cache = stack(c, deterministic, name="layers")(x, layer_cache, rotary, mask, index)
        else:
            caches = []
            for i in range(c.num_layers):
                one = None if layer_cache is None else (layer_cache[0][i], layer_cache[1][i])
                x, one = layer(c, deterministic, name=f"layer_{i}")(x, one, rotary, mask, index)
                caches.append(one)
            if layer_cache is not None:
                layer_cache = jax.tree.map(lambda *a: jnp.stack(a), *caches)
        x = RMSNorm(c, name="final_norm")(x)
        if cache is not None and layer_cache is not None:
            cache = KVCache(key=layer_cache[0], value=layer_cache[1], index=cache.index + positions.shape[1])
        return x, cache


class Decoder(nn.Module):
    """Token ids to next-token logits.

    Attributes:
      config: sizes.
      vocab_size: V, rows of the embedding table.
    """

    config: DecoderConfig
    vocab_size: int

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.normal(c.d_model**-0.5)
        axes, shape = ("vocab", "embed"), (self.vocab_size, c.d_model)
        self.embedding = parameter(self, "embedding", init, axes, shape, c.param_dtype)
        if not c.tied_embeddings:
            self.head = parameter(self, "head", init, axes, shape, c.param_dtype)
        self.transformer = Transformer(c)
        self.dropout = nn.Dropout(c.dropout_rate)

    def hidden(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cache: KVCache | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, KVCache | None]:
        """`[B, T]` ids to `[B, T, D]` states, for callers that need logits at few positions only."""
        c = self.config
        x = jnp.take(self.embedding, tokens, axis=0).astype(c.dtype)
        if c.scale_embeddings:
            x = x * jnp.asarray(c.d_model**0.5, x.dtype)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        x = self.dropout(x, deterministic=deterministic)
        return self.transformer(x, positions, mask, cache, deterministic=deterministic)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """`[B, T, D]` states to `[B, T, V]` float32 logits."""
        table = self.embedding if self.config.tied_embeddings else self.head
        return jnp.einsum("BTD,VD->BTV", hidden, table.astype(self.config.dtype), preferred_element_type=jnp.float32)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        mask: jax.Array,
        cache: KVCache | None = None,
        deterministic: bool = True,
    ) -> tuple[jax.Array, KVCache | None]:
        """`[B, T]` ids to `[B, T, V]` float32 logits; `mask` `[B, T, S]` and `cache` as in `Transformer`."""
        x, cache = self.hidden(tokens, positions, mask, cache, deterministic)
        return self.logits(x), cache
