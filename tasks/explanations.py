"""Explanations: a history, what follows, and in words because of which of its items (the talk on LRM, its outlook)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from plum_jax import ragged
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks import templates
from tasks.examples import answered
from tasks.fields import TemplateRows
from tasks.histories import Slider, Windows
from tasks.item_attributes import SharedAttributes

if TYPE_CHECKING:
    import seqio

FIELDS = ("history", "target", "reason", "shared")


@dataclasses.dataclass(frozen=True)
class Explanations:
    """Training histories, their next item, and the item of the history that shares most with it, by metadata alone.

        <history> A1 B4 A7 B2 A3 B9 <target> A7 B1 because of A7 B2 : Comedy, Romance

    Nobody labels a reason: it is the item whose shared values are the rarest (`SharedAttributes.nearest`). A window
    whose target shares nothing with its history is left out. Loss weight 1 behind the target, 0 before.

    Attributes:
      fields: columns of items that make what is shared.
      layout: the whole: {history}, {target}, {reason} and {shared}, in this order, the last at its end.
      event: one event of the history; fields of events and of their items.
      history_length: events before the target, at most; every half as many events, one is explained.
      name: of the task.
    """

    kind: ClassVar[str] = "behaviour"
    fields: tuple[str, ...] = ("genres",)
    layout: str = "<history> {history} <target> {target} because of {reason}: {shared}"
    event: str = "{sid}"
    history_length: int = 20
    name: str = "explanations"

    def texts(self, corpus: Corpus) -> list[str]:
        """Words that pieces of text should be trained on: none, for they are few."""
        del corpus
        return []

    def tasks(self, split: Split, table: SidTable, vocabulary: SidVocabulary, length: int) -> list[seqio.Task]:
        """The task, over training events only.

        Raises:
          LeakError: one of them is held out.
          ItemAttributeError: a field that the items do not have.
          templates.TemplateError: an unknown field or control token, or a layout without its four fields in order.
        """
        del length
        from tasks import seqio_task  # TensorFlow's import takes seconds that only materialising should pay

        writer = ExplanationWriter(self, split, table, vocabulary)
        slider = Slider(self.history_length, max(1, self.history_length // 2), every_prefix=False)

        def explained() -> Iterator[tuple[Windows, np.ndarray]]:
            for windows in slider.windows(split, self.name):
                reason = writer.nearest(windows)
                rows = np.flatnonzero(reason >= 0)
                yield windows.take(rows), reason[rows]

        def sequences() -> Iterator[tuple[ragged.Ragged, ragged.Ragged]]:
            for windows, reason in explained():
                if not len(windows):
                    continue
                prompt = writer.prompts(windows, writer.items(windows.target_event))
                yield answered(prompt, writer.told(windows, reason))

        count = sum(len(windows) for windows, _ in explained())
        return [seqio_task.sequence_task(self.name, sequences, vocabulary, count)]


class ExplanationWriter:
    """Writes windows as explanations, or as prompts for one, with parsed templates."""

    def __init__(self, task: Explanations, split: Split, table: SidTable, vocabulary: SidVocabulary) -> None:
        self.shared = SharedAttributes.of(split.corpus, task.fields)
        self._rows = TemplateRows(split.corpus, table, vocabulary)
        self._renderer = templates.Renderer(vocabulary)
        self._vocabulary = vocabulary
        self._item_of = split.corpus.events["item"].to_numpy()
        tokens = vocabulary.control_tokens
        where = f"template of task {task.name}"
        self._event = templates.parse(
            task.event, where=f"event {where}", fields=self._rows.target_fields, tokens=tokens
        )
        layout = templates.parse(task.layout, where=f"layout {where}", fields=FIELDS, tokens=tokens)
        self._literals = templates.literals_before(layout, FIELDS, f"layout {where}")

    def items(self, events: np.ndarray) -> np.ndarray:
        """int [n], items of rows of `corpus.events`."""
        return self._item_of[events]

    def nearest(self, windows: Windows) -> np.ndarray:
        """int64 [R]: place in each window's history of the item that shares most with its target; -1: none does."""
        targets, history = self.items(windows.target_event), self.items(windows.history_events)
        return self.shared.nearest(targets, history, windows.lengths)

    def prompts(self, windows: Windows, targets: np.ndarray) -> ragged.Ragged:
        """Tokens up to where the reason's Semantic ID begins, of other targets (int [R], items) if need be."""
        history = self._renderer.render(self._event, self._rows.events(windows.history_events))
        before, to_target, to_reason, _ = (self._literal(part, len(windows)) for part in self._literals)
        return ragged.join([before, history.grouped(windows.lengths), to_target, self._sids(targets), to_reason])

    def told(self, windows: Windows, reason: np.ndarray) -> ragged.Ragged:
        """Tokens of the reason (int [R], places in the histories), of what is shared, and EOS."""
        starts = np.cumsum(windows.lengths) - windows.lengths
        targets, reasons = self.items(windows.target_event), self.items(windows.history_events[starts + reason])
        words = [
            self._vocabulary.encode(", ".join(self.shared.in_common(target, other)))
            for target, other in zip(targets.tolist(), reasons.tolist(), strict=True)
        ]
        eos = ragged.repeated([self._vocabulary.eos_id], len(windows))
        return ragged.join([self._sids(reasons), self._literal(self._literals[3], len(windows)), _rows(words), eos])

    @property
    def behind_reason(self) -> list[int]:
        """Tokens between the reason's Semantic ID and what is shared."""
        return self._literal(self._literals[3], 1).values.tolist()

    def _sids(self, items: np.ndarray) -> ragged.Ragged:
        sids = self._rows.items(items).sids
        assert sids is not None, "rows of items have Semantic IDs"
        return sids

    def _literal(self, template: templates.Template, count: int) -> ragged.Ragged:
        return self._renderer.render(template, templates.literal_rows(count))


def _rows(values: list[list[int]]) -> ragged.Ragged:
    return ragged.from_rows([np.array(row, np.int32) for row in values])
