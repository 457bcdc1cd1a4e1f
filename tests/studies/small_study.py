"""A study so small that a cell takes seconds: a simulated corpus, two sizes, two budgets."""

import dataclasses

from plum_jax.corpus import features, splits
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.model.config import DecoderConfig
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans
from plum_jax.stages import Data
from plum_jax.studies.grid import IsoFlop
from plum_jax.studies.rules import Ladder, PowerRule
from plum_jax.studies.study import Study
from plum_jax.systems.generative.phase import Phase
from plum_jax.systems.generative.pipeline import EvaluationConfig, Pipeline, VocabularyConfig
from plum_jax.systems.generative.scaling import ScaledDecoder
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupCosine
from plum_jax.training.training_config import TrainingConfig
from tasks.histories import HistoryTemplates
from tasks.retrieval import Retrieval

LENGTH = 64


def small_pipeline(**changes) -> Pipeline:
    return Pipeline(
        **{
            "data": Data(
                source=Simulator(num_users=120, num_items=64, mean_history=8.0, branching=(2, 2)),
                splitter=splits.LeaveOneOut(),
                feature_builders=(features.CoWatchEmbedding(dim=4),),
                quantizer=ResidualKMeans(codebook_sizes=(8, 8)),
                collision_policy="extra_digit",
            ),
            "vocabulary": VocabularyConfig(num_pieces=300),
            "retrieval_task": Retrieval(
                HistoryTemplates(layout="<history> {history} {target}"), history_length=10, stride=10
            ),
            "retrieval": Phase(
                training=TrainingConfig(
                    optimizer=AdamW(schedule=WarmupCosine()), log_period=7, checkpoint_period=0, tensorboard=False
                ),
                length=LENGTH,
            ),
            "evaluation": EvaluationConfig(ks=(1, 5), num_beams=8, batch_size=16, free_search_users=0),
            **changes,
        }
    )


def study(pipeline: Pipeline | None = None, **changes) -> Study:
    return Study(
        **{
            "name": "small",
            "system": ScaledDecoder(pipeline or small_pipeline()),
            "sizes": Ladder(steps=((8, 1), (16, 1)), head_dim=8),
            "grid": IsoFlop(budgets=(8e8, 16e8)),
            "learning_rate": PowerRule(base=1e-2),
            "batch_size": PowerRule(base=8),
            "evaluation_users": 40,
            **changes,
        }
    )


def with_schedule(schedule) -> Pipeline:
    """The pipeline with another schedule of its training phase."""
    base = small_pipeline()
    training = dataclasses.replace(base.retrieval.training, optimizer=AdamW(schedule=schedule))
    return dataclasses.replace(base, retrieval=dataclasses.replace(base.retrieval, training=training))


def decoder(width: int = 16, layers: int = 2) -> DecoderConfig:
    return DecoderConfig(
        num_layers=layers, d_model=width, num_heads=2, num_kv_heads=1, head_dim=width // 2, mlp_dim=3 * width
    )
