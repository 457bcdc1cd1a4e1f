"""A shop whose rules are known: a user takes items of one maker, and searches for each by its kind."""

import numpy as np
import polars as pl
from stages_of_split import Ready

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import LeaveOneOut, Split
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.model.config import DecoderConfig
from plum_jax.queries.category_paths import CategoryQueries
from plum_jax.stages import Data, Stages
from plum_jax.systems.product_search.network import SearchConfig
from plum_jax.systems.product_search.system import ProductSearch
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear
from plum_jax.training.training_config import TrainingConfig

KINDS = ("lamp", "chair", "table", "shelf", "mirror", "carpet", "clock", "vase", "stool", "desk")
MAKERS = ("Aalto", "Bauer", "Costa", "Dahl")
COUNTRIES = ("north", "south")
ITEMS, USERS, EVENTS = len(MAKERS) * len(KINDS), 120, 8
DECODER = DecoderConfig(num_layers=1, d_model=16, num_heads=1, num_kv_heads=1, head_dim=16, mlp_dim=16)
TRAINING = TrainingConfig(
    steps=120, optimizer=AdamW(schedule=WarmupLinear(peak=2e-2, warmup_steps=10), weight_decay=0.0), tensorboard=False
)


def item_of(kind: int, maker: int) -> int:
    return kind * len(MAKERS) + maker


def corpus() -> Corpus:
    """Item = kind and maker; its title says the kind, its tags both, its country the maker's half of the list. A user
    takes items of one maker, of kinds at random, and lives where they are made.
    """
    random, rows = np.random.default_rng(0), []
    for user in range(USERS):
        rows += [(user, item_of(int(random.integers(len(KINDS))), user % len(MAKERS)), None) for _ in range(EVENTS)]
    kinds, makers = np.divmod(np.arange(ITEMS), len(MAKERS))
    items = {
        "item_id": [f"i{item}" for item in range(ITEMS)],
        "title": [f"nice {KINDS[kind]} no {item}" for item, kind in enumerate(kinds)],
        "path": [f"Shop > {KINDS[kind]}" for kind in kinds],
        "tags": [[KINDS[kind].title(), MAKERS[maker]] for kind, maker in zip(kinds, makers, strict=True)],
        "country": [COUNTRIES[maker // 2] for maker in makers],
    }
    users = {
        "user_id": [f"u{user}" for user in range(USERS)],
        "country": [COUNTRIES[user % len(MAKERS) // 2] if user else None for user in range(USERS)],
    }
    return Corpus(
        name="small search",
        items=pl.DataFrame(items),
        users=pl.DataFrame(users),
        events=pl.DataFrame(rows, schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}, orient="row"),
        text_fields=("title", "path"),
        item_features=("tags", "country"),
        user_features=("country",),
        clock="order",
    )


def split() -> Split:
    return LeaveOneOut().split(corpus())


def data() -> Data:
    return Data(Ready(split()), LeaveOneOut())


def stages(directory) -> Stages:
    return data().stages(directory)


def search(**changed) -> ProductSearch:
    """Small enough for tests."""
    settings = {
        "queries": CategoryQueries("path"),
        "text_fields": ("title",),
        "category": "tags",
        "language_model": LanguageModel(decoder=DECODER, num_pieces=300),
        "query_pieces": 8,
        "item_pieces": 8,
        "network": SearchConfig(width=16, hidden=16, dropout=0.0),
        "training": TRAINING,
        "batch_size": 64,
    }
    return ProductSearch(**{**settings, **changed})
