"""Stages that have a split and a directory, and nothing else."""

import dataclasses
import pathlib

from etils import epath

from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split
from plum_jax.stages import Data, Stages


@dataclasses.dataclass(frozen=True)
class Ready:
    """A source and a splitter of what is there."""

    made: Split

    def inputs(self) -> dict[str, str]:
        """Nothing is read."""
        return {}

    def read(self) -> Corpus:
        """The corpus."""
        return self.made.corpus

    def split(self, corpus: Corpus) -> Split:
        """The split."""
        return self.made


def stages_of_split(split: Split, directory: pathlib.Path) -> Stages:
    """The stages of a run over it."""
    return Stages(Data(Ready(split), Ready(split)), epath.Path(directory))
