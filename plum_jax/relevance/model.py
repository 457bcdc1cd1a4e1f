"""A relevance model: an encoder that is trained on raters' classes, a teacher's distributions, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.objectives.soft_labels import SoftLabels
from plum_jax.relevance.bi_encoder import BiEncoder
from plum_jax.relevance.cross_encoder import CrossEncoder
from plum_jax.relevance.fitted import FittedRelevance
from plum_jax.relevance.pair_training import PairFeed, PairTraining
from plum_jax.relevance.pairs import RelevanceData
from plum_jax.relevance.pruning import GradualPruning
from plum_jax.training import training_config


@dataclasses.dataclass(frozen=True)
class RelevanceModel:
    """How one model is made.

    Attributes:
      encoder: what it is.
      teacher: name of the model of the run whose distributions it learns of the unlabelled pairs, beside the raters'
        classes of the judged ones; None: these alone.
      start: name of the model of the run whose parameters it begins with, a cross-encoder of the same language model;
        None: those of `encoder`.
      pruning: of a cross-encoder's layers; None: none.
      objective: what of labels and teacher counts how much.
      training: steps, optimizer, seed.
      epochs: passes over its pairs instead of `training.steps`; None: those steps.
      batch_size: pairs of a batch.
    """

    encoder: CrossEncoder | BiEncoder
    teacher: str | None = None
    start: str | None = None
    pruning: GradualPruning | None = None
    objective: SoftLabels = SoftLabels()
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if isinstance(self.encoder, BiEncoder) and (self.pruning or self.start):
            raise ValueError("a bi-encoder has no layers to prune: expected neither pruning nor start")
        if self.pruning is not None and self.start is None and not self.pruning.first:
            raise ValueError("expected a start, or pruning.first above 0: layers of what is not trained yet would go")

    def fit(
        self, data: RelevanceData, directory: epath.Path, name: str, others: Mapping[str, FittedRelevance]
    ) -> FittedRelevance:
        """Trains, or goes on, or reads what was trained.

        Args:
          data: queries, items, pairs.
          directory: of the run; the model's is "models/<name>/<seed>" in it.
          name: of the model.
          others: the models of the run that were made before.

        Raises:
          ValueError: a teacher or a start that is not among them.
        """
        teacher, start = (_other(name, what, getattr(self, what), others) for what in ("teacher", "start"))
        folder = directory / "models" / name / str(self.training.seed)
        reader = self.encoder.reader(data.judged, len(data.classes), folder, directory)
        pairs, taught = data.train, None
        if teacher is not None:
            pairs = data.train.and_also(data.unlabelled)
            of_unlabelled = teacher.logits("unlabelled")
            taught = np.concatenate([np.zeros((len(data.train), len(data.classes)), np.float32), of_unlabelled])
        feed = PairFeed.of(reader, pairs, taught, self.batch_size, self.training.seed)
        said = training_config.in_steps(self, feed.rows.steps_per_epoch)
        inputs = {
            "pairs": pairs.fingerprint,
            "reader": reader.fingerprint,
            "model": artifact.fingerprint(said),
            "teacher": "" if taught is None else artifact.fingerprint(taught),
        }
        training = PairTraining(said.training, said.objective, feed, folder, inputs, name)
        params: Any = None if start is None else start.params
        gone: list[int] = []
        if said.pruning is None:
            params = training.whole(params)
        else:
            params, gone = training.pruned(said.pruning, params)
        facts: dict[str, Any] = {"seed": self.training.seed, "pairs": len(pairs), "steps": said.training.steps}
        facts |= {"teacher": self.teacher} if self.teacher else {}
        facts |= {"start": self.start} if self.start else {}
        facts |= {"layers_gone": gone} if gone else {}
        return FittedRelevance(reader, params, data, folder, facts)


def _other(name: str, what: str, wanted: str | None, others: Mapping[str, FittedRelevance]) -> FittedRelevance | None:
    if wanted is not None and wanted not in others:
        raise ValueError(
            f"model {name!r} has {what} {wanted!r}: expected a model that stands before it, one of "
            f"{', '.join(others) or 'none'}"
        )
    return None if wanted is None else others[wanted]
