"""A small corpus with clustered features, for the whole directory."""

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import LeaveOneOut, Split

NUM_ITEMS = 120


@pytest.fixture(scope="session")
def split() -> Split:
    """120 items of 6 genres; 40 users watch six items, mostly of one genre."""
    rng = np.random.default_rng(0)
    genre = np.arange(NUM_ITEMS) % 6
    users = np.repeat(np.arange(40), 6)
    items = (rng.integers(0, 20, len(users)) * 6 + users % 6).astype(np.int32)
    return LeaveOneOut().split(
        Corpus(
            name="small",
            items=pl.DataFrame(
                {
                    "item_id": [f"v{i}" for i in range(NUM_ITEMS)],
                    "genre": [f"genre {g}" for g in genre],
                    "tags": [["video", f"tag {g % 3}"] if g else None for g in genre],
                }
            ),
            users=pl.DataFrame({"user_id": [f"u{u}" for u in range(40)]}),
            events=pl.DataFrame(
                {
                    "user": users.astype(np.int32),
                    "item": items,
                    "time": np.tile(np.arange(6), 40),
                }
            ),
            item_features=("genre", "tags"),
        )
    )


@pytest.fixture(scope="session")
def features() -> ItemFeatures:
    """Two blocks, near the centre of the item's genre; the second is missing for 7 items."""
    rng = np.random.default_rng(1)
    genre = np.arange(NUM_ITEMS) % 6
    text = rng.normal(size=(6, 8))[genre] + 0.3 * rng.normal(size=(NUM_ITEMS, 8))
    behaviour = rng.normal(size=(6, 5))[genre] + 0.3 * rng.normal(size=(NUM_ITEMS, 5))
    present = np.arange(NUM_ITEMS) >= 7
    behaviour[~present] = 0
    return ItemFeatures(
        (
            FeatureBlock("text", text.astype(np.float32), np.ones(NUM_ITEMS, bool)),
            FeatureBlock("behaviour", behaviour.astype(np.float32), present),
        )
    )
