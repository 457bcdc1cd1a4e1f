"""A small trunk on the corpus of two shops."""

import dataclasses

from two_shops import SMALL, TRAINING, TwoShops

from plum_jax.corpus.features import CoWatchEmbedding
from plum_jax.feeds.windows import Windows
from plum_jax.stages import Data
from plum_jax.systems.trunk import Trunk
from plum_jax.systems.trunk.known import TrunkFields
from plum_jax.systems.trunk.network import TrunkConfig

DATA = Data(TwoShops(), TwoShops(), [CoWatchEmbedding(dim=4)])
LOCAL = dataclasses.replace(SMALL, layer_windows=(4, 0))
TRUNK = Trunk(
    TrunkConfig(LOCAL, tokens=3, request_dropout=0.1),
    training=dataclasses.replace(TRAINING, steps=40),
    fields=TrunkFields(("gap", "shop"), ("rating",), {"rating": 0.1}, may_be_missing=("rating",)),
    windows=Windows("mixed", 12, 6),
    batch_size=8,
    row_length=24,
    num_drawn=24,
)
