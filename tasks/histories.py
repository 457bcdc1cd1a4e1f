"""Histories: windows of a user's events and how they read, one code path for training and for evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from plum_jax import ragged
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks import templates
from tasks.fields import TemplateRows

WINDOWS_AT_ONCE = 4096
LAYOUT_FIELDS = ("history", "user", "context", "target")


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """R pieces of history, each with the event that follows it.

    Attributes:
      user: int32 [R].
      target_event: int64 [R], rows of `corpus.events`.
      history_events: int64 [sum of lengths], rows of `corpus.events`, oldest first.
      lengths: int64 [R], number of events in each history.
      learnt: bool [sum of lengths]: history events that are predicted in this window from what precedes them.
    """

    user: np.ndarray
    target_event: np.ndarray
    history_events: np.ndarray
    lengths: np.ndarray
    learnt: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def last_events(self) -> np.ndarray:
        """int64 [R], rows of `corpus.events`: the newest event of each history; -1 where it is empty."""
        last = np.full(len(self), -1, np.int64)
        there = self.lengths > 0
        last[there] = self.history_events[np.cumsum(self.lengths)[there] - 1]
        return last

    def take(self, rows: np.ndarray) -> Windows:
        """Some of the pieces (int [n], in any order, also more than once)."""
        lengths = self.lengths[rows]
        first = (np.cumsum(self.lengths) - self.lengths)[rows]
        positions = np.arange(lengths.sum()) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
        return Windows(
            user=self.user[rows],
            target_event=self.target_event[rows],
            history_events=self.history_events[positions],
            lengths=lengths,
            learnt=self.learnt[positions],
        )


@dataclasses.dataclass(frozen=True)
class Slider:
    """Cuts training histories into windows, from the newest event back.

    Events that a run before has learnt (`Split.before`) are in the histories and are not predicted.

    Attributes:
      history_length: events before the target, at most.
      stride: a further window ends this many events earlier, while there are events that no window has predicted.
      minimum_history: an event with fewer events before it is not predicted.
      every_prefix: history events are predicted too, each in the one window where it has most history; so a history
        that fits one window is one record, not one for every prefix.
      max_windows: of a user, the newest; None: all.
    """

    history_length: int
    stride: int
    minimum_history: int = 1
    every_prefix: bool = True
    max_windows: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.history_length or self.minimum_history < 0:
            raise ValueError(
                f"expected 1 <= stride <= history_length and minimum_history >= 0, got {self.stride=} "
                f"{self.history_length=} {self.minimum_history=}"
            )
        if self.max_windows is not None and self.max_windows < 1:
            raise ValueError(f"expected {self.max_windows=} to be 1 or more, or None for all windows")

    def bounds(self, num_events: int, learnt_before: int = 0) -> list[tuple[int, int, int]]:
        """(first, target, learnt_from), positions among a user's events: history [first, target), learnt from there.

        The first `learnt_before` events are predicted by no window.
        """
        windows: list[tuple[int, int, int]] = []
        target, least = num_events - 1, max(self.minimum_history, learnt_before)
        while target >= least and (self.max_windows is None or len(windows) < self.max_windows):
            first = max(0, target - self.history_length)
            last = first == 0 and self.every_prefix
            learnt_from = least if last else max(target - self.stride + 1, least)
            windows.append((first, target, learnt_from if self.every_prefix else target))
            if last:
                break
            target -= self.stride
        return windows

    def windows(self, split: Split, used_by: str) -> Iterator[Windows]:
        """Windows over the training events, `WINDOWS_AT_ONCE` at a time; a leak is an error that names `used_by`."""
        rows, starts = self._training_rows(split, used_by)
        user_of = split.corpus.events["user"].to_numpy()
        waiting: list[tuple[int, int, int]] = []
        histories = np.stack([starts[:-1], np.diff(starts), split.learnt_before(rows, starts)], axis=1)
        for start, length, before in histories.tolist():
            bounds = self.bounds(length, before)
            waiting += [(start + first, start + target, start + learnt) for first, target, learnt in bounds]
            if len(waiting) >= WINDOWS_AT_ONCE:
                yield self._gather(waiting, rows, user_of)
                waiting = []
        if waiting:
            yield self._gather(waiting, rows, user_of)

    def count(self, split: Split, used_by: str) -> int:
        """Number of windows that `windows` gives."""
        rows, starts = self._training_rows(split, used_by)
        histories = np.stack([np.diff(starts), split.learnt_before(rows, starts)], axis=1)
        kinds, users = np.unique(histories, axis=0, return_counts=True)
        return sum(len(self.bounds(*kind)) * count for kind, count in zip(kinds.tolist(), users.tolist(), strict=True))

    def _training_rows(self, split: Split, used_by: str) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `corpus.events` that train, and where in them each user's begin (with the end)."""
        events = split.training_events()
        split.check_no_leak(events, used_by=used_by)
        starts = np.flatnonzero(np.diff(events["user"].to_numpy(), prepend=-1))
        return events["event"].to_numpy(), np.append(starts, events.height)

    def _gather(self, bounds: list[tuple[int, int, int]], rows: np.ndarray, user_of: np.ndarray) -> Windows:
        first, target, learnt_from = np.array(bounds).T
        lengths = target - first
        positions = np.arange(lengths.sum()) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)
        return Windows(
            user=user_of[rows[target]],
            target_event=rows[target],
            history_events=rows[positions],
            lengths=lengths,
            learnt=positions >= np.repeat(learnt_from, lengths),
        )


def evaluation_windows(evaluation: EvaluationSet, history_length: int) -> Iterator[Windows]:
    """The newest `history_length` events of each evaluated user, `WINDOWS_AT_ONCE` users at a time."""
    for start in range(0, len(evaluation), WINDOWS_AT_ONCE):
        chosen = slice(start, start + WINDOWS_AT_ONCE)
        ends = evaluation.history_offsets[1:][chosen]
        lengths = np.minimum(ends - evaluation.history_offsets[:-1][chosen], history_length)
        positions = np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)
        yield Windows(
            user=evaluation.user[chosen],
            target_event=evaluation.target_event[chosen],
            history_events=evaluation.history_events[positions],
            lengths=lengths,
            learnt=np.zeros(len(positions), bool),
        )


@dataclasses.dataclass(frozen=True)
class HistoryTemplates:
    """How a window reads.

    Attributes:
      layout: the whole: {history}, {user}, {context}, and {target} at its end.
      event: one event of the history; fields of events and of their items.
      target: the event to be predicted; the same fields.
      user: fields of users.
      context: context features of the request, and fields of the item watched last (the context video).
    """

    layout: str = "<history> {history} {target}"
    event: str = "{sid}"
    target: str = "{sid}"
    user: str = ""
    context: str = ""


class HistoryRenderer:
    """Renders windows as prompts and targets with parsed templates."""

    def __init__(
        self, texts: HistoryTemplates, split: Split, table: SidTable, vocabulary: SidVocabulary, used_by: str
    ) -> None:
        self._rows = TemplateRows(split.corpus, table, vocabulary)
        self._renderer = templates.Renderer(vocabulary)
        self._vocabulary = vocabulary
        rows, tokens = self._rows, vocabulary.control_tokens

        def parse(part: str, fields: tuple[str, ...]) -> templates.Template:
            where = f"{part} template of task {used_by}"
            return templates.parse(getattr(texts, part), where=where, fields=fields, tokens=tokens)

        self._event, self._target = parse("event", rows.event_fields), parse("target", rows.target_fields)
        self._user, self._context = parse("user", rows.user_fields), parse("context", rows.context_fields)
        layout = parse("layout", LAYOUT_FIELDS)
        if layout.fields.count("target") != 1 or layout.parts[-1] != templates.Field("target"):
            raise templates.TemplateError(
                f"layout template of task {used_by}: {texts.layout!r} must end with {{target}}, once: the prompt is "
                "all that stands before it"
            )
        self._layout = _split_layout(layout)

    def prompt(self, windows: Windows, event_weights: np.ndarray) -> tuple[ragged.Ragged, ragged.Ragged]:
        """Tokens before the target, and the loss weights of those tokens.

        Args:
          windows: R windows.
          event_weights: float [sum of lengths]: loss weight of each history event's SID tokens; all else has 0.
        """
        parts, weights = [ragged.repeated([], len(windows))], [ragged.repeated([], len(windows), np.float32)]
        for part in self._layout:
            if part == "history":
                events = self._events(windows)
                parts.append(events.grouped(windows.lengths))
                values = self.sid_weights(events, event_weights).values
            else:
                parts.append(self._section(part, windows))
                values = np.zeros(len(parts[-1].values), np.float32)
            weights.append(ragged.Ragged(values, parts[-1].lengths))
        return ragged.join(parts), ragged.join(weights)

    def prompt_after(self, items: np.ndarray) -> ragged.Ragged:
        """Tokens before the target for a history of one item, for nobody in particular, int32 [R rows].

        What the templates say of users, and what only a watch or a request could say, is missing, as it is for users
        who have told nothing: missing text is left out, a missing field token is <name:none>.
        """
        parts = [ragged.repeated([], len(items))]
        for part in self._layout:
            if isinstance(part, templates.Template):
                rows, template = templates.literal_rows(len(items)), part
            elif part == "history":
                rows, template = self._rows.unpersonal_events(items), self._event
            elif part == "user":
                rows, template = self._rows.unknown_users(len(items)), self._user
            else:
                rows, template = self._rows.unpersonal_contexts(items), self._context
            parts.append(self._renderer.render(template, rows))
        return ragged.join(parts)

    def frame(self) -> tuple[list[int], list[int]] | None:
        """Tokens before and after the history, where prompts differ in the history's Semantic IDs alone; else None."""
        sections = {"user": self._user, "context": self._context}
        if self._event.parts != (templates.Field(templates.SID),) or self._layout.count("history") != 1:
            return None
        ends: tuple[list[int], list[int]] = ([], [])
        behind = False
        for part in self._layout:
            if part == "history":
                behind = True
                continue
            template = part if isinstance(part, templates.Template) else sections[part]
            if not isinstance(part, templates.Template) and template.fields:
                return None
            rendered = self._renderer.render(template, templates.literal_rows(1))
            ends[behind].extend(rendered.values.tolist())
        return ends

    def target(self, windows: Windows) -> ragged.Ragged:
        """Tokens of the target, without EOS."""
        return self._renderer.render(self._target, self._rows.events(windows.target_event))

    def sid_weights(self, tokens: ragged.Ragged, row_weights: np.ndarray) -> ragged.Ragged:
        """Weight row_weights[r] (float [R]) on the SID tokens of row r, 0 on its other tokens."""
        weights = np.where(self._vocabulary.is_sid(tokens.values), np.repeat(row_weights, tokens.lengths), 0)
        return ragged.Ragged(weights.astype(np.float32), tokens.lengths)

    def _section(self, part: templates.Template | str, windows: Windows) -> ragged.Ragged:
        if isinstance(part, templates.Template):  # literal text or a control token
            return self._renderer.render(part, templates.literal_rows(len(windows)))
        if part == "user":
            return self._renderer.render(self._user, self._rows.users(windows.user))
        last = windows.last_events()
        last_items = np.where(last >= 0, self._rows.corpus.events["item"].to_numpy()[last], -1)
        return self._renderer.render(self._context, self._rows.contexts(windows.target_event, last_items))

    def _events(self, windows: Windows) -> ragged.Ragged:
        final = None
        if self._rows.corpus.clock != "order" and len(windows.history_events):
            newest = np.maximum(np.cumsum(windows.lengths) - 1, 0)
            time = self._rows.corpus.events["time"].to_numpy()
            final = np.repeat(time[windows.history_events[newest]], windows.lengths)
        return self._renderer.render(self._event, self._rows.events(windows.history_events, final))


def _split_layout(layout: templates.Template) -> tuple[templates.Template | str, ...]:
    """The layout before {target}, as literal templates and names of sections."""
    parts: list[templates.Template | str] = []
    for part in layout.parts[:-1]:
        parts.append(part.name if isinstance(part, templates.Field) else templates.Template(layout.text, (part,)))
    return tuple(parts)
