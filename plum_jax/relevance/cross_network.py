"""The cross-encoder's network: a decoder's states of query and item, gathered by kind of token, and a float32 head."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.encoders.network import TextEncoder
from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.config import DecoderConfig

KINDS = 4  # of tokens: of the query, in the item too or not; of the item, in the query too or not


class CrossNetwork(nn.Module):
    """Batches of "tokens" int32 [B, T], the query and then the item, "lengths" int32 [B], tokens of both, and
    "query_lengths" int32 [B], to logits float32 [B, C].

    Every token sees both texts. The head reads the mean state of each kind of token, a token that the other text has too
    and one that it has not, of query and of item, and how many of a kind there are. A bare mean of states (BERT's way,
    without a [CLS] that was pre-trained) has to learn what it means that a word stands in both texts, which a few
    layers of a decoder and some ten thousand pairs do not teach (deviation from the paper, whose cross-encoders have the
    data for it).

    Parameters of a `Decoder` lie under "encoder/decoder".

    Attributes:
      config, vocab_size: of the decoder.
      classes: C.
      attention: the kernel.
    """

    config: DecoderConfig
    vocab_size: int
    classes: int
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        self.encoder = TextEncoder(self.config, self.vocab_size, "mean", self.attention)
        self.head = nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01))

    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> jax.Array:
        states = self.encoder.states(batch["tokens"], batch["lengths"], deterministic).astype(jnp.float32)
        kinds = kinds_of_tokens(batch["tokens"], batch["lengths"], batch["query_lengths"])
        count = jnp.sum(kinds, axis=-1)
        means = jnp.einsum("bkt,btd->bkd", kinds, states) / jnp.maximum(count, 1)[..., None]
        shared = count[:, ::2] / jnp.maximum(count[:, ::2] + count[:, 1::2], 1)
        return self.head(jnp.concatenate([means.reshape(len(means), -1), shared, jnp.log1p(count)], axis=-1))

    def streams(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
        """[B, T, D] each, in front of the first layer and behind each layer."""
        return self.encoder.streams(batch["tokens"], batch["lengths"])


def kinds_of_tokens(tokens: jax.Array, lengths: jax.Array, query_lengths: jax.Array) -> jax.Array:
    """float32 [B, `KINDS`, T], 1 where a token is of the kind; filling is of none."""
    places = jnp.arange(tokens.shape[1])
    of_query = places < query_lengths[:, None]
    of_item = (places < lengths[:, None]) & ~of_query
    equal = tokens[:, :, None] == tokens[:, None, :]
    in_item = jnp.any(equal & of_item[:, None, :], axis=-1)
    in_query = jnp.any(equal & of_query[:, None, :], axis=-1)
    kinds = [of_query & in_item, of_query & ~in_item, of_item & in_query, of_item & ~in_query]
    return jnp.stack(kinds, axis=1).astype(jnp.float32)
