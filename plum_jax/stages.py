"""The stages that all systems share: corpus, split, item features and Semantic IDs; each is made once and then read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

from etils import epath

from plum_jax import artifact
from plum_jax.corpus import schema, splits
from plum_jax.corpus.features import ItemFeatures, build_features
from plum_jax.corpus.features.artefact import FeatureBuilder
from plum_jax.semantic_ids.balance import BalancedLastLevel
from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.collisions import CollisionPolicy
from plum_jax.semantic_ids.quantization import Quantizer
from plum_jax.semantic_ids.table import SidTable


class StageError(ValueError):
    """A stage is asked for that the configuration leaves out."""


class Source(Protocol):
    """Where a corpus comes from: a frozen dataclass of `plum_jax.corpus.sources`."""

    def inputs(self) -> dict[str, str]:
        """Hashes of the files it reads, so that a changed file makes the corpus, and all after it, again."""

    def read(self) -> schema.Corpus:
        """The whole corpus."""


class Splitter(Protocol):
    """A frozen dataclass of `plum_jax.corpus.splits`."""

    def split(self, corpus: schema.Corpus) -> splits.Split:
        """Every event in one fold."""


@dataclasses.dataclass(frozen=True)
class Data:
    """What is read and prepared for all systems; `stages(directory)` does it.

    Attributes:
      source, splitter: events, and which of them train.
      feature_builders: blocks of item features; () where no system reads any.
      quantizer: of Semantic IDs; None where no system reads any.
      collision_policy, balance: of the SidTable.
    """

    source: Source
    splitter: Splitter
    feature_builders: Sequence[FeatureBuilder] = ()
    quantizer: Quantizer | None = None
    collision_policy: CollisionPolicy = "keep"
    balance: BalancedLastLevel | None = None

    def stages(self, directory: epath.PathLike) -> Stages:
        """The stages of these data in one directory."""
        return Stages(self, epath.Path(directory))


@dataclasses.dataclass(frozen=True)
class Stages:
    """The shared artefacts of one run. A property makes what is not there yet, and whatever it needs, and reads it.

    Attributes:
      data: what to make.
      directory: of the run.
    """

    data: Data
    directory: epath.Path

    @functools.cached_property
    def corpus(self) -> schema.Corpus:
        directory, source = self.directory / "corpus", self.data.source
        inputs = source.inputs()
        if artifact.is_current(directory, kind=schema.KIND, config=source, inputs=inputs):
            return schema.Corpus.load(directory)
        corpus = source.read()
        corpus.save(directory, config=source, inputs=inputs)
        return corpus

    @functools.cached_property
    def split(self) -> splits.Split:
        return self.data.splitter.split(self.corpus)

    @functools.cached_property
    def features(self) -> ItemFeatures:
        """Raises `StageError` where there are none."""
        if not self.data.feature_builders:
            raise StageError("expected item features, and Data.feature_builders is (): set FEATURES (gin/corpus/)")
        return build_features(self.split, self.data.feature_builders, self.directory / "features")

    @functools.cached_property
    def table(self) -> SidTable:
        """Raises `StageError` where there are no Semantic IDs."""
        data = self.data
        if data.quantizer is None:
            raise StageError("expected Semantic IDs, and Data.quantizer is None: set QUANTIZER (gin/semantic_ids/)")
        return build_sid_table(
            self.split,
            self.features,
            data.quantizer,
            data.collision_policy,
            self.directory / "sids",
            balance=data.balance,
        )
