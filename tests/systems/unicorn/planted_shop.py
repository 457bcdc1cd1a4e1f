"""A shop whose rules are known: a user takes items of one colour, and every other time the kind after the last one."""

import dataclasses

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import LeaveOneOut, Split
from plum_jax.queries.category_paths import CategoryQueries
from plum_jax.stages import Data, Stages
from plum_jax.systems.unicorn.network import UnicornConfig
from plum_jax.systems.unicorn.system import Unicorn
from plum_jax.systems.unicorn.vectors import UserVectors
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear
from plum_jax.training.training_config import TrainingConfig

KINDS = ("lamp", "chair", "table", "shelf", "mirror", "carpet", "clock", "vase", "stool", "desk")
COLOURS = ("red", "blue", "green", "black")
ITEMS, USERS, EVENTS = 4 * len(KINDS), 120, 8
TRAINING = TrainingConfig(
    steps=150, optimizer=AdamW(schedule=WarmupLinear(peak=2e-2, warmup_steps=10), weight_decay=0.0), tensorboard=False
)
NETWORK = UnicornConfig(width=8, field_dim=4, cross_rank=8, hidden=16, dropout=0.0)


def item_of(kind: int, colour: int) -> int:
    return kind * len(COLOURS) + colour


def corpus() -> Corpus:
    """Item = kind and colour. A user takes items of one colour; odd steps go to the next kind, even ones anywhere."""
    random, rows = np.random.default_rng(0), []
    for user in range(USERS):
        colour, kind = user % len(COLOURS), 0
        for place in range(EVENTS):
            kind = (kind + 1) % len(KINDS) if place % 2 else int(random.integers(len(KINDS)))
            rows.append((user, item_of(kind, colour), None))
    kinds, colours = np.divmod(np.arange(ITEMS), len(COLOURS))
    items = {
        "item_id": [f"i{item}" for item in range(ITEMS)],
        "title": [f"{COLOURS[c]} {KINDS[k]}" for k, c in zip(kinds, colours, strict=True)],
        "path": [f"Shop > {KINDS[k]} > {KINDS[k]} & more" for k in kinds],
    }
    events = pl.DataFrame(rows, schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}, orient="row")
    return Corpus(
        name="planted shop",
        items=pl.DataFrame(items),
        users=pl.DataFrame({"user_id": [f"u{u}" for u in range(USERS)], "country": ["s", "n"] * (USERS // 2)}),
        events=events,
        text_fields=("title", "path"),
        user_features=("country",),
        clock="order",
    )


@dataclasses.dataclass(frozen=True)
class Planted:
    """The corpus as a source."""

    def inputs(self) -> dict[str, str]:
        return {}

    def read(self) -> Corpus:
        return corpus()


@dataclasses.dataclass(frozen=True)
class Tastes:
    """Vectors that say a user's colour, before every event."""

    def read(self, stages: Stages) -> UserVectors:
        user = stages.corpus.events["user"].to_numpy()
        vectors = np.eye(len(COLOURS), dtype=np.float32)[np.arange(USERS) % len(COLOURS)]
        return UserVectors(vectors, user.astype(np.int32), np.arange(USERS, dtype=np.int32))


def stages(directory) -> Stages:
    return Data(Planted(), LeaveOneOut()).stages(directory)


def split() -> Split:
    return LeaveOneOut().split(corpus())


def unicorn(**changed) -> Unicorn:
    """Small enough for tests."""
    settings = {
        "queries": CategoryQueries("path"),
        "text_fields": ("title",),
        "personalisation": "none",
        "text_dim": 64,
        "network": NETWORK,
        "training": TRAINING,
        "batch_size": 128,
    }
    return Unicorn(**{**settings, **changed})
