"""How true a model's words are: words written of an item by its Semantic ID, against the item's own and another's."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from plum_jax.corpus.schema import Corpus
from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.language.generation import Generation, LanguageModel
from plum_jax.language.prompts import Prompt
from plum_jax.ragged import Ragged
from tasks import templates
from tasks.fields import TemplateRows

SHUFFLES = 20  # other items that the words of each are held against
_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True, eq=False)
class WordMatch:
    """Prompts that ask for a text field of an item whose ID is given, in whole or in part, and the words that came.

    A score is the share of the (different) words written that the item's field has; 0 where nothing was written. Beside
    it the same words against the fields of other items, so that what is said of every film counts for nothing.

    Attributes:
      corpus: whose items are described.
      sentences: task name -> item template; those that have {sid} first and a text field at the end are asked.
      items: int [n], which.
      max_tokens: of an answer.
      seed: which other items.
    """

    corpus: Corpus
    sentences: Mapping[str, str]
    items: np.ndarray
    max_tokens: int = 16
    seed: int = 0

    def judge(self, model: LanguageModel) -> list[dict[str, Any]]:
        """One row a template and number of codes given: "field", "level", "items", "match", "shuffled", and the
        difference with its 95% interval over items (paired bootstrap): "lift", "lift_low", "lift_high".
        """
        rows = []
        for field, answers in self.answers(model).items():
            own = [words(text) for text in self._texts(field)]
            for level, written in enumerate(answers, 1):
                said = [words(text) for text in written]
                match = np.array([_share(of, item) for of, item in zip(said, own, strict=True)])
                shuffled = self._shuffled(said, own)
                lift = paired_bootstrap(match, shuffled)
                row = {"field": field.name, "level": level, "items": len(self.items)}
                row |= {"match": float(match.mean()), "shuffled": float(shuffled.mean())}
                rows.append(row | lift.named("lift"))
        return rows

    def answers(self, model: LanguageModel) -> dict[templates.Field, list[list[str]]]:
        """For each field asked, for each number of codes given (1..L), what was written of each item."""
        vocabulary = model.vocabulary
        rows = TemplateRows(self.corpus, model.table, vocabulary)
        renderer = templates.Renderer(vocabulary)
        generation = Generation(max_tokens=self.max_tokens, words_only=True)
        found: dict[templates.Field, list[list[str]]] = {}
        for name, text in self.sentences.items():
            template = templates.parse(
                text, where=f"item template of task {name}", fields=rows.item_fields, tokens=vocabulary.control_tokens
            )
            field = _asked(template, renderer)
            if field is None or field in found:
                continue
            before = templates.Template(text, template.parts[:-1])
            prompts = []
            for level in range(1, model.table.num_levels + 1):
                of_items = rows.items(self.items)
                assert of_items.sids is not None
                codes = of_items.sids.values.reshape(len(self.items), -1)[:, :level]
                part = Ragged(codes.reshape(-1), np.full(len(codes), level))
                rendered = renderer.render(before, dataclasses.replace(of_items, sids=part))
                prompts += [Prompt(text, tuple(tokens.tolist())) for tokens in rendered.rows()]
            written = [one.text for (one,) in model.generate(prompts, generation, f"writing {field.name}")]
            count = len(self.items)
            found[field] = [written[start : start + count] for start in range(0, len(written), count)]
        return found

    def _texts(self, field: templates.Field) -> list[str]:
        return templates.column_text(field, self.corpus.items[field.name].gather(self.items))

    def _shuffled(self, said: list[frozenset[str]], own: list[frozenset[str]]) -> np.ndarray:
        """float [n]: each item's words against those of others, a mean; no item meets itself."""
        random, count = np.random.default_rng(self.seed), len(own)
        if count < 2:
            return np.zeros(count)
        totals = np.zeros(count)
        for _ in range(SHUFFLES):
            order = random.permutation(count)
            other = np.empty(count, np.int64)
            other[order] = np.roll(order, random.integers(1, count))
            totals += [_share(of, own[place]) for of, place in zip(said, other, strict=True)]
        return totals / SHUFFLES


@functools.lru_cache(maxsize=1 << 16)
def words(text: str) -> frozenset[str]:
    """The different words of a text, in lower case."""
    return frozenset(_WORD.findall(text.casefold()))


def _share(said: frozenset[str], own: frozenset[str]) -> float:
    return len(said & own) / len(said) if said else 0.0


def _asked(template: templates.Template, renderer: templates.Renderer) -> templates.Field | None:
    """The text field that ends a template which has {sid} before it; None: it asks for nothing of the kind."""
    last, fields = template.parts[-1], template.fields
    is_text = isinstance(last, templates.Field) and last in renderer.text_parts(template)
    return last if is_text and fields == (templates.SID, last.name) else None  # type: ignore[union-attr, return-value]


def match_figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Figures of a metrics row: "match_title_level_3", with "_shuffled", "_lift", "_lift_low" and "_lift_high"."""
    figures = {}
    for row in rows:
        name = f"match_{row['field']}_level_{row['level']}"
        figures[name] = row["match"]
        figures |= {f"{name}_{part}": row[part] for part in ("shuffled", "lift", "lift_low", "lift_high")}
    return figures
