"""Two Semantic IDs in a sentence: items that the same people take one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl

from plum_jax import ragged
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks import templates
from tasks.fields import TemplateRows
from tasks.sid_text import has_text

if TYPE_CHECKING:
    import seqio

PAIRS_AT_ONCE = 4096
DEFAULT = {"next_of_sid": "After item {sid} people take item {other_sid}"}


@dataclasses.dataclass(frozen=True)
class SidPairs:
    """One task for each template, over pairs of items that are neighbours in training histories.

    A field of the second item has "other_" before its name: "{title} goes with {other_title}: {sid} {other_sid}".
    Loss weight 1 everywhere; a pair without one of a template's texts is left out of that task.

    Attributes:
      templates: task name -> template.
      most: pairs of an item as the first, the most frequent; equally frequent ones in the order of the items.
    """

    kind: ClassVar[str] = "metadata"
    templates: Mapping[str, str] = dataclasses.field(default_factory=lambda: DEFAULT)
    most: int = 5

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"expected {self.most=} pairs of an item to be 1 or more")

    def texts(self, corpus: Corpus) -> list[str]:
        """The sentences' own words; what the fields say is `SidText`'s."""
        del corpus
        return [
            " ".join(part for part in text.replace("{", " {").split() if "{" not in part)
            for text in self.templates.values()
        ]

    def tasks(self, split: Split, table: SidTable, vocabulary: SidVocabulary, length: int) -> list[seqio.Task]:
        """The tasks, in the templates' order.

        Raises:
          LeakError: a pair is of held-out events.
          templates.TemplateError: an unknown field or control token.
        """
        del length
        from tasks import seqio_task  # TensorFlow's import takes seconds that only materialising should pay

        rows = TemplateRows(split.corpus, table, vocabulary)
        pairs = neighbours(split, self.most)
        made = []
        for name, text in self.templates.items():
            template = templates.parse(
                text,
                where=f"pair template of task {name}",
                fields=rows.item_fields,
                other_fields=rows.item_fields,
                tokens=vocabulary.control_tokens,
            )
            sentences = _Sentences(template, rows, vocabulary, pairs)
            made.append(seqio_task.sequence_task(name, sentences.sequences, vocabulary, len(sentences.pairs)))
        return made


def neighbours(split: Split, most: int) -> np.ndarray:
    """int64 [P, 2]: of each item the `most` items that most often follow it in training histories, never itself.

    Raises:
      LeakError: an event is held out.
    """
    events = split.training_events()
    split.check_no_leak(events, used_by="pairs of items")
    user, item = (events[name].to_numpy() for name in ("user", "item"))
    follows = (user[1:] == user[:-1]) & (item[1:] != item[:-1])
    pairs = pl.DataFrame({"first": item[:-1][follows], "second": item[1:][follows]})
    counted = pairs.group_by("first", "second").len().sort(["first", "len", "second"], descending=[False, True, False])
    return (
        counted.group_by("first", maintain_order=True).head(most).select("first", "second").to_numpy().astype(np.int64)
    )


class _Sentences:
    """One template over all pairs that have its fields."""

    def __init__(
        self, template: templates.Template, rows: TemplateRows, vocabulary: SidVocabulary, pairs: np.ndarray
    ) -> None:
        self._template, self._rows = template, rows
        self._renderer = templates.Renderer(vocabulary)
        self._eos = [vocabulary.eos_id]
        complete = np.ones(len(pairs), bool)
        for field in self._renderer.text_parts(template):
            complete &= has_text(rows.corpus.items[field.name])[pairs[:, int(field.other)]]
        self.pairs = pairs[complete]

    def sequences(self) -> Iterator[tuple[ragged.Ragged, ragged.Ragged]]:
        for start in range(0, len(self.pairs), PAIRS_AT_ONCE):
            first, second = self.pairs[start : start + PAIRS_AT_ONCE].T
            rows = dataclasses.replace(self._rows.items(first), other=self._rows.items(second))
            sentence = self._renderer.render(self._template, rows)
            tokens = ragged.join([sentence, ragged.repeated(self._eos, len(first))])
            yield tokens, ragged.Ragged(np.ones(len(tokens.values), np.float32), tokens.lengths)
