"""A corpus small enough to be checked by hand, with every field that PLUM's templates name."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import LeaveOneOut, Split
from plum_jax.semantic_ids import vocabulary
from plum_jax.semantic_ids.table import SidTable
from plum_jax.text.sentence_piece import train_sentencepiece
from tests.made_vocabulary import vocabulary_of

TITLES = ["Song Mix", "Dance Music Vol. 3", "Night Drive", None, "Café del Mar", "Rain on the roof"]
CHANNELS = ["Radio One", "Sweetnotes", "Radio One", "Sweetnotes", "Ibiza", "Weather"]
TOPICS = [["music"], ["dance", "music"], ["music"], [], ["chill", "music"], ["weather"]]
CODES = [[0, 0, 0], [0, 1, 2], [1, 3, 1], [2, 0, 3], [2, 0, 3], [3, 2, 1]]
CONTROL_TOKENS = (*vocabulary.CONTROL_TOKENS, "<context_video>")


def make_corpus(histories: list[list[int]], seed: int = 0) -> Corpus:
    """A corpus with these users' items; times, ratings and devices depend on the place in the history alone."""
    rng = np.random.default_rng(seed)
    longest = max(len(history) for history in histories)
    times = np.cumsum(rng.integers(60, 500_000, (len(histories), longest)), axis=1)
    ratings = rng.integers(1, 6, (len(histories), longest)).astype(np.float32)
    ratios = rng.integers(1, 101, (len(histories), longest)) / 100
    rows = [(user, item, place) for user, history in enumerate(histories) for place, item in enumerate(history)]
    user, item, place = np.array(rows).T
    events = pl.DataFrame(
        {
            "user": pl.Series(user, dtype=pl.Int32),
            "item": pl.Series(item, dtype=pl.Int32),
            "time": pl.Series(times[user, place], dtype=pl.Int64),
            "rating": pl.Series(ratings[user, place], dtype=pl.Float32),
            "watch_ratio": pl.Series(ratios[user, place], dtype=pl.Float32),
            "watch_time": pl.Series(1000 * ratios[user, place], dtype=pl.Float32),
            "device": pl.Series(np.array(["ANDROID", "WEB"])[(user + place) % 2]),
        }
    )
    items = pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(len(TITLES))], "title": TITLES, "channel": CHANNELS, "topics": TOPICS}
    )
    users = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(len(histories))],
            "age": pl.Series([20 + 7 * n for n in range(len(histories))], dtype=pl.Int64),
            "gender": [("female", "male")[n % 2] for n in range(len(histories))],
            "region": [("PH", "NL", "CH")[n % 3] for n in range(len(histories))],
        }
    )
    return Corpus(
        name="six songs",
        items=items,
        users=users,
        events=events,
        text_fields=("title", "channel"),
        item_features=("topics",),
        user_features=("age", "gender", "region"),
        context_features=("device",),
    )


def make_table(corpus: Corpus) -> SidTable:
    """Items 3 and 4 share a SID."""
    return SidTable(
        codes=np.array(CODES, np.int32),
        codebook_sizes=(4, 4, 4),
        item_ids=np.array(corpus.items["item_id"].to_list()),
        collision_policy="keep",
        corpus_fingerprint=corpus.fingerprint,
        item_rank=np.array([0, 0, 0, 0, 1, 0], np.int32),
    )


@dataclasses.dataclass(frozen=True)
class World:
    """A split corpus with its table and vocabulary."""

    split: Split
    table: SidTable
    vocabulary: vocabulary.SidVocabulary

    @property
    def corpus(self) -> Corpus:
        return self.split.corpus


@pytest.fixture(scope="session")
def sentencepiece_model(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("sentencepiece") / "songs.model")
    texts = [title for title in TITLES if title] + CHANNELS + ["Video has title (en): wh = || region years device sid"]
    train_sentencepiece(texts * 3, 400, path)
    return path


@pytest.fixture(scope="session")
def make_world(sentencepiece_model):
    def make(histories: list[list[int]], field_tokens: tuple[vocabulary.FieldTokens, ...] = ()) -> World:
        corpus = make_corpus(histories)
        words = vocabulary_of(sentencepiece_model, (4, 4, 4), CONTROL_TOKENS, field_tokens)
        return World(LeaveOneOut().split(corpus), make_table(corpus), words)

    return make


@pytest.fixture(scope="session")
def world(make_world) -> World:
    """Three users; the first is the one that tests check by hand."""
    return make_world([[0, 1, 2, 3, 4, 5], [5, 4, 3, 0], [1, 2]])
