"""A small random corpus, leave-one-out."""

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import LeaveOneOut, Split

NUM_USERS = 40
NUM_ITEMS = 15


def random_split() -> Split:
    """40 users with 3 to 8 events each; the last of the 15 items has no event at all."""
    random = np.random.default_rng(0)
    lengths = random.integers(3, 9, NUM_USERS)
    user = np.repeat(np.arange(NUM_USERS), lengths)
    item = np.minimum(random.geometric(0.2, lengths.sum()) - 1, NUM_ITEMS - 2)
    corpus = Corpus(
        name="random",
        items=pl.DataFrame({"item_id": [f"i{n}" for n in range(NUM_ITEMS)]}),
        users=pl.DataFrame({"user_id": [f"u{n}" for n in range(NUM_USERS)]}),
        events=pl.DataFrame(
            {"user": user, "item": item, "time": np.arange(len(user)) * 60},
            schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64},
        ),
    )
    return LeaveOneOut().split(corpus)
