"""Relevance: a student whose items are computed beforehand against the first teacher of experiments/relevance.

Weights, tokens and words are random, for time does not hang on them.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import timing

from plum_jax.encoders.language_model import LanguageModelStart
from plum_jax.model.config import DecoderConfig
from plum_jax.queries.words import KnownWords
from plum_jax.relevance.bi_encoder import BiEncoder, BiReader
from plum_jax.relevance.bi_network import BiNetwork, Texts, WordTable
from plum_jax.relevance.cross_encoder import CrossEncoder, CrossReader, CrossTexts
from plum_jax.relevance.pairs import Pairs
from plum_jax.relevance.reader import PairReader

CLASSES, ITEMS, CANDIDATES, WORDS = 5, 10_000, 100, 20_000
QUERY_TOKENS, ITEM_TOKENS = 5, 27  # of Home Depot's pairs, on average
VOCABULARY = 4096  # rows of the table; a larger one takes memory, not time
# SmolLM2-135M's, its first three layers.
TEACHER = DecoderConfig(
    num_layers=3, d_model=576, num_heads=9, num_kv_heads=3, head_dim=64, mlp_dim=1536, scan_layers=False
)


def measure(quick: bool) -> dict[str, Any]:
    """`student_latency_vs_teacher`, the student's time for a query with 100 candidates over the teacher's, and
    `student_throughput_vs_teacher`, the student's pairs a second over the teacher's, both from what is read of the
    query to logits: medians over rounds of interleaved runs, each side compiled before.
    """
    random = np.random.default_rng(0)
    sides = {"student": _student(random), "teacher": _teacher(random)}
    rounds = 3 if quick else 9
    one = {name: _answers(side, queries=1, pairs=CANDIDATES) for name, side in sides.items()}
    latency = timing.interleaved(one, rounds)
    pairs = {"student": 8192, "teacher": 128}
    many = {name: _answers(side, queries=64, pairs=pairs[name]) for name, side in sides.items()}
    seconds = timing.interleaved(many, rounds)
    rate = {name: pairs[name] / statistics.median(of_side) for name, of_side in seconds.items()}
    for name, of_side in latency.items():
        milliseconds = 1000 * statistics.median(of_side)
        print(f"{name:8}{milliseconds:>10.2f} ms for {CANDIDATES} candidates{rate[name]:>12,.0f} pairs/s")
    return {
        "student_latency_vs_teacher": timing.median_ratio(latency["student"], latency["teacher"]),
        "student_throughput_vs_teacher": rate["student"] / rate["teacher"],
        "teacher_milliseconds": 1000 * statistics.median(latency["teacher"]),
        "student_milliseconds": 1000 * statistics.median(latency["student"]),
    }


def _answers(reader: PairReader, queries: int, pairs: int) -> functools.partial:
    """A call that scores pairs of so many queries."""
    random = np.random.default_rng(0)
    params = nn.unbox(jax.jit(functools.partial(reader.initial, reader.network, None))(jax.random.key(0)))
    query, item = random.integers(0, queries, pairs), random.integers(0, ITEMS, pairs)
    chosen = Pairs(query, item, np.zeros(pairs, np.int32))
    return functools.partial(reader.scorer(params).logits, reader.queries, chosen)


def _teacher(random: np.random.Generator) -> CrossReader:
    def rows(count: int, length: int) -> CrossTexts:
        tokens = random.integers(3, VOCABULARY, (count, length), np.int32)
        return CrossTexts(tokens, np.full(count, length, np.int32), np.ones((count, 1), np.float32))

    start = LanguageModelStart(None, TEACHER, VOCABULARY, None)  # type: ignore[arg-type]  # nothing is tokenised
    queries, items = rows(64, QUERY_TOKENS), rows(ITEMS, ITEM_TOKENS)
    return CrossReader(CrossEncoder(), start, CLASSES, queries, items)


def _student(random: np.random.Generator) -> BiReader:
    config = BiEncoder()

    def texts(count: int, words: int) -> Texts:
        vectors = random.normal(size=(count, config.text_dim)).astype(np.float32)
        return Texts(random.integers(1, WORDS, (count, words), np.int32), np.zeros(count, np.float32), vectors)

    table = WordTable(random.normal(size=(WORDS, config.word_dim)).astype(np.float32), np.ones(WORDS, np.float32))
    network = BiNetwork(table, config.width, config.hidden, CLASSES, config.dropout, (config.text_dim,))
    queries, items = texts(64, config.query_words), texts(ITEMS, config.item_words)
    return BiReader(config, KnownWords(()), network, None, queries, items)
