"""Words of the simulator's items: made up of syllables, a few for each node of the tree of topics."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import polars as pl

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
WORDS_PER_NODE = 12


def node_words(branching: Sequence[int], random: np.random.Generator) -> list[np.ndarray]:
    """For each depth the words of its nodes, [nodes, WORDS_PER_NODE]; no two nodes share a word."""
    nodes = np.cumprod(branching)
    count = int(nodes.sum()) * WORDS_PER_NODE
    syllables = 3
    while len(SYLLABLES) ** syllables < 4 * count:
        syllables += 1
    codes = random.choice(len(SYLLABLES) ** syllables, size=count, replace=False)
    parts = [np.array(SYLLABLES)[codes // len(SYLLABLES) ** i % len(SYLLABLES)] for i in range(syllables)]
    words = functools.reduce(np.char.add, parts).reshape(-1, WORDS_PER_NODE)
    return np.split(words, np.cumsum(nodes)[:-1])


def numbered_ids(letter: str, count: int) -> pl.Series:
    """Ids such as "i1", "i2", ...: a letter and a number from 1."""
    return pl.select(pl.concat_str(pl.lit(letter), pl.int_range(1, count + 1))).to_series()
