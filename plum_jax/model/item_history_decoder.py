"""An item-level network as a beam search meets it: where a `Decoder` stands otherwise."""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.decoder import DecoderOutput, Transformer
from plum_jax.model.depth_decoder import DepthDecoder
from plum_jax.model.item_history import FieldEmbedding, ItemHistoryConfig, events_read
from plum_jax.model.masks import Mask, PackedCausal
from plum_jax.model.projections import parameter


class ItemHistoryDecoder(nn.Module):
    """What searches: the trained network, with the vectors of all items in a table.

    It stands where a `Decoder` does in `retrieval`: its tokens are the codes of all levels, and a prompt is 1 + F
    numbers an event, the item's and the buckets of its fields.
    """

    config: ItemHistoryConfig
    codebook_sizes: tuple[int, ...]
    num_items: int
    field_sizes: tuple[int, ...] = ()
    attention: AttentionFunction = EinsumAttention()

    # Each level's codes have a softmax of their own.
    normalised_by_level: ClassVar[bool] = True

    @property
    def vocab_size(self) -> int:
        """Codes of all levels."""
        return sum(self.codebook_sizes)

    def setup(self) -> None:
        c = self.config
        shape = (self.num_items, c.transformer.d_model)
        self.table = parameter(self, "table", nn.initializers.zeros_init(), ("vocab", "embed"), shape, "float32")
        self.fields = FieldEmbedding(c.transformer, self.field_sizes) if self.field_sizes else None
        self.transformer = Transformer(c.transformer, EinsumAttention())
        self.depth = DepthDecoder(c.depth, self.codebook_sizes, self.attention)

    def states(self, prompts: jax.Array, lengths: jax.Array) -> jax.Array:
        """`[B, 1, D]` behind the last of `lengths` [B] numbers of each prompt of `prompts` [B, T x (1 + F)]."""
        c, stride = self.config.transformer, 1 + len(self.field_sizes)
        prompts = jnp.pad(prompts, ((0, 0), (0, -prompts.shape[1] % stride)))
        events, lengths = prompts.reshape(prompts.shape[0], -1, stride), lengths // stride
        places = jnp.broadcast_to(jnp.arange(events.shape[1], dtype=jnp.int32), events.shape[:2])
        real = PackedCausal((places < lengths[:, None]).astype(jnp.int32))
        vectors = jnp.take(self.table, events[..., 0], axis=0).astype(c.dtype)
        x = events_read(vectors, self.fields, events[..., 1:])
        states = self.transformer(x, places, real).values
        return jnp.take_along_axis(states, jnp.maximum(lengths - 1, 0)[:, None, None], axis=1)

    def read_prompts(
        self, prompts: jax.Array, lengths: jax.Array, start_token: int
    ) -> tuple[jax.Array, KVCache, jax.Array, jax.Array]:
        """As `Decoder.read_prompts`; what follows has read one position, the state."""
        del start_token
        output = self.depth.begin(self.states(prompts, lengths))
        assert output.cache is not None
        batch = prompts.shape[0]  # symbolic in an export
        return output.values, output.cache, jnp.ones((batch, 1, 1), bool), jnp.zeros(batch, jnp.int32)

    def hidden(self, tokens: jax.Array, positions: jax.Array, mask: Mask, cache: KVCache) -> DecoderOutput:
        """States behind the codes of beams."""
        return self.depth.hidden(tokens, positions, mask, cache)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """float32 logits of the codes of all levels."""
        return self.depth.logits(hidden)


def search_params(params: Any, table: Any) -> dict[str, Any]:
    """Parameters of an `ItemHistoryDecoder`: those of a trained network, and the vectors [N, D] of all items."""
    read = {name: params[name] for name in ("fields", "transformer", "depth") if name in params}
    return {"table": table, **read}
