"""Texts as rows of tokens of one length."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from plum_jax.text.files import TextPieces


class TokenRows(NamedTuple):
    """Texts, one a row.

    Attributes:
      tokens: int32 [n, T], filled with 0 behind the text.
      lengths: int32 [n], tokens of each, 1 at least: a text ends with the text side's end.
    """

    tokens: np.ndarray
    lengths: np.ndarray

    def columns(self, prefix: str = "") -> Mapping[str, np.ndarray]:
        """As columns of a batch, "<prefix>tokens" and "<prefix>lengths"."""
        return {f"{prefix}tokens": self.tokens, f"{prefix}lengths": self.lengths}

    def of(self, rows: np.ndarray) -> TokenRows:
        """Some of them, cut behind the longest, so that a batch of short texts is short."""
        lengths = self.lengths[rows]
        return TokenRows(self.tokens[rows, : max(int(lengths.max(initial=1)), 1)], lengths)


def token_rows(pieces: TextPieces, texts: Iterable[str], length: int, begin: int | None = None) -> TokenRows:
    """Texts as tokens, each cut to `length` with the end's token as its last.

    Args:
      pieces: of the texts.
      texts: a row each.
      length: T.
      begin: token that each text begins with; None: its first piece.

    Raises:
      ValueError: a `length` below 2, or pieces without an end.
    """
    end = pieces.special_ids.eos
    if length < 2 or end is None:
        raise ValueError(f"expected a length of 2 at least and pieces that have an end, got {length=}, {end=}")
    first = [] if begin is None else [begin]
    found = [[*[*first, *pieces.encode(text)][: length - 1], end] for text in texts]
    lengths = np.array([len(row) for row in found], np.int32)
    tokens = np.zeros((len(found), length), np.int32)
    tokens[np.arange(length) < lengths[:, None]] = np.fromiter((one for row in found for one in row), np.int32)
    return TokenRows(tokens, lengths)
