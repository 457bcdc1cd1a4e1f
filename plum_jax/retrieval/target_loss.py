"""The held-out loss: what a decoder gives each user's target, teacher-forced, in nats a Semantic-ID token."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from tqdm import tqdm

from plum_jax.evaluation.metrics import summarise
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import prompt_mask
from plum_jax.ragged import Ragged
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.length_batches import length_batches
from plum_jax.retrieval.recommend import Recommender, select_rows


@dataclasses.dataclass(frozen=True, eq=False)
class TargetLoss:
    """`(params) -> {name: value}` over the users of some prompt rows.

    "loss": mean over users and levels of -log p(code | prompt, codes before it), normalised over the whole vocabulary,
    as beam search scores it without its constraint; "loss_se": its standard error over users; "loss_level_1", ...: of
    each level. Smooth where recall is a count, and so what scaling laws are fitted to.

    Attributes:
      recommender: decoder, vocabulary and table; its batch size and number of padded lengths.
      prompts: columns "prompt", "target_item".
      max_users: evaluate on so many users, evenly spread over the rows, as `RetrievalEvaluator` does; None: all.
    """

    recommender: Recommender
    prompts: pl.DataFrame
    max_users: int | None = None

    def __call__(self, params: Params) -> dict[str, float]:
        """All figures. The order of the users plays no part."""
        losses = self.per_user(params).astype(np.float64)
        levels = {f"loss_level_{level + 1}": float(mean) for level, mean in enumerate(losses.mean(axis=0))}
        return summarise({"loss": losses.mean(axis=1)}) | levels

    def per_user(self, params: Params) -> np.ndarray:
        """float32 [U, L]: nats of each code of each user's target."""
        rows = self.prompts[select_rows(len(self.prompts), self.max_users)]
        return item_nats(self.recommender, params, Ragged.from_series(rows["prompt"]), rows["target_item"].to_numpy())


def item_nats(recommender: Recommender, params: Params, prompts: Ragged, items: np.ndarray) -> np.ndarray:
    """float32 [U, L]: -log p of each code of an item (int [U]) after each prompt, in batches of the recommender's."""
    codes = recommender.table.codes[items]
    targets = codes + np.asarray(recommender.vocabulary.sid_offsets)
    losses = np.empty(codes.shape, np.float32)
    batch_size = recommender.batch_size
    with tqdm(total=len(items), desc="held-out loss", unit=" users", disable=len(items) < 1000) as progress:
        for users, length in length_batches(prompts.lengths, batch_size, recommender.num_buckets):
            filled = np.concatenate([users, np.repeat(users[:1], batch_size - len(users))])
            found = target_nats(
                recommender.decoder,
                params,
                jnp.asarray(prompts.padded(filled, length)),
                jnp.asarray(prompts.lengths[filled], jnp.int32),
                jnp.asarray(targets[filled], jnp.int32),
                start_token=recommender.vocabulary.start_id,
            )
            losses[users] = np.asarray(found)[: len(users)]
            progress.update(len(users))
    return losses


@functools.partial(jax.jit, static_argnames=("decoder", "start_token"))
def target_nats(
    decoder: Decoder, params: Params, prompts: jax.Array, lengths: jax.Array, targets: jax.Array, *, start_token: int
) -> jax.Array:
    """-log p of each target token after its prompt and the target tokens before it.

    Args:
      decoder: static.
      params: its parameters.
      prompts: int32 `[B, T]`, right-padded, without the start token.
      lengths: int32 `[B]`, real tokens of each prompt.
      targets: int32 `[B, L]` token ids.
      start_token: put first, as in training.

    Returns:
      float32 `[B, L]` nats.
    """
    levels = targets.shape[1]
    tokens = jnp.pad(prompts, ((0, 0), (1, levels - 1)), constant_values=start_token)
    places = jnp.arange(tokens.shape[1], dtype=jnp.int32)
    # The target's tokens but the last follow the prompt, wherever it ends.
    of_target = places - (lengths[:, None] + 1)
    inside = (of_target >= 0) & (of_target < levels - 1)
    following = jnp.take_along_axis(targets, jnp.clip(of_target, 0, levels - 1), axis=1)
    tokens = jnp.where(inside, following, tokens)
    mask = prompt_mask(lengths + levels, tokens.shape[1])
    positions = jnp.broadcast_to(places, tokens.shape)
    output: Any = decoder.apply({"params": params}, tokens, positions, mask, method="hidden")
    predicting = lengths[:, None, None] + jnp.arange(levels)[:, None]
    last = jnp.take_along_axis(output.values, predicting, axis=1)
    logits = jnp.asarray(decoder.apply({"params": params}, last, method="logits"), jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[:, :, None], axis=2)[:, :, 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen
