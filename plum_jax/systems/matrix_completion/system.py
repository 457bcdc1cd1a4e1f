"""The nuclear-norm baseline: the matrix of users and items, completed, and each user's greatest entries recommended."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.system import Ranking
from plum_jax.stages import Stages
from plum_jax.systems.matrix_completion.factors import complete, first_singular_value

KIND = "matrix_factors"


@dataclasses.dataclass(frozen=True)
class MatrixCompletion:
    """Implicit feedback (Hu et al., 2008: every pair counts, observed ones `weight` times) under a nuclear norm bound.

    The bound takes the place of the rank and of the regulariser of a factorisation; Frank-Wolfe needs one pair of
    singular vectors a step (Jaggi and Sulovsky, 2010) and stops by its gap. A user is the row of the training events:
    what comes later in a history is removed from the lists that are without seen items, and changes nothing else.

    Attributes:
      radius: of the nuclear norm, in units of the first singular value of the 0/1 matrix of training events.
      weight: of an observed pair beside another one.
      steps: at most; also the rank at most.
      tolerance: stops where the gap is at most this share of the objective of the zero matrix.
      power_iterations: of a step.
    """

    radius: float = 10.0
    weight: float = 2.0
    steps: int = 300
    tolerance: float = 1e-3
    power_iterations: int = 8

    def __post_init__(self) -> None:
        for name in ("radius", "weight", "steps", "tolerance", "power_iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"MatrixCompletion: expected {name} > 0, got {getattr(self, name)}")

    def fit(self, stages: Stages, name: str) -> Completed:
        """Completes the matrix, or reads the factors that are there."""
        directory, split = stages.directory / "systems" / name, stages.split
        inputs = {"split": split.fingerprint}
        if not artifact.is_current(directory, kind=KIND, config=self, inputs=inputs):
            self._write(directory, split, inputs)
        return Completed(directory)

    def _write(self, directory: epath.Path, split: Split, inputs: Mapping[str, str]) -> None:
        began = time.perf_counter()
        events = split.training_events()
        split.check_no_leak(events, used_by="matrix completion")
        pairs = events.select("user", "item").unique(maintain_order=True)
        user, item = (pairs[name].to_numpy().astype(np.int32) for name in ("user", "item"))
        shape = (split.corpus.num_users, split.corpus.num_items)
        found = complete(
            user,
            item,
            shape,
            radius=self.radius * first_singular_value(user, item, shape),
            weight=self.weight,
            steps=self.steps,
            tolerance=self.tolerance,
            iterations=self.power_iterations,
        )
        seconds = np.float64(time.perf_counter() - began)

        def write(aside: epath.Path) -> None:
            with (aside / "factors.npz").open("wb") as file:
                np.savez(file, users=found.users, items=found.items, gaps=found.gaps, seconds=seconds)

        fingerprint = artifact.fingerprint(found.users, found.items)
        artifact.write_artifact(directory, kind=KIND, fingerprint=fingerprint, config=self, inputs=inputs, write=write)


@dataclasses.dataclass(frozen=True, eq=False)
class Completed:
    """Factors on disk.

    Attributes:
      directory: of the artefact.
    """

    directory: epath.Path

    @functools.cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        with (self.directory / "factors.npz").open("rb") as file, np.load(file) as arrays:
            return dict(arrays)

    @property
    def fingerprint(self) -> str:
        manifest = artifact.read_manifest(self.directory, KIND)
        return artifact.fingerprint(manifest.fingerprint, manifest.inputs["split"])

    @property
    def facts(self) -> Mapping[str, Any]:
        users, items = self._arrays["users"], self._arrays["items"]
        return {
            "parameters": users.size + items.size,
            "rank": users.shape[1],
            "gap": float(self._arrays["gaps"][-1]),
            "train_seconds": round(float(self._arrays["seconds"]), 1),
        }

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user, exactly."""
        lists, scores = exact_top_k(self._arrays["users"][evaluation.user], self._arrays["items"], evaluation, k)
        return Ranking(lists, scores)
