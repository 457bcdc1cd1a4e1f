"""A small recommender whose every answer can be worked out: a random bigram model over a table with collisions."""

import dataclasses
import pathlib

import numpy as np
import polars as pl
from tiny_decoder import bigram_log_probs, bigram_of

from plum_jax.retrieval.recommend import Recommender
from plum_jax.semantic_ids.table import SidTable
from plum_jax.text.sentence_piece import train_sentencepiece
from tests.made_vocabulary import vocabulary_of

NUM_ITEMS, NUM_USERS = 20, 30
SIZES = (3, 4)


@dataclasses.dataclass
class World:
    recommender: Recommender
    params: dict
    prompts: pl.DataFrame

    def ranking(self, row):
        """All items for a user, best first: by the score of their SID, then by `item_rank`."""
        table, vocabulary = self.recommender.table, self.recommender.vocabulary
        last = self.prompts["prompt"][row][-1]
        scores = bigram_log_probs(self.params, last, table.codes, vocabulary.sid_offsets)
        return sorted(
            range(NUM_ITEMS), key=lambda item: (-scores[item], tuple(table.codes[item]), table.item_rank[item])
        )

    def unseen_ranking(self, row):
        return [item for item in self.ranking(row) if item not in self.prompts["seen_items"][row].to_list()]


def make_world(directory: pathlib.Path) -> World:
    """A beam wider than the catalogue, so that brute force is the answer."""
    random = np.random.default_rng(0)
    codes = random.integers(0, SIZES, (NUM_ITEMS, 2))  # 20 items on at most 12 SIDs
    table = SidTable.create(codes, SIZES, [f"item-{n}" for n in range(NUM_ITEMS)])
    model = directory / "pieces.model"
    train_sentencepiece(["a few words", "for a small model"], 300, model)
    vocabulary = vocabulary_of(model, SIZES)
    decoder, params = bigram_of(vocabulary.vocab_size)
    prompts = pl.DataFrame(
        {
            "user": random.permutation(NUM_USERS),
            "prompt": [random.integers(3, 250, random.integers(1, 20)).tolist() for _ in range(NUM_USERS)],
            "target_item": random.integers(0, NUM_ITEMS, NUM_USERS),
            "seen_items": [random.integers(0, NUM_ITEMS, random.integers(0, 6)).tolist() for _ in range(NUM_USERS)],
        },
        schema={
            "user": pl.Int32,
            "prompt": pl.List(pl.Int32),
            "target_item": pl.Int32,
            "seen_items": pl.List(pl.Int32),
        },
    )
    recommender = Recommender(decoder, vocabulary, table, num_beams=NUM_ITEMS, batch_size=4, num_buckets=2)
    return World(recommender, params, prompts)
