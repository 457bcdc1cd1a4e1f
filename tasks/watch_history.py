"""Watch-history: what users watched, in order, with how they engaged (PLUM §4.1, Table 1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from plum_jax import ragged
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.histories import HistoryRenderer, HistoryTemplates, Slider

if TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class WatchHistory:
    """Next-token prediction on training histories: loss weight 1 on every token.

    Of windows with events that a run before has learnt (`Split.before`), the Semantic IDs of the others weigh, the
    target and the EOS.

    Attributes:
      name: of the task.
      templates: how a window reads.
      history_length: events before the last one, at most; longer histories become several windows.
      stride: events from one window's end to the next one's; None: `history_length`, so that windows hardly overlap.
    """

    templates: HistoryTemplates = HistoryTemplates()
    history_length: int = 20
    stride: int | None = None
    name: str = "watch_history"

    def task(self, split: Split, table: SidTable, vocabulary: SidVocabulary) -> seqio.Task:
        """The task, over training events only.

        Raises:
          LeakError: one of them is held out.
          templates.TemplateError: an unknown field or control token.
        """
        from tasks import seqio_task  # TensorFlow's import takes seconds that only materialising should pay

        renderer = HistoryRenderer(self.templates, split, table, vocabulary, self.name)
        slider = Slider(self.history_length, self.stride or self.history_length)
        eos = [vocabulary.eos_id]

        def sequences() -> Iterator[tuple[ragged.Ragged, ragged.Ragged]]:
            for windows in slider.windows(split, self.name):
                prompt, new = renderer.prompt(windows, windows.learnt.astype(np.float32))
                rest = ragged.join([renderer.target(windows), ragged.repeated(eos, len(windows))])
                weights = _ones(prompt) if split.before is None else new
                yield ragged.join([prompt, rest]), ragged.join([weights, _ones(rest)])

        return seqio_task.sequence_task(self.name, sequences, vocabulary, slider.count(split, self.name))


def _ones(tokens: ragged.Ragged) -> ragged.Ragged:
    return ragged.Ragged(np.ones(len(tokens.values), np.float32), tokens.lengths)
