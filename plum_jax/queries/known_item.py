"""Queries for events that have none: words of the item that was taken, drawn as a user would draw them."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from plum_jax.corpus.features.text import item_texts
from plum_jax.corpus.schema import Corpus
from plum_jax.queries.words import KnownWords, inverse_frequency, words_of

NO_QUERY = -1
_NO_WORD = re.compile(r"\d*|.")  # sizes and single letters say nothing


@dataclasses.dataclass(frozen=True, eq=False)
class EventQueries:
    """Attributes:
    texts: Q distinct queries, sorted: words with spaces between.
    of_event: int32 [E], the query of each event; `NO_QUERY`: its item has no words.
    """

    texts: tuple[str, ...]
    of_event: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ItemWords:
    """What queries are drawn from.

    Attributes:
      known: the words of all items.
      numbers: int32 [N, W], each item's words in the text's order, 0 behind the last.
      weight: float32 [known.size], how much a word of an item speaks for being drawn.
      frequency: float64 [known.size], shares of the words that replace others.
    """

    known: KnownWords
    numbers: np.ndarray
    weight: np.ndarray
    frequency: np.ndarray


@dataclasses.dataclass(frozen=True)
class KnownItemQueries:
    """Simulated queries for known items (Azzopardi, de Rijke & Balog, SIGIR 2007, section 3, "popularity and
    discrimination").

    A user who takes an item has searched with a few different words of its text, drawn in proportion to tf * log(N /
    df) over the items' texts, tf being 1 here, for words that stand there; each is with probability `noise` replaced by
    one of the whole collection, in proportion to how often it is there (the paper's lambda). The words stand in the
    text's order, so that queries repeat. Deviations: the length is 1 to 3 by `lengths`, where the paper draws it from a
    Poisson distribution; words are drawn without replacement.

    Attributes:
      fields: text of items that words are drawn from.
      lengths: probability of 1, 2, ... words.
      noise: probability of a word that is not the item's.
      seed: of the draw, the same for all seeds of a study, so that their figures are of one set of queries.
    """

    fields: tuple[str, ...]
    lengths: tuple[float, ...] = (0.4, 0.4, 0.2)
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("fields", "lengths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if abs(sum(self.lengths) - 1) > 1e-6 or min(self.lengths) < 0 or not 0 <= self.noise <= 1:
            raise ValueError(f"expected lengths that add to 1 and a noise of 0 to 1, got {self.lengths}, {self.noise}")

    def of(self, corpus: Corpus) -> EventQueries:
        """A query for each event."""
        return self.for_items(corpus, corpus.events["item"].to_numpy(), "events")

    def for_items(self, corpus: Corpus, items: np.ndarray, drawn_for: str) -> EventQueries:
        """A query for each of some items int [E], repeats allowed; `drawn_for` names the draw, part of its seed.

        Raises:
          ValueError: no item has a word.
        """
        of_items = self.words(corpus)
        random = np.random.default_rng([self.seed, *drawn_for.encode()])
        drawn = self._draw(of_items, items, random)
        rows, of_row = np.unique(drawn, axis=0, return_inverse=True)
        words = np.array(["", *of_items.known.words], object)
        made = [" ".join(dict.fromkeys(words[word] for word in row if word)) for row in rows]
        unique = tuple(sorted({text for text in made if text}))
        number = {text: place for place, text in enumerate(unique)}
        of_row_number = np.array([number.get(text, NO_QUERY) for text in made], np.int32)
        return EventQueries(unique, of_row_number[of_row])

    def words(self, corpus: Corpus) -> ItemWords:
        """What queries are drawn from.

        Raises:
          ValueError: no item has a word.
        """
        texts = [
            " ".join(word for word in words_of(text) if not _NO_WORD.fullmatch(word))
            for text in item_texts(corpus, self.fields, "queries")
        ]
        known = KnownWords.of(texts, ())
        if not known.words:
            raise ValueError(f"no item of corpus {corpus.name!r} has a word in {self.fields} to search with")
        numbers = known.numbers(texts, max(len(text.split()) for text in texts))
        frequency = np.bincount(numbers.ravel(), minlength=known.size).astype(np.float64)
        frequency[0] = 0.0
        return ItemWords(known, numbers, inverse_frequency(numbers, known.size), frequency / frequency.sum())

    def _draw(self, words: ItemWords, items: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """int32 [E, L] words of each event's query in the text's order, 0 where it has fewer."""
        of_items = words.numbers[items]
        real = of_items > 0
        # Gumbel's trick: the greatest of log weight + noise are a draw without replacement.
        noisy = np.log(np.maximum(words.weight[of_items], 1e-9)) + random.gumbel(size=of_items.shape)
        order = np.argsort(np.where(real, -noisy, np.inf), axis=1, kind="stable")[:, : len(self.lengths)]
        wanted = 1 + random.choice(len(self.lengths), size=len(items), p=np.array(self.lengths) / sum(self.lengths))
        kept = np.arange(order.shape[1]) < np.minimum(wanted, real.sum(axis=1))[:, None]
        places = np.sort(np.where(kept, order, of_items.shape[1]), axis=1)
        padded = np.pad(of_items, ((0, 0), (0, 1)))
        drawn = np.take_along_axis(padded, places, axis=1)
        others = random.choice(words.known.size, size=drawn.shape, p=words.frequency).astype(np.int32)
        return np.where((drawn > 0) & (random.random(drawn.shape) < self.noise), others, drawn)
