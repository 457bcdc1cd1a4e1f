"""Examples as a feed: each with its target and K items drawn as negatives."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from plum_jax.feeds.array_batches import ArrayBatches, CompletedIterator
from plum_jax.feeds.batches import Batch
from plum_jax.systems.unicorn.examples import Examples
from plum_jax.systems.unicorn.inputs import Inputs


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Items drawn for each example from q = (1 - s) / N + s popularity / events, s = `popular`.

    Binary cross-entropy against draws of q has its optimum at log p(item | context) - log q(item) + a constant; logits
    in training are what ranks, less log(N q), so that what ranks is log p at any s (logQ; at s = 0, the uniform draw,
    there is nothing to correct).

    Attributes:
      count: K, for each example.
      popular: s.
    """

    count: int = 16
    popular: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.popular <= 1:
            raise ValueError(f"expected at least one negative and a share popular in [0, 1], got {self}")

    def probabilities(self, popularity: np.ndarray) -> np.ndarray:
        """float64 [N], q of items with so many training events each."""
        uniform = np.full(len(popularity), 1 / len(popularity))
        return (1 - self.popular) * uniform + self.popular * popularity / max(popularity.sum(), 1)


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleFeed:
    """Batches of contexts (`Inputs.of`) with "targets" int32 [B, 1 + K], the item that was taken first, "label" float32
    of the same shape, "log_q" (log N q), and "label_weights": 0 for a draw that is the item itself.

    Attributes:
      rows: batches of "example".
      examples, inputs: what they are, and what is read of them.
      negatives: how many are drawn, and from what.
      popularity: int [N], training events of each item.
      label: float32 [n], of the example's own target.
    """

    rows: ArrayBatches
    examples: Examples
    inputs: Inputs
    negatives: Negatives
    popularity: np.ndarray
    label: np.ndarray

    @classmethod
    def of(
        cls,
        examples: Examples,
        inputs: Inputs,
        negatives: Negatives,
        popularity: np.ndarray,
        batch_size: int,
        seed: int,
        label: np.ndarray | None = None,
    ) -> ExampleFeed:
        """All examples, reshuffled each epoch; `label` None: every target was taken, 1."""
        rows = ArrayBatches({"example": np.arange(len(examples))}, min(batch_size, len(examples)), seed)
        label = np.ones(len(examples), np.float32) if label is None else label
        return cls(rows, examples, inputs, negatives, popularity, label)

    def make_iterator(self) -> CompletedIterator:
        """A fresh iterator at the start; it never ends."""
        return CompletedIterator(self.rows, self._completed)

    @functools.cached_property
    def _drawn_from(self) -> tuple[np.ndarray, np.ndarray]:
        probabilities = self.negatives.probabilities(self.popularity)
        with np.errstate(divide="ignore"):  # an item that is never drawn is a target at most, and stays finite
            log_q = np.log(probabilities * len(probabilities))
        return np.cumsum(probabilities), np.maximum(log_q, -20.0).astype(np.float32)

    def _completed(self, number: int, chosen: Batch) -> Batch:
        rows = chosen["example"]
        cumulative, log_q = self._drawn_from
        random = np.random.default_rng([self.rows.seed, number, 1])
        places = random.random((len(rows), self.negatives.count)) * cumulative[-1]
        drawn = np.minimum(np.searchsorted(cumulative, places, side="right"), len(cumulative) - 1)
        target = self.examples.target[rows][:, None]
        targets = np.concatenate([target, drawn], axis=1).astype(np.int32)
        label, weights = np.zeros(targets.shape, np.float32), np.ones(targets.shape, np.float32)
        label[:, 0] = self.label[rows]
        weights[:, 1:] = drawn != target
        batch = self.inputs.of(self.examples, rows)
        return batch | {"targets": targets, "label": label, "label_weights": weights, "log_q": log_q[targets]}
