"""SID-text: sentences that tie an item's Semantic ID to what is known of it (PLUM §4.1, Table 1), both ways round."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from plum_jax import ragged
from plum_jax.corpus.schema import Corpus
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks import templates
from tasks.fields import TemplateRows

if TYPE_CHECKING:
    import seqio

ITEMS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class SidText:
    """One task for each template; an item without one of a template's texts is left out of that task.

    Attributes:
      templates: task name -> item template, e.g. {"title_of_sid": "Video {sid} has title (en): {title}"}. None: both
        directions for every text field and categorical feature of the corpus.
      new_items: items that the split holds out of training are spoken of too: what is written of them is known before
        anybody has watched them.
    """

    templates: Mapping[str, str] | None = None
    new_items: bool = False

    def texts(self, corpus: Corpus) -> list[str]:
        """What the sentences read without their SIDs: the text that SentencePiece should be trained on."""
        texts: list[str] = []
        for name, text in self.chosen(corpus).items():
            fields = (templates.SID, *corpus.items.columns)
            template = templates.parse(text, where=f"item template of task {name}", fields=fields, tokens=None)
            columns = []
            for part in template.parts:
                if isinstance(part, templates.Field) and part.name != templates.SID:
                    columns.append(templates.column_text(part, corpus.items[part.name]))
                else:
                    columns.append([part.text if isinstance(part, templates.Text) else " "] * corpus.num_items)
            texts += [" ".join("".join(pieces).split()) for pieces in zip(*columns, strict=True)]
        return texts

    def tasks(
        self,
        corpus: Corpus,
        table: SidTable,
        vocabulary: SidVocabulary,
        learnt_items: np.ndarray | None = None,
        may_be_empty: bool = False,
    ) -> list[seqio.Task]:
        """The tasks, in the templates' order; loss weight 1 everywhere.

        Args:
          corpus, table, vocabulary: whose items, which IDs, what tokens.
          learnt_items: bool [N], items that may be spoken of (`Split.spoken_items`); None: all.
          may_be_empty: leave out a template that speaks of none of them: on some days few items come, or none.

        Raises:
          templates.TemplateError: an unknown field or control token.
        """
        from tasks import seqio_task  # TensorFlow's import takes seconds that only materialising should pay

        rows = TemplateRows(corpus, table, vocabulary)
        made = []
        for name, text in self.chosen(corpus).items():
            where = f"item template of task {name}"
            template = templates.parse(text, where=where, fields=rows.item_fields, tokens=vocabulary.control_tokens)
            sentences = _Sentences(template, rows, vocabulary, learnt_items)
            if may_be_empty and not len(sentences.items):
                continue
            made.append(seqio_task.sequence_task(name, sentences.sequences, vocabulary, len(sentences.items)))
        return made

    def chosen(self, corpus: Corpus) -> Mapping[str, str]:
        """The templates of a corpus, by the names of their tasks."""
        return default_templates(corpus) if self.templates is None else self.templates


def default_templates(corpus: Corpus) -> dict[str, str]:
    """PLUM's sentence and its reverse for each text field and categorical feature; texts are cut at 100 characters."""
    chosen = {}
    for field in dict.fromkeys((*corpus.text_fields, *corpus.item_features)):
        chosen[f"{field}_of_sid"] = f"Item {{sid}} has {field}: {{{field}:.100}}"
        chosen[f"sid_of_{field}"] = f"{field}: {{{field}:.100}} is item {{sid}}"
    return chosen


class _Sentences:
    """One template over all items that have its fields."""

    def __init__(
        self,
        template: templates.Template,
        rows: TemplateRows,
        vocabulary: SidVocabulary,
        learnt_items: np.ndarray | None,
    ) -> None:
        self._template = template
        self._rows = rows
        self._renderer = templates.Renderer(vocabulary)
        self._eos = [vocabulary.eos_id]
        complete = np.ones(rows.corpus.num_items, bool) if learnt_items is None else learnt_items.copy()
        for field in self._renderer.text_fields(template):
            complete &= has_text(rows.corpus.items[field])
        self.items = np.flatnonzero(complete)

    def sequences(self) -> Iterator[tuple[ragged.Ragged, ragged.Ragged]]:
        for start in range(0, len(self.items), ITEMS_AT_ONCE):
            items = self.items[start : start + ITEMS_AT_ONCE]
            sentence = self._renderer.render(self._template, self._rows.items(items))
            tokens = ragged.join([sentence, ragged.repeated(self._eos, len(items))])
            yield tokens, ragged.Ragged(np.ones(len(tokens.values), np.float32), tokens.lengths)


def has_text(column: pl.Series) -> np.ndarray:
    """Rows (bool) whose value is there and not blank."""
    if isinstance(column.dtype, pl.List):
        return (column.list.len().fill_null(0) > 0).to_numpy()
    if column.dtype == pl.String:
        return (column.fill_null("").str.strip_chars().str.len_bytes() > 0).to_numpy()
    return column.is_not_null().to_numpy()
