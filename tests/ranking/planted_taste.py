"""A corpus whose label is planted: an event is liked where its category is one of the user's last two."""

import dataclasses

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import UserTime
from plum_jax.ranking.labels import Label
from plum_jax.ranking.networks.network import RankingNetworkConfig
from plum_jax.ranking.ranker import BehaviourRanker
from plum_jax.stages import Data, Stages
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear
from plum_jax.training.training_config import TrainingConfig

ITEMS, CATEGORIES = 24, 4
LABEL = Label()
TRAINING = TrainingConfig(
    steps=40, optimizer=AdamW(schedule=WarmupLinear(peak=3e-2, warmup_steps=5), weight_decay=0.0), tensorboard=False
)


def corpus(users=60, events=24, seed=0, clock="absolute") -> Corpus:
    """Ratings of 5 where the item's category is that of one of the last two events, else 1; the first has none."""
    random, rows = np.random.default_rng(seed), []
    for user in range(users):
        items = random.integers(0, ITEMS, events + int(random.integers(0, 8)))
        for place, item in enumerate(items):
            near = items[max(0, place - 2) : place] % CATEGORIES
            rating = None if place == 0 else 5.0 if item % CATEGORIES in near else 1.0
            time = 1_600_000_000 + place * 3600 if clock != "order" else None
            rows.append((user, int(item), time, rating))
    schema = {"user": pl.Int32, "item": pl.Int32, "time": pl.Int64, "rating": pl.Float32}
    genres = [[f"genre {item % CATEGORIES}", *(["all"] if item % 2 else [])] for item in range(ITEMS)]
    return Corpus(
        name="planted",
        items=pl.DataFrame({"item_id": [f"i{item}" for item in range(ITEMS)], "genres": genres}),
        users=pl.DataFrame({"user_id": [f"u{user}" for user in range(users)], "age": np.arange(users) % 5 * 10}),
        events=pl.DataFrame(rows, schema=schema, orient="row"),
        item_features=("genres",),
        user_features=("age",),
        clock=clock,
    )


@dataclasses.dataclass(frozen=True)
class Planted:
    """The corpus as a source."""

    def inputs(self) -> dict[str, str]:
        return {}

    def read(self) -> Corpus:
        return corpus()


DATA = Data(Planted(), UserTime())


def stages(directory) -> Stages:
    return DATA.stages(directory)


def ranker(interest, **changed) -> BehaviourRanker:
    """Small enough for tests."""
    network = RankingNetworkConfig(
        interest, item_dim=4, category_dim=4, user_dim=0, mlp_dims=(16,), dropout=0.0, **changed.pop("network", {})
    )
    return BehaviourRanker(network, training=TRAINING, history_length=8, batch_size=64, **changed)
