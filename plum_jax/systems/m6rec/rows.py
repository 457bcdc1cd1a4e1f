"""Texts as rows of tokens, each token with its side and its segment."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from plum_jax.systems.m6rec.writer import Text
from plum_jax.text.files import TextPieces

# Behind the pieces' ids, in this order: begin and end of the user side, of the candidate side, and what was left out.
SPECIAL = ("user_begin", "user_end", "begin", "end", "mask")
MASK = "<mask>"  # a segment that was left out, in texts
NOTHING, USER, CANDIDATE = 0, 1, 2  # sides
# Segments by number: those of the candidate side from its beginning, those of the user side from its end, so that a
# segment has the same number beside a long history and a short one. The last one is that of soft prompts.
CANDIDATE_SEGMENTS, USER_SEGMENTS = 8, 56
PROMPT_SEGMENT, NUM_SEGMENTS = CANDIDATE_SEGMENTS + USER_SEGMENTS, CANDIDATE_SEGMENTS + USER_SEGMENTS + 1


class TextRows(NamedTuple):
    """Texts, one a row, all int32 [n, T] and 0 behind the text.

    Attributes:
      tokens: pieces, and `SPECIAL` behind them.
      side: `USER`, then `CANDIDATE`, then `NOTHING`.
      segment: number.
    """

    tokens: np.ndarray
    side: np.ndarray
    segment: np.ndarray

    def columns(self, prefix: str = "") -> Mapping[str, np.ndarray]:
        """As columns of a batch."""
        return {f"{prefix}{name}": values for name, values in self._asdict().items()}

    def of(self, rows: np.ndarray | slice) -> TextRows:
        """Some of them."""
        return TextRows(*(values[rows] for values in self))


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """Texts to rows.

    Attributes:
      pieces: of words.
      vocab_size: V; special ids are behind.
      length: T. Of a longer text the oldest behaviours are left out.
    """

    pieces: TextPieces
    vocab_size: int
    length: int

    def special(self, name: str) -> int:
        """The id of one of `SPECIAL`."""
        return self.vocab_size + SPECIAL.index(name)

    @functools.cached_property
    def _known(self) -> dict[str, list[int]]:
        return {}

    def segment(self, text: str) -> list[int]:
        """Ids of one segment; `MASK` is what was left out."""
        if text not in self._known:
            self._known[text] = [self.special("mask")] if text == MASK else self.pieces.encode(text)
        return self._known[text]

    def count(self, text: Text) -> int:
        """Tokens of a whole text."""
        return sum(len(self.segment(one)) for side in text for one in side) + 2 * sum(map(bool, text))

    def fits(self, text: Text) -> bool:
        """Whether a row has room for it, where need be without behaviours."""
        return self.count(Text(text.user[:1], text.candidate)) <= self.length

    def rows(self, texts: Sequence[Text]) -> TextRows:
        """All of them.

        Raises:
          ValueError: a text that is too long even without behaviours, or has more segments than are numbered.
        """
        found = TextRows(*(np.zeros((len(texts), self.length), np.int32) for _ in range(3)))
        for row, text in enumerate(texts):
            place = 0
            for tokens, side, segment in self._parts(text):
                stop = place + len(tokens)
                for values, value in zip(found, (tokens, side, segment), strict=True):
                    values[row, place:stop] = value
                place = stop
        return found

    def _parts(self, text: Text) -> list[tuple[list[int], int, int]]:
        user = [self.segment(one) for one in text.user]
        candidate = [self.segment(one) for one in text.candidate]
        if candidate:
            candidate = [[self.special("begin")], *candidate, [self.special("end")]]
        if user:
            user = [[self.special("user_begin")], *user, [self.special("user_end")]]
        while len(user) > 4 and sum(map(len, (*user, *candidate))) > self.length:
            del user[2:4]  # the oldest behaviour: when and what
        if (needed := sum(map(len, (*user, *candidate)))) > self.length:
            raise ValueError(
                f"a text without behaviours has {needed} tokens, and a row {self.length}: raise M6_LENGTH to {needed} "
                f"at least, or shorten the titles: {' '.join((*text.user, *text.candidate))[:200]!r}"
            )
        if len(user) > USER_SEGMENTS or len(candidate) > CANDIDATE_SEGMENTS:
            raise ValueError(
                f"a text has {len(user)} segments of the user and {len(candidate)} of the candidate, expected at most "
                f"{USER_SEGMENTS} and {CANDIDATE_SEGMENTS}: lower M6_HISTORY_LENGTH"
            )
        numbered = [(one, USER, CANDIDATE_SEGMENTS + len(user) - 1 - place) for place, one in enumerate(user)]
        return numbered + [(one, CANDIDATE, place) for place, one in enumerate(candidate)]
