"""Masked watches: some items of a history are hidden, and asked for at its end (YouTube's talk on LRM, CPT part 2)."""

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

if TYPE_CHECKING:
    import seqio

FIELDS = ("history", "masked")


@dataclasses.dataclass(frozen=True)
class MaskedHistory:
    """Histories in which a share of the events reads as a mask, and behind them the Semantic IDs of those, in order.

        <history> A1 B4 <mask> A7 B2 <mask> A1 B9 <target> A3 B3 A1 B4

    A decoder sees nothing to its right, so the answers stand at the end, where the whole history is before them. Loss
    weight 1 on the answers and EOS, 0 on the rest, which `WatchHistory` has already.

    Attributes:
      layout: the whole: {history}, then {masked} at its end.
      event: one event of the history that is shown; fields of events and of their items.
      mask: what stands for one that is hidden: a control token of the vocabulary, or words.
      share: of a window's events, each hidden by itself; a window without a hidden one hides its newest but one.
      history_length: events of a window.
      seed: of the draws.
      name: of the task.
    """

    kind: ClassVar[str] = "behaviour"
    layout: str = "<history> {history} <target> {masked}"
    event: str = "{sid}"
    mask: str = "<mask>"
    share: float = 0.15
    history_length: int = 20
    seed: int = 0
    name: str = "masked_history"

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(
                f"task {self.name}: expected a share of masked events above 0 and below 1, got {self.share}"
            )

    def texts(self, corpus: Corpus) -> list[str]:
        """Words that pieces of text should be trained on: none, for they are few."""
        del corpus
        return []

    def tasks(self, split: Split, table: SidTable, vocabulary: SidVocabulary, length: int) -> list[seqio.Task]:
        """The task, over training events only.

        Raises:
          LeakError: one of them is held out.
          templates.TemplateError: an unknown field or control token, or a layout that does not end with {masked}.
        """
        del length
        from tasks import seqio_task  # TensorFlow's import takes seconds that only materialising should pay

        rows, tokens = TemplateRows(split.corpus, table, vocabulary), vocabulary.control_tokens
        renderer = templates.Renderer(vocabulary)

        def parse(part: str, fields: tuple[str, ...]) -> templates.Template:
            where = f"{part} template of task {self.name}"
            return templates.parse(getattr(self, part), where=where, fields=fields, tokens=tokens)

        event, mask = parse("event", rows.target_fields), parse("mask", ())
        where = f"layout template of task {self.name}"
        before, between = templates.literals_before(parse("layout", FIELDS), FIELDS, where)
        slider = Slider(self.history_length, self.history_length)

        def literal(template: templates.Template, count: int) -> ragged.Ragged:
            return renderer.render(template, templates.literal_rows(count))

        def sequences() -> Iterator[tuple[ragged.Ragged, ragged.Ragged]]:
            random = np.random.default_rng(self.seed)
            for windows in slider.windows(split, self.name):
                events, counts = _with_target(windows)
                hidden = _hidden(random, counts, self.share)
                shown = _chosen(renderer.render(event, rows.events(events)), literal(mask, len(events)), hidden)
                answers = renderer.render(
                    templates.Template("", (templates.Field(templates.SID),)), rows.events(events)
                )
                answers = _kept(answers, hidden).grouped(counts)
                count = len(counts)
                prompt = ragged.join([literal(before, count), shown.grouped(counts), literal(between, count)])
                told = ragged.join([answers, ragged.repeated([vocabulary.eos_id], count)])
                yield answered(prompt, told)

        return [seqio_task.sequence_task(self.name, sequences, vocabulary, slider.count(split, self.name))]


def _with_target(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all events of the windows, the one that follows last, and how many each window has."""
    counts = windows.lengths + 1
    ends = np.cumsum(counts)
    events = np.empty(int(counts.sum()), np.int64)
    last = np.zeros(len(events), bool)
    last[ends - 1] = True
    events[last], events[~last] = windows.target_event, windows.history_events
    return events, counts


def _hidden(random: np.random.Generator, counts: np.ndarray, share: float) -> np.ndarray:
    """bool [events]: which are hidden, one of each window at least and one shown at least."""
    hidden = random.random(int(counts.sum())) < share
    ends = np.cumsum(counts)
    per_window = np.add.reduceat(hidden, ends - counts)
    hidden[(ends - 2)[per_window == 0]] = True  # a window has two events at least: its target, and one before it
    hidden[(ends - 1)[per_window == counts]] = False
    return hidden


def _chosen(shown: ragged.Ragged, mask: ragged.Ragged, hidden: np.ndarray) -> ragged.Ragged:
    """Row by row the mask where an event is hidden."""
    return ragged.join([_kept(shown, ~hidden), _kept(mask, hidden)])


def _kept(rows: ragged.Ragged, wanted: np.ndarray) -> ragged.Ragged:
    """The rows that are wanted; the others are empty."""
    return ragged.Ragged(rows.values[np.repeat(wanted, rows.lengths)], np.where(wanted, rows.lengths, 0))
