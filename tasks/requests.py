"""Requests in words: a target's own attributes are what was asked for, others what was not; nobody labels a thing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl

from plum_jax import ragged
from plum_jax.corpus.schema import Corpus
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.item_attributes import attributes

Values = tuple[list[str], np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Requests:
    """What stands between a history and its target in some examples: "more Comedy", or "not Horror".

    Attributes:
      fields: columns of items, text or lists of text, one of which each request is about.
      share: of the examples that have a request; the others are as they were, so that one model serves both.
      refused: of the requests that say what the target is not: a value of the event before it that it lacks, drawn
        evenly; that is what somebody would say who has had enough of it. What it is, is drawn by -log of the share of
        the items that have it: few targets have a rare value.
      wanted_text, refused_text: how they read, {value} in the middle.
      seed: of the draws.
    """

    fields: tuple[str, ...] = ("genres",)
    share: float = 0.5
    refused: float = 0.3
    wanted_text: str = "more {value}"
    refused_text: str = "not {value}"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or not 0 <= self.refused <= 1 or not self.fields:
            raise ValueError(f"expected fields, 0 < share < 1 and 0 <= refused <= 1 of requests, got {self}")

    def wanted(self, value: str) -> str:
        """A request for a value."""
        return self.wanted_text.format(value=value)

    def refusal(self, value: str) -> str:
        """A request for anything but a value."""
        return self.refused_text.format(value=value)

    def values(self, corpus: Corpus) -> list[Values]:
        """Of each field: its values, bool [N, values] which items have which, and what each is worth, nats.

        Raises:
          ItemAttributeError: a field that the items do not have.
        """
        found = [attributes(corpus, field) for field in self.fields]
        # A value that all items have is worth nothing, and may be all that a target has.
        return [(names, has, 1e-9 - np.log(has.mean(axis=0))) for names, has in found]

    def draw(
        self, tables: Sequence[Values], items: np.ndarray, previous: np.ndarray, random: np.random.Generator
    ) -> list[str]:
        """A request for each target (int [R]) after an item before it (int [R], -1: none); "" for none.

        A target without a value of the field has none, and where nothing could be refused there is none either.
        `tables` are those of `values`, made once for all draws of a corpus.
        """
        asked, refused = random.random(len(items)) < self.share, random.random(len(items)) < self.refused
        which, place = random.integers(0, len(tables), len(items)), random.random(len(items))
        texts = []
        for row, item in enumerate(items.tolist()):
            names, has, worth = tables[which[row]]
            before = has[previous[row]] if previous[row] >= 0 else np.zeros(len(names), bool)
            valid = np.flatnonzero(before & ~has[item] if refused[row] else has[item])
            if not asked[row] or not has[item].any() or not len(valid):
                texts.append("")
                continue
            shares = np.cumsum(np.ones(len(valid)) if refused[row] else worth[valid])
            name = names[valid[np.searchsorted(shares, place[row] * shares[-1], side="right")]]
            texts.append(self.refusal(name) if refused[row] else self.wanted(name))
        return texts

    def tokens(
        self,
        tables: Sequence[Values],
        items: np.ndarray,
        previous: np.ndarray,
        vocabulary: SidVocabulary,
        random: np.random.Generator,
    ) -> ragged.Ragged:
        """`draw` as tokens, a row a target."""
        texts = self.draw(tables, items, previous, random)
        encoded = {text: np.array(vocabulary.encode(text) if text else [], np.int32) for text in {*texts}}
        return ragged.from_rows([encoded[text] for text in texts])


def with_request(prompts: pl.DataFrame, tokens: list[int]) -> pl.DataFrame:
    """Rows of `tasks.retrieval.read_prompts` whose prompts end with a request."""
    asked = pl.lit(pl.Series([tokens], dtype=pl.List(pl.Int32)))
    return prompts.with_columns(pl.concat_list(pl.col("prompt"), asked).alias("prompt"))
