"""Pre-training on behaviours as text: what was left out of a history is filled in, and histories are gone on with."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import TRAIN
from plum_jax.encoders.language_model import LanguageModel, LanguageModelStart
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.ranking.labels import LabelledEvents
from plum_jax.stages import Stages
from plum_jax.systems.m6rec.losses import WritingLoss
from plum_jax.systems.m6rec.network import M6Network
from plum_jax.systems.m6rec.rows import MASK, Tokens
from plum_jax.systems.m6rec.trunk import Form
from plum_jax.systems.m6rec.writer import Text, Texts, Writer, lines_for_pieces
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import warm_started
from plum_jax.training.step import FromHost

_PIECE_TEXTS = 5_000  # that pieces are trained on


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """The trunk that all tasks begin with, trained on texts of training events.

    A text is of one of four kinds, by turns: a segment of the user side is left out and written (text infilling; the
    paper's spans are of tokens), the second half of a history is written behind the first (autoregressive), an event is
    written with its outcome, the reason or the answer of a conversation is written.

    Attributes:
      model: pieces and weights that it begins with.
      form: of the trunk.
      texts: what is told.
      length: tokens of a row.
      examples: training events that texts are made of; 0: the trunk stays as `model` begins.
      batch_size: rows.
      epochs: over the texts, instead of `training.steps`; None: those steps.
      training: steps, optimizer, seed.
    """

    model: LanguageModel = LanguageModel()
    form: Form = Form()
    texts: Texts = Texts()
    length: int = 128
    examples: int = 20_000
    batch_size: int = 64
    epochs: float | None = 1.0
    training: training_config.TrainingConfig = training_config.TrainingConfig()

    def fit(self, stages: Stages, events: LabelledEvents) -> Pretrained:
        """Trains, or goes on, or reads what was trained; rankers of one run share it where it is the same.

        Raises:
          ValueError: no training event.
        """
        writer = self.texts.writer(events)
        rows = _some_events(events, max(self.examples, _PIECE_TEXTS), self.training.seed)
        writer.check_learnt(rows)
        heard = [writer.outcome(int(row), float(events.label[row])) for row in rows[:_PIECE_TEXTS]]
        start = self.model.start(
            lines_for_pieces(heard), directory_of(stages, "pieces", writer.fingerprint, self.model, self.training.seed)
        )
        tokens = Tokens(start.text, start.vocab_size, self.length)
        untrained = Pretrained(self, start, tokens, writer, None)
        if not self.examples:
            return untrained
        texts = [_fitting(tokens, writer, int(row), number) for number, row in enumerate(rows[: self.examples])]
        batches = ArrayBatches(dict(tokens.rows(texts).columns()), min(self.batch_size, len(texts)), self.training.seed)
        said = training_config.in_steps(self, batches.steps_per_epoch)
        network = untrained.network
        inputs = {"writer": writer.fingerprint, "start": start.fingerprint, "system": artifact.fingerprint(said)}
        params = trainer.train(
            said.training,
            directory=directory_of(stages, "trunk", *inputs.values()),
            init_params=untrained.initial(network, "language", next(batches.make_iterator())),
            objective=WritingLoss(network),
            feed=batches,
            fingerprints=inputs,
            tokens_per_step=batches.batch_size * self.length,
            description="trunk",
            described={"system": said},
        )
        return dataclasses.replace(untrained, params=params)


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """A trunk, and how its texts are written.

    Attributes:
      config: how it was made.
      start: what it began with.
      tokens, writer: texts to rows, events to texts.
      params: of `network` (host arrays); None: those of `start`, or random ones.
    """

    config: Pretraining
    start: LanguageModelStart
    tokens: Tokens
    writer: Writer
    params: Any

    @property
    def network(self) -> M6Network:
        """The trunk that writes."""
        return M6Network(self.start.decoder, self.start.vocab_size, self.config.form)

    @functools.cached_property
    def written_by(self) -> Any:
        """Parameters of `network`: those that were trained, else those that it began with."""
        if self.params is not None:
            return self.params
        batch = dict(self.tokens.rows([Text(("",), ("",))]).columns())
        made = self.initial(self.network, "language", batch)
        return nn.unbox(made.make(jax.random.key(self.config.training.seed)))

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(
            self.start.fingerprint,
            self.writer.fingerprint,
            self.config,
            "" if self.params is None else artifact.tree_fingerprint(self.params),
        )

    def initial(self, network: M6Network, method: str, batch: dict[str, np.ndarray]) -> FromHost:
        """What a network for a task begins with: this trunk, and random heads.

        Args:
          network: of this trunk's sizes.
          method: the network's that the task calls.
          batch: one of the task's.
        """
        one = {name: values[:1] for name, values in batch.items()}

        def init(key: jax.Array) -> Any:
            return network.init(key, one, method=method)["params"]

        known = self.params if self.params is not None else {"decoder": self.start.params or {}}
        return warm_started(init, nn.unbox(known))


def text_of(writer: Writer, event: int, number: int) -> Text:
    """Text `number` of a pre-training, of a training event."""
    kinds = (_filled_in, _gone_on_with, _outcome, _written_answer)
    return kinds[number % len(kinds)](writer, event, number // len(kinds))


def _fitting(tokens: Tokens, writer: Writer, event: int, number: int) -> Text:
    """`text_of`; a conversation may be too long for a row, and the event with its outcome is told instead."""
    text = text_of(writer, event, number)
    return text if tokens.fits(text) else _outcome(writer, event, number)


def _filled_in(writer: Writer, event: int, number: int) -> Text:
    """One segment of the user side is left out, and is the candidate side."""
    user = [*writer.user(event)]
    place = number % len(user)
    left_out, user[place] = user[place], MASK
    return Text(tuple(user), (left_out,))


def _gone_on_with(writer: Writer, event: int, number: int) -> Text:
    """The history from its middle on, at most four segments, behind the profile and what was before them."""
    user = writer.user(event)
    middle = max(1, len(user) - 4)
    return Text(user[:middle], user[middle:]) if len(user) > 1 else _outcome(writer, event, number)


def _outcome(writer: Writer, event: int, number: int) -> Text:
    return writer.outcome(event, float(writer.events.label[event]))


def _written_answer(writer: Writer, event: int, number: int) -> Text:
    made = writer.explanation(event) if number % 2 else writer.conversation(event)
    return made or _outcome(writer, event, number)


def _some_events(events: LabelledEvents, count: int, seed: int) -> np.ndarray:
    """Rows int64 of training events, drawn, in random order."""
    rows = np.flatnonzero(events.split.fold == TRAIN)
    if not len(rows):
        raise ValueError(f"corpus {events.split.corpus.name!r} has no training event to pre-train on")
    return np.random.default_rng(seed).permutation(rows)[:count]


def directory_of(stages: Stages, *parts: Any) -> epath.Path:
    """Where a training lies that rankers of one run share: by what it is, not by a name."""
    return epath.Path(stages.directory) / "m6rec" / artifact.fingerprint(*parts)
