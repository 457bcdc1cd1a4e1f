"""What may follow: words as they come, and inside a Semantic ID only codes that some item's ID goes on with."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary


@dataclasses.dataclass(frozen=True)
class Place:
    """Inside a Semantic ID: rows first..last - 1 of the sorted IDs begin with the codes so far.

    Attributes:
      first, last: rows of `SidIndex.sids`.
      level: codes so far.
    """

    first: int
    last: int
    level: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Grammar:
    """Which tokens may come next.

    Attributes:
      vocabulary: of the tokens.
      table: its IDs are the only ones that are written.
    """

    vocabulary: SidVocabulary
    table: SidTable

    @property
    def root(self) -> Place:
        """No code so far."""
        return Place(0, len(self.table.items_of_sid().sids))

    @functools.cached_property
    def words(self) -> np.ndarray:
        """bool [V]: text pieces and the end, without what pads or stands for the unknown."""
        return self._below(self.vocabulary.num_pieces)

    @functools.cached_property
    def anything(self) -> np.ndarray:
        """bool [V]: words, control and field tokens, and the first code of an ID."""
        return self._below(self.vocabulary.sid_offset) | self.codes(self.root)

    def _below(self, token: int) -> np.ndarray:
        """bool [V]: the tokens below one, and the end, without what pads or stands for the unknown."""
        vocabulary = self.vocabulary
        allowed = np.arange(vocabulary.vocab_size) < token
        allowed[[vocabulary.pad_id, vocabulary.start_id, vocabulary.unk_id]] = False
        allowed[vocabulary.eos_id] = True
        return allowed

    def codes(self, place: Place) -> np.ndarray:
        """bool [V]: the codes that an ID may go on with."""
        sids = self.table.items_of_sid().sids
        allowed = np.zeros(self.vocabulary.vocab_size, bool)
        allowed[self.vocabulary.sid_offsets[place.level] + sids[place.first : place.last, place.level]] = True
        return allowed

    def after(self, place: Place | None, token: int) -> Place | None:
        """Where one is after a token; None: outside of IDs."""
        if place is None:
            if not self.vocabulary.is_sid(token):
                return None
            place = self.root
        sids, level = self.table.items_of_sid().sids, place.level
        column = sids[place.first : place.last, level]
        code = token - int(self.vocabulary.sid_offsets[level])
        first, last = (place.first + int(np.searchsorted(column, code, side)) for side in ("left", "right"))
        return None if level + 1 == self.table.num_levels else Place(first, last, level + 1)
