"""Cross-entropy over a large vocabulary without its logits: by chunks of tokens, gradients made in the forward pass."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from plum_jax.model.config import DecoderConfig
from plum_jax.model.projections import soft_capped


class LossSums(NamedTuple):
    """Sums over tokens, each times its weight: float32 scalars.

    Attributes:
      loss: label-smoothed negative log-likelihood; the only one with a gradient.
      nll: negative log-likelihood.
      correct: whether the target is the most probable token.
    """

    loss: jax.Array
    nll: jax.Array
    correct: jax.Array


@dataclasses.dataclass(frozen=True)
class ChunkedCrossEntropy:
    """The head and its loss in one, as in the Liger kernels (arXiv 2410.10989), on a mesh.

    Logits in float32 are the largest array of a train step: 1.2 GB at 6,144 tokens and 48 thousand words. Here a chunk
    of them is made, gives its share of the sums and of both gradients, and is forgotten; nothing is computed twice.
    Each device sums the gradient of its own tokens, and devices are summed once, behind the last chunk.

    Attributes:
      mesh: of the step.
      batch_axes: mesh axes that the batch is split over.
      scattered_axes: those of them that the table's width is split over.
      vocabulary_axis: mesh axis that the vocabulary is split over.
      chunk: tokens of one device whose logits exist at a time, at the most.
    """

    mesh: Mesh
    batch_axes: tuple[str, ...]
    scattered_axes: tuple[str, ...]
    vocabulary_axis: str
    chunk: int = 1024

    def __call__(
        self,
        hidden: jax.Array,
        table: jax.Array,
        targets: jax.Array,
        weights: jax.Array,
        config: DecoderConfig,
        smoothing: float,
    ) -> LossSums:
        """Sums over a batch.

        Args:
          hidden: `[B, T, D]` states.
          table: `[V, D]` of the head, any float type.
          targets: int32 `[B, T]`.
          weights: float32 `[B, T]`.
          config: its scale and cap of logits, and the type of products.
          smoothing: share of the target's probability spread evenly over the vocabulary.
        """
        # Cast before it is gathered: half of the bytes.
        return _losses(hidden, table.astype(config.dtype), targets, weights, self, config, smoothing)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _losses(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array, head: ChunkedCrossEntropy,
    config: DecoderConfig, smoothing: float,
) -> LossSums:  # fmt: skip
    return _run(hidden, table, targets, weights, head, config, smoothing, with_gradients=False)[0]


def _forward(hidden, table, targets, weights, head, config, smoothing):  # type: ignore[no-untyped-def]
    return _run(hidden, table, targets, weights, head, config, smoothing, with_gradients=True)


def _backward(head, config, smoothing, gradients, cotangent):  # type: ignore[no-untyped-def]
    of_hidden, of_table = (g * cotangent.loss.astype(g.dtype) for g in gradients)
    return of_hidden, of_table, None, jnp.zeros(of_hidden.shape[:2], jnp.float32)


_losses.defvjp(_forward, _backward)


def _run(
    hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array, head: ChunkedCrossEntropy,
    config: DecoderConfig, smoothing: float, *, with_gradients: bool,
) -> tuple[LossSums, tuple[jax.Array, jax.Array] | None]:  # fmt: skip
    """The sums; and the gradients of their first towards states and table."""
    mesh = head.mesh
    vocabulary = head.vocabulary_axis if table.shape[0] % mesh.shape[head.vocabulary_axis] == 0 else None
    ways = math.prod(mesh.shape[axis] for axis in head.scattered_axes)
    scattered = head.scattered_axes if table.shape[1] % ways == 0 else None
    rows, words = PartitionSpec(head.batch_axes), PartitionSpec(vocabulary)
    of_table = PartitionSpec(vocabulary, scattered)
    on_device = _OnDevice(head, vocabulary, scattered, table.shape[0], config, smoothing, with_gradients)
    run = jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(rows, words, rows, rows),
        out_specs=(PartitionSpec(), (rows, of_table) if with_gradients else None),
        check_vma=False,
    )
    sums, gradients = run(hidden, table, targets, weights)
    return LossSums(*sums), gradients


@dataclasses.dataclass(frozen=True)
class _OnDevice:
    """What one device does with its rows and its part of the vocabulary."""

    head: ChunkedCrossEntropy
    vocabulary: str | None
    scattered: tuple[str, ...] | None
    vocab_size: int
    config: DecoderConfig
    smoothing: float
    with_gradients: bool

    def __call__(self, hidden: jax.Array, table: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple:
        tokens = targets.size
        pieces = next(n for n in range(max(1, -(-tokens // self.head.chunk)), tokens + 1) if tokens % n == 0)
        cut = [x.reshape(pieces, tokens // pieces, *x.shape[2:]) for x in (hidden, targets, weights)]
        first_word = 0 if self.vocabulary is None else lax.axis_index(self.vocabulary) * table.shape[0]

        def one(carry: tuple, piece: tuple) -> tuple[tuple, jax.Array | None]:
            sums, of_table = carry
            x, target, weight = piece
            more, scores = self._scores(x, table, target - first_word, weight)
            sums = jax.tree.map(jnp.add, sums, more)
            if not self.with_gradients:
                return (sums, None), None
            of_table += jnp.einsum("tV,tD->VD", scores, x, preferred_element_type=jnp.float32)
            return (sums, of_table), scores @ table

        zeros = (jnp.float32(0.0),) * 3
        start = (zeros, jnp.zeros(table.shape, jnp.float32) if self.with_gradients else None)
        (sums, of_table), of_hidden = lax.scan(one, start, tuple(cut))
        sums = lax.psum(sums, self.head.batch_axes)
        if of_table is None or of_hidden is None:
            return sums, None
        if self.vocabulary is not None:
            of_hidden = lax.psum(of_hidden, self.vocabulary)
        return sums, (of_hidden.reshape(hidden.shape), self._over_devices(of_table.astype(table.dtype)))

    def _scores(
        self, x: jax.Array, table: jax.Array, target: jax.Array, weight: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        """Sums over a chunk, and the gradient of its loss towards what the product gives, `[t, V]`."""
        c, share = self.config, self.smoothing
        logits = jnp.einsum("tD,VD->tV", x, table, preferred_element_type=jnp.float32) * c.logits_scale
        logits = soft_capped(logits, c.final_softcap)
        is_target = target[:, None] == jnp.arange(table.shape[0])
        largest = self._over_words(jnp.max(logits, axis=-1), lax.pmax)
        exponentials = jnp.exp(logits - largest[:, None])
        total = self._over_words(jnp.sum(exponentials, axis=-1), lax.psum)
        of_target = self._over_words(jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1), lax.psum)
        normaliser = largest + jnp.log(total)
        nll = normaliser - of_target
        loss = nll
        if share:
            mean = self._over_words(jnp.sum(logits, axis=-1), lax.psum) / self.vocab_size
            loss = (1.0 - share) * nll + share * (normaliser - mean)
        correct = (of_target == largest).astype(jnp.float32)
        sums = tuple(jnp.sum(value * weight) for value in (loss, nll, correct))
        gradient = exponentials / total[:, None] - jnp.where(is_target, 1.0 - share, 0.0) - share / self.vocab_size
        if c.final_softcap is not None:
            gradient = gradient * (1.0 - jnp.square(logits / c.final_softcap))
        return sums, (gradient * (weight * c.logits_scale)[:, None]).astype(table.dtype)  # type: ignore[return-value]

    def _over_words(self, x: jax.Array, reduce) -> jax.Array:  # type: ignore[no-untyped-def]
        return x if self.vocabulary is None else reduce(x, self.vocabulary)

    def _over_devices(self, of_table: jax.Array) -> jax.Array:
        """The table's gradient summed over all tokens, each device with its columns."""
        kept = self.scattered or ()
        summed = tuple(axis for axis in self.head.batch_axes if axis not in kept)
        of_table = lax.psum(of_table, summed) if summed else of_table
        return lax.psum_scatter(of_table, kept, scatter_dimension=1, tiled=True) if kept else of_table
