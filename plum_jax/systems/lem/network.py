"""Two towers: items as embedding and content, users as a Transformer over their items."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Transformer
from plum_jax.model.masks import Mask, PackedCausal
from plum_jax.model.projections import parameter
from plum_jax.objectives.info_nce import MOST_SCALE, unit


class TwoTowers(nn.Module):
    """Users and items as unit vectors of one space; the inverse temperature is learnt.

    Attributes:
      config: sizes of the user tower.
      num_items: N, rows of the embedding table.
      feature_dim: F, width of the content features; 0: none.
      attention: the kernel.
    """

    config: DecoderConfig
    num_items: int
    feature_dim: int
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        c = self.config
        init = nn.initializers.normal(c.d_model**-0.5)
        self.embedding = parameter(
            self, "embedding", init, ("vocab", "embed"), (self.num_items, c.d_model), c.param_dtype
        )
        if self.feature_dim:
            self.features = nn.Dense(c.d_model, use_bias=False, param_dtype=jnp.dtype(c.param_dtype))
        self.log_scale = parameter(self, "log_scale", nn.initializers.constant(jnp.log(20.0)), (), (), "float32")
        self.transformer = Transformer(c, self.attention)
        self.dropout = nn.Dropout(c.dropout_rate)

    def items(self, items: jax.Array, features: jax.Array) -> jax.Array:
        """Items int32 `[...]` with features `[..., F]` to vectors `[..., D]`, not yet of length one."""
        x = jnp.take(self.embedding, items, axis=0).astype(self.config.dtype)
        return x + self.features(features.astype(x.dtype)) if self.feature_dim else x

    def users(
        self, items: jax.Array, features: jax.Array, positions: jax.Array, mask: Mask, deterministic: bool = True
    ) -> jax.Array:
        """Histories `[B, T]` to unit vectors float32 `[B, T, D]`: what is known behind each item."""
        x = self.items(items, features) * jnp.asarray(self.config.d_model**0.5, self.config.dtype)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        x = self.dropout(x, deterministic=deterministic)
        return unit(self.transformer(x, positions, mask, deterministic=deterministic).values)

    def towers(
        self, batch: Mapping[str, jax.Array], deterministic: bool = True
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """User vectors and those of the targets, `[B, T, D]` each, and the inverse temperature."""
        users = self.users(
            batch["decoder_input_tokens"],
            batch["input_features"],
            batch["decoder_positions"],
            PackedCausal(batch["decoder_segment_ids"]),
            deterministic,
        )
        items = unit(self.items(batch["decoder_target_tokens"], batch["target_features"]))
        return users, items, jnp.minimum(jnp.exp(self.log_scale), MOST_SCALE)

    def item_vectors(self, items: jax.Array, features: jax.Array) -> jax.Array:
        """Unit vectors float32 `[..., D]`."""
        return unit(self.items(items, features))
