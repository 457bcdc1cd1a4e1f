"""A world of 48 items, and an item-level model that learns it in a second."""

import dataclasses

from plum_jax.corpus import features
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.model.config import DecoderConfig
from plum_jax.model.item_history import ItemHistoryConfig
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans
from plum_jax.stages import Data
from plum_jax.systems.item_history import ItemHistory
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.training_config import TrainingConfig

DATA = Data(
    source=Simulator(num_users=200, num_items=48, mean_history=9.0, branching=(2, 2)),
    splitter=LeaveOneOut(),
    feature_builders=(features.CoWatchEmbedding(dim=4),),
    quantizer=ResidualKMeans(codebook_sizes=(8, 6)),
    collision_policy="extra_digit",
)
SMALL = DecoderConfig(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=32, scan_layers=False)
DEPTH = dataclasses.replace(SMALL, d_model=8, num_heads=1, num_kv_heads=1, mlp_dim=16)
SYSTEM = ItemHistory(
    ItemHistoryConfig(SMALL, DEPTH),
    training=TrainingConfig(
        steps=80,
        optimizer=AdamW(schedule=WarmupCosine(peak=1e-2, warmup_steps=5)),
        checkpoint_period=20,
        tensorboard=False,
    ),
    history_length=6,
    batch_size=8,
    row_length=24,
    num_drawn=32,
    num_beams=48,
    fields=("gap",),
)
