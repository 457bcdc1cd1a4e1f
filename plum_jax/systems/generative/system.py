"""Generative retrieval as a system: a decoder, with or without continued pre-training, and a search over its SIDs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.system import Ranking
from plum_jax.model.counts import parameter_counts
from plum_jax.stages import Stages
from plum_jax.systems.generative.phase import Phase, phase_step_flops
from plum_jax.systems.generative.pipeline import GenerativeStages, Pipeline
from plum_jax.training.metrics_log import read_metrics, seconds_of, training_facts


@dataclasses.dataclass(frozen=True)
class GenerativeRetrieval:
    """The paper's system (PLUM §1), and what continued pre-training is compared with.

    Attributes:
      pipeline: vocabulary, tasks, model, phases and search, over the data of the comparison.
      cpt: whether fine-tuning begins where continued pre-training ended, or where that began.
      folder: of this pipeline's artefacts in the run's directory; "" is the run's own. Systems with one pipeline share
        its records; another pipeline in the same run takes another folder.
    """

    pipeline: Pipeline
    cpt: bool = True
    folder: str = ""

    def fit(self, stages: Stages, name: str) -> FittedDecoder:
        """Trains the phases that are not trained yet. `name` plays no part: a phase is one for all that share it.

        Raises:
          ValueError: the pipeline is one over other data.
        """
        if self.pipeline.data != stages.data:
            raise ValueError(f"system {name}: its pipeline has other data than the comparison: bind one Data for both")
        own = GenerativeStages(self.pipeline, stages.directory / self.folder, stages)
        return FittedDecoder(own, own.params if self.cpt else own.params_without_cpt, self.cpt)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedDecoder:
    """A trained decoder that ranks by constrained beam search.

    Attributes:
      stages: of its pipeline.
      params: after the last phase.
      cpt: whether it has seen continued pre-training.
    """

    stages: GenerativeStages
    params: Any
    cpt: bool

    @functools.cached_property
    def fingerprint(self) -> str:
        stages = self.stages
        return artifact.fingerprint(
            artifact.tree_fingerprint(self.params), stages.config.evaluation, stages.table.fingerprint
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        stages = self.stages
        counts = parameter_counts(stages.decoder.config, stages.decoder.vocab_size)
        start = stages.config.initialisation
        before = self._flops(stages.config.cpt) if self.cpt else 0.0
        flops = self._flops(stages.config.retrieval)
        phases = ("cpt", "retrieval") if self.cpt else ("retrieval_without_cpt",)
        trained = stages.directory / "train"
        told = training_facts(trained / phases[-1], flops, before)
        if self.cpt:
            told["train_seconds"] = round(told["train_seconds"] + seconds_of(read_metrics(trained / "cpt")), 1)
        return {
            "seed": stages.config.retrieval.training.seed,
            "parameters": counts["total"],
            "non_embedding_parameters": counts["non_embedding"],
            "train_flops": before + flops,
            **told,
            "sid_table": stages.table.fingerprint,
            "pretrained": start.pretrained if start.weights else None,
            **{name: value for phase in phases for name, value in self._language(phase).items()},
        }

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """By the prompts of these users, among `num_beams` Semantic IDs."""
        prompts = self.stages.prompts(evaluation.fold)
        rows = np.searchsorted(prompts["user"].to_numpy(), evaluation.user)
        return self.stages.evaluator(evaluation.fold).rank(self.params, prompts[rows], k)

    def _flops(self, phase: Phase) -> float:
        """Training FLOPs of all steps of a phase."""
        decoder = self.stages.decoder
        return phase.training.steps * phase_step_flops(phase, decoder.config, decoder.vocab_size)

    def _language(self, phase: str) -> dict[str, float]:
        """Figures of the language model at the end of a phase, e.g. "cpt/loss_text"; none where it was not judged."""
        rows = [row for row in read_metrics(self.stages.directory / "train" / phase) if "language/loss" in row]
        last = rows[-1] if rows else {}
        return {name.replace("language", phase, 1): last[name] for name in last if name.startswith("language/")}
