"""The trunk with what a task reads off it: class logits at [EOS], two vectors, or the next piece of text."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.config import DecoderConfig
from plum_jax.model.int8 import dequantised
from plum_jax.model.projections import fan_in, parameter
from plum_jax.objectives.info_nce import unit
from plum_jax.systems.m6rec.rows import NOTHING, PROMPT_SEGMENT, USER
from plum_jax.systems.m6rec.trunk import Batch, Form, TextTrunk

CLASSES = 2  # 0 and 1


@dataclasses.dataclass(frozen=True)
class Heads:
    """What is put on the trunk.

    Attributes:
      soft_prompts: vectors that stand before the text, read with the user side; 0: none.
      options: the last of them, one a class, are the softmax's weights ("option tuning"); else there are weights of
        their own.
      early_exit: every layer that sees the whole text answers, not the last one alone.
      vector_dim: of users and items in retrieval; the paper's 128.
      temperature: of their products; the paper's tau.
    """

    soft_prompts: int = 0
    options: bool = False
    early_exit: bool = False
    vector_dim: int = 128
    temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.options and self.soft_prompts < CLASSES:
            raise ValueError(
                f"option tuning reads a class's weights off a soft prompt: expected soft_prompts of {CLASSES} at "
                f"least, got {self.soft_prompts}"
            )


class M6Network(nn.Module):
    """Batches of `rows.TextRows` columns to answers. The trunk's parameters lie under "decoder".

    Attributes:
      config: of the decoder.
      vocab_size: V.
      form: of the trunk.
      heads: on it.
    """

    config: DecoderConfig
    vocab_size: int
    form: Form = Form()
    heads: Heads = Heads()

    def setup(self) -> None:
        c, heads = self.config, self.heads
        self.decoder = TextTrunk(c, self.vocab_size, self.form)
        if heads.soft_prompts:
            init, shape = nn.initializers.normal(c.d_model**-0.5), (heads.soft_prompts, c.d_model)
            self.soft_prompts = parameter(self, "soft_prompts", init, ("length", "embed"), shape, c.param_dtype)
        # Modules: they have parameters only where a task calls them.
        exits = c.num_layers - self.form.split_layers(c.num_layers) if heads.early_exit else 1
        self.classes = ClassWeights(c, exits)
        self.user_projection = nn.Dense(heads.vector_dim, dtype=c.dtype)
        self.item_projection = nn.Dense(heads.vector_dim, dtype=c.dtype)

    def __call__(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """float32 [B, K, C], class logits by the state at the last token, [EOS], of each exit, the last layer last."""
        x, columns = self.entering(batch, deterministic)
        return self.answers(self.decoder.above(x, columns, deterministic), columns)

    def answers(self, streams: tuple[jax.Array, ...], batch: Batch) -> jax.Array:
        """Class logits of the trunk's streams [B, T, D]."""
        asked = streams if self.heads.early_exit else streams[-1:]
        states = jnp.stack([at(stream, ends(batch)) for stream in asked], axis=1).astype(jnp.float32)
        return jnp.einsum("BKD,KDC->BKC", states, self.class_weights(len(asked)))

    def class_weights(self, exits: int) -> jax.Array:
        """float32 [K, D, C]."""
        if not self.heads.options:
            return self.classes().astype(jnp.float32)
        options = self.soft_prompts[-CLASSES:].T.astype(jnp.float32)
        return jnp.broadcast_to(options, (exits, *options.shape))

    def prompted(self, x: jax.Array, batch: Batch) -> tuple[jax.Array, Batch]:
        """States [B, T, D] and their columns with the soft prompts before them, where there are any."""
        count = self.heads.soft_prompts
        if not count:
            return x, batch
        c = self.config
        prompts = self.soft_prompts.astype(c.dtype) * jnp.asarray(
            c.d_model**0.5 if c.scale_embeddings else 1.0, c.dtype
        )
        prompts = jnp.broadcast_to(prompts, (len(x), *prompts.shape))
        prompts = self.decoder.below(prompts, _prompt_columns(len(x), count))
        columns = {
            name: jnp.pad(batch[name], ((0, 0), (count, 0)), constant_values=value)
            for name, value in (("side", USER), ("segment", PROMPT_SEGMENT))
        }
        return jnp.concatenate([prompts, x], axis=1), columns

    def language(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """float32 [B, T, V + special]: logits of the token behind each."""
        x, columns = self.entering(batch, deterministic)
        states = self.decoder.above(x, columns, deterministic)[-1]
        return self.decoder.logits(states[:, self.heads.soft_prompts :])

    def users(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """float32 [B, W] of length one, of rows that are a user side: by the state at [EOS']."""
        return unit(self.user_projection(self.ending(batch, deterministic)))

    def items(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """float32 [B, W] of length one, of rows that are a candidate side: by the state at [EOS]."""
        return unit(self.item_projection(self.ending(batch, deterministic)))

    def towers(self, batch: Batch, deterministic: bool = True) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What `objectives.InfoNce` compares: users and items float32 [B, 1, W], and 1 / tau."""
        user, item = (
            {name: batch[f"{prefix}_{name}"] for name in ("tokens", "side", "segment")} for prefix in ("user", "item")
        )
        users, items = self.users(user, deterministic), self.items(item, deterministic)
        return users[:, None], items[:, None], jnp.float32(1 / self.heads.temperature)

    def entering(self, batch: Batch, deterministic: bool = True) -> tuple[jax.Array, Batch]:
        """What the first layer that sees the whole text is given: states [B, T, D], and their columns."""
        return self.prompted(self.kept(batch, deterministic), batch)

    def kept(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """[B, T, D] behind the layers that see segments alone: of a segment what late interaction keeps of it."""
        x = self.decoder.embedded(batch["tokens"], deterministic)
        return self.decoder.below(x, batch, deterministic)

    def joined(self, states: jax.Array, batch: Batch) -> jax.Array:
        """`__call__` of kept states [B, T, D]."""
        x, columns = self.prompted(states, batch)
        return self.answers(self.decoder.above(x, columns), columns)

    def layer(self, x: jax.Array, columns: Batch, number: int) -> tuple[jax.Array, jax.Array]:
        """One layer of `entering`'s states: the stream behind it, and the class logits [B, C] of its exit."""
        x, normed = self.decoder.one_layer(x, columns, number)
        weights = self.class_weights(self.config.num_layers)[number]
        return x, at(normed, ends(columns)).astype(jnp.float32) @ weights

    def ending(self, batch: Batch, deterministic: bool = True) -> jax.Array:
        """[B, D], the state at each row's last token: what the projections of retrieval read."""
        x = self.kept(batch, deterministic)
        return at(self.decoder.above(x, batch, deterministic)[-1], ends(batch))


class ClassWeights(nn.Module):
    """Weights [K, D, C] of the classes at each exit."""

    config: DecoderConfig
    exits: int

    @nn.compact
    def __call__(self) -> jax.Array:
        c, shape = self.config, (self.exits, self.config.d_model, CLASSES)
        return parameter(self, "kernel", fan_in(1.0, 1, 2, 0), ("layers", "embed", "length"), shape, c.param_dtype)


def applied(network: M6Network, params: Any, *arguments: Any, method: str = "__call__", **more: Any) -> Any:
    """What a method gives by parameters, which may be `model.int8`'s."""
    return network.apply({"params": dequantised(params)}, *arguments, method=method, **more)


def against(logits: jax.Array) -> jax.Array:
    """Class logits [B, 2] as the logit of class 1."""
    return (logits[:, 1] - logits[:, 0]).astype(jnp.float32)


def ends(batch: Batch) -> jax.Array:
    """int32 [B]: place of each row's last token."""
    return jnp.sum(batch["side"] != NOTHING, axis=1, dtype=jnp.int32) - 1


def at(states: jax.Array, place: jax.Array) -> jax.Array:
    """[B, T, D] at one place of each row, [B, D]."""
    return jnp.take_along_axis(states, place[:, None, None], axis=1)[:, 0]


def _prompt_columns(rows: int, count: int) -> Batch:
    """Columns of the soft prompts alone: one segment of the user side."""
    shape = (rows, count)
    return {"side": jnp.full(shape, USER), "segment": jnp.full(shape, PROMPT_SEGMENT)}
