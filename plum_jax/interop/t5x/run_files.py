"""What a run of `plum` has prepared, as T5X's programs need it: vocabulary, SidTable, records and prompts."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.interop.t5x.installed import T5xError
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.retrieval import read_prompts

FOLDS = ("validation", "test")
PHASES = ("cpt", "retrieval")


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """The directory of a run (`plum --gin_file=gin/run/prepare.gin`, or one that has trained); nothing is made in it.

    Attributes:
      directory: MODEL_DIR of the run.
    """

    directory: str

    def __post_init__(self) -> None:
        missing = [name for name in ("sids", "vocabulary") if not (self._path / name / artifact.MANIFEST).exists()]
        if missing:
            raise T5xError(
                f"expected the directory of a run of plum in RUN_DIR, got {self.directory}, which has no "
                f"{' and no '.join(missing)}: make it with gin/run/prepare.gin (docs/t5x.md)"
            )

    @property
    def _path(self) -> epath.Path:
        return epath.Path(self.directory)

    @functools.cached_property
    def vocabulary(self) -> SidVocabulary:
        return SidVocabulary.load(self._path / "vocabulary")

    @functools.cached_property
    def table(self) -> SidTable:
        """Raises `T5xError` where its codebooks are not the vocabulary's."""
        table = SidTable.load(self._path / "sids")
        if table.codebook_sizes != self.vocabulary.codebook_sizes:
            raise T5xError(
                f"{self.directory}: the SidTable has codebooks {table.codebook_sizes}, the vocabulary "
                f"{self.vocabulary.codebook_sizes}: prepare the run again"
            )
        return table

    def records(self, phase: str) -> epath.Path:
        """The token records of a phase, which `tasks.registered` reads."""
        if phase not in PHASES:
            raise T5xError(f"expected a phase of {PHASES}, got {phase!r}")
        return self._path / "records" / phase

    @functools.cached_property
    def folds(self) -> dict[str, pl.DataFrame]:
        """Prompts of the folds that are there.

        Raises:
          T5xError: none is.
        """
        there = [fold for fold in FOLDS if (self._path / "prompts" / fold / artifact.MANIFEST).exists()]
        if not there:
            raise T5xError(f"{self.directory} has no prompts: prepare the run with gin/run/prepare.gin (docs/t5x.md)")
        return {fold: read_prompts(self._path / "prompts" / fold) for fold in there}

    @functools.cached_property
    def prompts(self) -> pl.DataFrame:
        """All folds, one after the other: what "row" of the registered prompts counts through."""
        return pl.concat(list(self.folds.values()))

    def targets(self, fold: str) -> np.ndarray:
        """int32 [users, L]: the tokens of each user's target."""
        return self.vocabulary.encode_sid(self.table.codes[self.folds[fold]["target_item"].to_numpy()])

    @property
    def prompts_fingerprint(self) -> str:
        inputs = [artifact.read_manifest(self._path / "prompts" / fold, "prompts").fingerprint for fold in self.folds]
        return artifact.fingerprint(inputs, self.vocabulary.fingerprint, self.table.fingerprint)

    @functools.cached_property
    def user_ids(self) -> list[str]:
        """Names of the users."""
        return Corpus.load(self._path / "corpus").users["user_id"].cast(pl.String).to_list()
