"""A decoder of two layers, a batch, and a few steps of an optimizer: what the tests of optimizers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.next_token import NextTokenLoss
from plum_jax.training.mesh import MeshShape
from plum_jax.training.step import TrainState, initial_state, make_train_step

VOCAB, BATCH, LENGTH = 24, 8, 12
CONFIG = DecoderConfig(num_layers=2, d_model=16, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=24)


def init_of(config: DecoderConfig = CONFIG) -> Callable[[jax.Array], Any]:
    """The initialiser of a decoder, with logical axes."""
    tokens = jnp.zeros((1, 4), jnp.int32)
    return lambda key: Decoder(config, VOCAB).init(key, tokens, tokens, jnp.ones((1, 4, 4), bool))["params"]


def params_of(config: DecoderConfig = CONFIG) -> Any:
    """Random parameters without logical axes."""
    return filled(jax.eval_shape(init_of(config), jax.random.key(0)))


def filled(tree: Any, seed: int = 0) -> Any:
    """Normal numbers in the shapes of a tree; no program is compiled for it."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), nn.unbox(tree))


def batch_of(seed: int = 0) -> dict[str, np.ndarray]:
    """Random tokens, each of which is followed by its successor: something to learn."""
    first = np.random.default_rng(seed).integers(0, VOCAB, (BATCH, 1), dtype=np.int32)
    tokens = (first + np.arange(LENGTH + 1, dtype=np.int32)) % VOCAB
    return {
        "decoder_input_tokens": tokens[:, :-1],
        "decoder_target_tokens": tokens[:, 1:],
        "decoder_loss_weights": np.ones((BATCH, LENGTH), np.float32),
        "decoder_segment_ids": np.ones((BATCH, LENGTH), np.int32),
        "decoder_positions": np.tile(np.arange(LENGTH, dtype=np.int32), (BATCH, 1)),
    }


def trained(
    optimizer: optax.GradientTransformation,
    steps: int,
    config: DecoderConfig = CONFIG,
) -> tuple[TrainState, TrainState, list[float]]:
    """The state before and after `steps` steps on one batch (host arrays), and the loss of each step."""
    built = MeshShape().build(jax.devices()[:1])
    key = jax.random.key(0)
    state = initial_state(init_of(config), optimizer, key, built)
    before = jax.device_get(state)
    objective = NextTokenLoss(Decoder(config, VOCAB))
    step = make_train_step(objective, optimizer, 1, key, built, state)
    losses = []
    for _ in range(steps):
        state, metrics = step(state, batch_of())
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    return before, jax.device_get(state), losses
