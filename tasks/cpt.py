"""Continued pre-training as one mixture: watch histories, sentences about items, and what else is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks import mixtures
from tasks.sid_text import SidText
from tasks.watch_history import WatchHistory

if TYPE_CHECKING:
    import seqio


class FurtherTasks(Protocol):
    """`MaskedHistory`, `SidPairs`, `PlainText`, or one of your own: a frozen dataclass."""

    @property
    def kind(self) -> str:
        """Whose part of the mixture it shares: "behaviour", "metadata" or "text"."""

    def texts(self, corpus: Corpus) -> list[str]:
        """What pieces of text should be trained on besides."""

    def tasks(self, split: Split, table: SidTable, vocabulary: SidVocabulary, length: int) -> list[seqio.Task]:
        """The tasks, over training events only; `length` is that of a training row."""


@dataclasses.dataclass(frozen=True)
class CptTasks:
    """The tasks of continued pre-training (PLUM §4.1) and their rates.

    Attributes:
      watch_history, sid_text: behaviour and metadata, which every run has.
      further: masked watches, sentences of two items, plain text.
      behaviour_rate: share of behaviour in what is not plain text.
      text_rate: share of plain text, where there is any.
    """

    watch_history: WatchHistory = WatchHistory()
    sid_text: SidText = SidText()
    further: Sequence[FurtherTasks] = ()
    behaviour_rate: float = 0.5
    text_rate: float = 0.1

    @property
    def config(self) -> tuple[Any, ...]:
        """What decides the records; that of a run without further tasks says nothing of them."""
        usual = (self.watch_history, self.sid_text, self.behaviour_rate)
        return (*usual, tuple(self.further), self.text_rate) if self.further else usual

    @property
    def inputs(self) -> dict[str, str]:
        """Hashes of the files that the tasks read."""
        found: dict[str, str] = {}
        for task in self.further:
            found |= getattr(task, "inputs", dict)()
        return found

    def texts(self, corpus: Corpus) -> list[str]:
        """What pieces of text are trained on."""
        return [*self.sid_text.texts(corpus), *(text for task in self.further for text in task.texts(corpus))]

    def mixture(self, split: Split, table: SidTable, vocabulary: SidVocabulary, length: int) -> seqio.Mixture:
        """The mixture, over training events and learnt items only, and of those over what no run before has learnt.

        Raises:
          LeakError, templates.TemplateError, ValueError: as the tasks do; a task without a sequence is named.
        """
        spoken_of = None if self.sid_text.new_items else split.spoken_items
        made: dict[str, list[seqio.Task]] = {
            "behaviour": [self.watch_history.task(split, table, vocabulary)],
            "metadata": self.sid_text.tasks(
                split.corpus, table, vocabulary, spoken_of, may_be_empty=split.before is not None
            ),
            "text": [],
        }
        for task in self.further:
            if task.kind not in made:
                raise ValueError(
                    f"expected the kind of {type(task).__name__} to be one of {[*made]}, got {task.kind!r}"
                )
            made[task.kind] += task.tasks(split, table, vocabulary, length)
        return mixtures.cpt_mixture(
            made["behaviour"],
            made["metadata"],
            self.behaviour_rate,
            text=made["text"],
            text_rate=self.text_rate,
        )
