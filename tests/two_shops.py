"""A corpus whose events say in which of two shops they happened: each shop has its own half of the items."""

import dataclasses
import pathlib

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split, UserTime
from plum_jax.model.config import DecoderConfig
from plum_jax.stages import Data, Stages
from plum_jax.systems.lum import Lum
from plum_jax.systems.lum.network import LumConfig
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.training_config import TrainingConfig

NUM_USERS, NUM_ITEMS = 60, 24
SMALL = DecoderConfig(num_layers=2, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=32, scan_layers=False)
TRAINING = TrainingConfig(
    steps=60, optimizer=AdamW(schedule=WarmupCosine(peak=1e-2, warmup_steps=5)), tensorboard=False, checkpoint_period=20
)
LUM = Lum(
    LumConfig(SMALL, condition_dropout=0.1),
    training=TRAINING,
    conditions=("shop", "rating"),
    asked={"shop": "old"},
    use_features=False,
    history_length=12,
    batch_size=8,
    row_length=24,
)


@dataclasses.dataclass(frozen=True)
class TwoShops:
    """A source and its splitter: 60 users with 6 to 29 events; the last of the 24 items is never taken."""

    def inputs(self) -> dict[str, str]:
        """Nothing is read."""
        return {}

    def read(self) -> Corpus:
        """Even items are of the shop "new", odd ones of "old"; a rating is 5 for the first half of the catalogue and 1
        for the second, and every ninth is missing.
        """
        random = np.random.default_rng(0)
        lengths = random.integers(6, 30, NUM_USERS)
        user = np.repeat(np.arange(NUM_USERS), lengths)
        old = random.integers(0, 2, len(user))
        item = np.minimum(2 * random.integers(0, NUM_ITEMS // 2, len(user)) + old, NUM_ITEMS - 2)
        shop = np.where(item % 2, "old", "new")
        rating = np.where(item < NUM_ITEMS // 2, 5.0, 1.0)
        rows = np.arange(len(user))
        events = pl.DataFrame(
            {
                "user": user,
                "item": item,
                "time": rows * 60,
                "rating": [None if n % 9 == 0 else r for n, r in zip(rows, rating, strict=True)],
                "shop": shop,
            },
            schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64, "rating": pl.Float32, "shop": pl.String},
        )
        return Corpus(
            name="two shops",
            items=pl.DataFrame({"item_id": [f"i{n}" for n in range(NUM_ITEMS)]}),
            users=pl.DataFrame({"user_id": [f"u{n}" for n in range(NUM_USERS)]}),
            events=events,
            context_features=("shop",),
        )

    def split(self, corpus: Corpus) -> Split:
        """The last fifth of each user is for test, the fifth before it for validation."""
        return UserTime(0.2, 0.2).split(corpus)


def stages(directory: pathlib.Path) -> Stages:
    """The stages of a run over it."""
    return Data(TwoShops(), TwoShops()).stages(epath.Path(directory))
