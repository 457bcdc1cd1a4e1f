"""What a study scales: a system that says its parameters and FLOPs, and can be trained and judged at any size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from plum_jax.model.config import DecoderConfig
from plum_jax.stages import Source
from plum_jax.training.step_recipe import StepRecipe
from plum_jax.training.training_config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What a grid must know of the data that all cells share.

    Attributes:
      vocab_size: rows of the embedding: tokens, or items where an item is a token.
      length: positions of a training row.
      unique_tokens: positions with a loss weight in one pass over the data; None: unknown, and no epochs can be said.
      fill: share of a batch's positions that are trained on; the rest is padding, and context without a loss weight.
      evaluation_users: test users that a cell is judged on.
      prompt_tokens: mean positions that are read of each of them.
      sid_levels: tokens of an item: the levels of its Semantic ID, 1 where there is none.
      codebook_sizes: W of each level, for systems whose codes are not in the vocabulary; () else.
      feature_dim: numbers that are known of each item; 0: none are read.
      field_sizes: buckets of each field that is read of an event.
    """

    vocab_size: int
    length: int
    unique_tokens: int | None = None
    fill: float = 1.0
    evaluation_users: int = 0
    prompt_tokens: float = 0.0
    sid_levels: int = 3
    codebook_sizes: Sequence[int] = ()
    feature_dim: int = 0
    field_sizes: Sequence[int] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """What was made for all cells.

    Attributes:
      data: what a grid must know.
      users: int64 [U], of the corpus: the test users that cells are judged on.
      loss_is_of_items: whether `sid_levels` times the held-out loss is the nats of the item itself; not so where
        several items share a Semantic ID.
    """

    data: DataFacts
    users: np.ndarray
    loss_is_of_items: bool


class Trial(Protocol):
    """One size of a system on the prepared data."""

    def train(self, directory: epath.Path, branch_at: tuple[epath.Path, int] | None, description: str) -> Any:
        """The parameters after the last step, trained from random ones or from where they branch off.

        Args:
          directory: of the training run, which goes on where it was.
          branch_at: directory and step of a run that this one branches off; its schedule and seconds may differ.
          description: of the progress bar.
        """

    def judge(self, params: Any) -> dict[str, Any]:
        """On the test users: "loss" and "loss_se" (held out, nats a token), and what `evaluation.judge` says."""


class Scalable(Protocol):
    """A frozen dataclass, bound in gin as `study.Study.system`. Nothing is registered."""

    @property
    def training(self) -> TrainingConfig:
        """Optimizer and schedule, whose steps, peak, warm-up and seed a study sets."""

    @property
    def length(self) -> int:
        """Positions of a training row."""

    @property
    def source(self) -> Source:
        """Of the events."""

    @property
    def ks(self) -> Sequence[int]:
        """Cut-offs of recall."""

    @property
    def data_config(self) -> Mapping[str, Any]:
        """All that decides over the data of all cells."""

    @property
    def own_config(self) -> Mapping[str, Any]:
        """All that decides over one cell besides the data: sizes, training, batch, search."""

    def sized(self, transformer: DecoderConfig, training: TrainingConfig, batch_size: int) -> Scalable:
        """The same system with another Transformer, trained so."""

    def prepare(self, directory: epath.Path, max_users: int | None) -> Prepared:
        """Makes in a directory what all cells read.

        Args:
          directory: of it.
          max_users: test users to judge on, evenly spread; None: all.
        """

    def trial(self, directory: epath.Path, max_users: int | None) -> Trial:
        """This size, on what `prepare` made in the directory."""

    def counts(self, data: DataFacts) -> Mapping[str, int]:
        """Parameters: "total", "non_embedding", "activated" and "activated_non_embedding" (`model.counts`)."""

    def flops_parts(self, data: DataFacts) -> Mapping[str, float]:
        """Training FLOPs of a position of a row, forward and backward, exact, scores as a causal mask leaves them;
        by part: "projections", "scores", "router", "head".
        """

    def evaluation_flops(self, data: DataFacts) -> float:
        """Forward FLOPs of judging one cell."""

    def step(self, data: DataFacts) -> StepRecipe:
        """The train step, for timing and compiling it."""
