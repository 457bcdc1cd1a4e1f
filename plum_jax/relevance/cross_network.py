"""The cross-encoder's network: states of query and item, gathered by kind of token, and a float32 head."""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.encoders.network import TextEncoder, TrunkConfig
from plum_jax.model.attention import AttentionFunction, EinsumAttention

HIDDEN = 64  # of the head
MATCH_SCALE = 4.0  # of numbers in [0, 1]: as weights are small at first, they would take long to count
KINDS = 4  # of tokens: of the query, in the item too or not; of the item, in the query too or not


class CrossNetwork(nn.Module):
    """Batches of "tokens" int32 [B, T], the query and then the item, "lengths" int32 [B], tokens of both,
    "query_lengths" int32 [B], and "cosines" float32 [B], of text vectors, to logits float32 [B, C].

    Every token sees both texts. The head reads the mean state of each kind of token, those that the other text has too
    and those that it has not, of query and of item, how many of a kind there are, and how near the nearest state of the
    item is to each of the query's, the mean and the least (late interaction; ColBERT, arXiv 2004.12832, eq. 3). It
    reads the cosine of text vectors too. The paper's teachers read one state and nothing else; they have all their
    layers and more data. Of the last token's state alone, four layers of a decoder had not learnt after 20,000 pairs
    what it means that a word stands in both texts (below the most frequent class on validation queries); without the
    cosine three layers ranked worse than it.

    The language model's parameters lie in "encoder", as a `TextEncoder` has them.

    Attributes:
      config, vocab_size: of the language model.
      classes: C.
      attention: the kernel.
    """

    config: TrunkConfig
    vocab_size: int
    classes: int
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        self.encoder = TextEncoder(self.config, self.vocab_size, "mean", self.attention)
        self.hidden_states, self.hidden_numbers = nn.Dense(HIDDEN), nn.Dense(HIDDEN)
        self.head = nn.Dense(self.classes)

    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> jax.Array:
        states = self.encoder.states(batch["tokens"], batch["lengths"], deterministic, batch["query_lengths"])
        states = _unit(states.astype(jnp.float32))
        kinds = kinds_of_tokens(batch["tokens"], batch["lengths"], batch["query_lengths"])
        count = jnp.sum(kinds, axis=-1)
        means = jnp.einsum("bkt,btd->bkd", kinds, states) / jnp.maximum(count, 1)[..., None]
        shared = count[:, ::2] / jnp.maximum(count[:, ::2] + count[:, 1::2], 1)
        near = _near(states, jnp.sum(kinds[:, :2], axis=1) > 0, jnp.sum(kinds[:, 2:], axis=1) > 0)
        of_text = batch["cosines"][:, None]
        numbers = MATCH_SCALE * jnp.concatenate([shared, jnp.log1p(count) / 3, near, of_text], axis=-1)
        of_states = self.hidden_states(means.reshape(len(means), -1) * self.config.d_model**0.5)
        return self.head(jax.nn.relu(of_states + self.hidden_numbers(numbers)))

    def streams(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
        """[B, T, D] each, in front of the first layer and behind each layer."""
        return self.encoder.streams(batch["tokens"], batch["lengths"], batch["query_lengths"])


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)


def _near(states: jax.Array, of_query: jax.Array, of_item: jax.Array) -> jax.Array:
    """[B, 2], over a query's tokens, of the largest cosine of each with a token of the item: mean and least."""
    cosines = jnp.where(of_item[:, None], jnp.einsum("bqd,bid->bqi", states, states), -1.0)
    nearest = jnp.max(cosines, axis=-1)
    mean = jnp.sum(jnp.where(of_query, nearest, 0.0), axis=1) / jnp.maximum(jnp.sum(of_query, axis=1), 1)
    return jnp.stack([mean, jnp.min(jnp.where(of_query, nearest, 1.0), axis=1)], axis=-1)


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
