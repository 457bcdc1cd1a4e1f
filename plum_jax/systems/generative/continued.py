"""Going on from a run: its parameters and vocabulary meet a corpus that has grown, with the IDs that it had."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact, guard
from plum_jax.model.decoder import Decoder
from plum_jax.semantic_ids.catalogue.accepted import require_old_ids
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.training import saved_params
from plum_jax.training.initial import initial_params


@dataclasses.dataclass(frozen=True)
class Continued:
    """The run of before. Its vocabulary is this run's, its parameters are what the first phase begins with.

    Attributes:
      run: its directory.
      phase: of its trainings, whose parameters are taken: "retrieval" or "cpt".
    """

    # A run may move: what is taken from it is known by its fingerprint.
    run: str = dataclasses.field(metadata=artifact.NOT_DESCRIBED)
    phase: str = "retrieval"

    @functools.cached_property
    def vocabulary(self) -> SidVocabulary:
        return SidVocabulary.load(epath.Path(self.run) / "vocabulary")

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of what is taken from the run."""
        return {"vocabulary": self.vocabulary.fingerprint}

    @property
    def fingerprint(self) -> str:
        """Of the parameters."""
        return artifact.read_manifest(self._params, saved_params.PARAMS_KIND).fingerprint

    def require(self, table: SidTable) -> None:
        """Says what is new in a table.

        Raises:
          SidTableMismatch: it changes an ID that the run was trained with.
        """
        new = require_old_ids(SidTable.load(epath.Path(self.run) / "sids"), table, "this run's SidTable")
        print(f"going on from {self.run}: old Semantic IDs are what they were, {new:,} items are new")

    def params(self, decoder: Decoder) -> Any:
        """The run's parameters (host arrays).

        Raises:
          ArtifactError: it has none of this phase.
          RunError: a decoder of other sizes.
        """
        found = saved_params.load_params(self._params)
        init: Any = initial_params(decoder)
        wanted = jax.eval_shape(init, jax.random.key(0))
        shapes = [{jax.tree_util.keystr(path): np.shape(x) for path, x in _leaves(tree)} for tree in (found, wanted)]
        for name in sorted({*shapes[0], *shapes[1]}):
            there, here = (of.get(name) for of in shapes)
            if there != here:
                raise guard.RunError(
                    f"{self._params} has another decoder: {name} is {there} there, {here} here. Take the run's own "
                    f"sizes: --gin_file={self.run}/config.gin comes first"
                )
        return found

    @property
    def _params(self) -> epath.Path:
        return epath.Path(self.run) / "train" / self.phase / "params"


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(nn.unbox(tree))[0]
