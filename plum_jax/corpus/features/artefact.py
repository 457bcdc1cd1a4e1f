"""ItemFeatures: all feature blocks of a corpus, each in a folder of its own."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.corpus.features.block import FeatureBlock, FeatureError, check_block
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split

KIND = "item_features"
BLOCK_KIND = "feature_block"
BLOCKS = "blocks.json"


class FeatureBuilder(Protocol):
    """Makes one block. A frozen dataclass; one that reads files also has `inputs() -> {what: fingerprint}`.

    One that some corpora have nothing for also has `lacks(corpus) -> str`: what is not there, "" where all is.
    """

    @property
    def name(self) -> str:
        """Name of the block."""

    def compute(self, split: Split) -> FeatureBlock:
        """The block of all items of `split.corpus`, from item data and `split.training_events()` only."""


@dataclasses.dataclass(frozen=True, eq=False)
class ItemFeatures:
    """Feature blocks over the same N items, in the order asked for."""

    blocks: tuple[FeatureBlock, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", tuple(self.blocks))
        _check_names([block.name for block in self.blocks])
        rows = {block.name: len(block.values) for block in self.blocks}
        if len(set(rows.values())) != 1:
            raise FeatureError(f"expected at least one block, all over the same items, got rows {rows}")

    @property
    def num_items(self) -> int:
        return len(self.blocks[0].values)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of the blocks' names, values and presence."""
        return artifact.fingerprint(*(_block_fingerprint(block) for block in self.blocks))

    def block(self, name: str) -> FeatureBlock:
        """The block of this name.

        Raises:
          FeatureError: there is none; names those there are.
        """
        for block in self.blocks:
            if block.name == name:
                return block
        raise FeatureError(f"no feature block {name!r}; there are {[block.name for block in self.blocks]}")

    def take(self, items: np.ndarray) -> ItemFeatures:
        """The features of these items, int [n], in this order."""
        return ItemFeatures(
            tuple(FeatureBlock(b.name, b.values[items], b.present[items]) for b in self.blocks)  # copies
        )

    def save(self, directory: epath.PathLike, config: Any, inputs: Mapping[str, str]) -> artifact.Manifest:
        """Writes the artefact "item_features": a folder for each block, `blocks.json`, and the manifest last."""
        directory = epath.Path(directory)
        (directory / artifact.MANIFEST).unlink(missing_ok=True)
        for block in self.blocks:
            _save_block(directory, block, config, inputs)
        return _finish(directory, self, config, inputs)

    @classmethod
    def load(cls, directory: epath.PathLike) -> ItemFeatures:
        """Reads what `save` or `build_features` wrote.

        Raises:
          ArtifactError: no complete artefact there, or a block that is not the one the manifest speaks of.
        """
        directory = epath.Path(directory)
        manifest = artifact.read_manifest(directory, KIND)
        features = cls(tuple(_load_block(directory, name) for name in json.loads((directory / BLOCKS).read_text())))
        if features.fingerprint != manifest.fingerprint:
            raise artifact.ArtifactError(
                f"{directory} holds item features {features.fingerprint}, its manifest says {manifest.fingerprint}: "
                "its files were changed; delete the directory and build the features again"
            )
        return features


def build_features(split: Split, builders: Sequence[FeatureBuilder], directory: epath.PathLike) -> ItemFeatures:
    """Makes the blocks that are not in `directory` yet, checks them, and returns all of them.

    A block that the corpus has nothing for (text, in a log without text) is left out, and a line is printed.

    Blocks made by the same builder from the same split and files are kept; a run killed between two blocks goes on with
    the second.

    Raises:
      FeatureError: no builder, two of one name, none that the corpus has anything for, or a block that `check_block`
        refuses.
      LeakError: a builder learns from held-out events.
    """
    directory = epath.Path(directory)
    _check_names([builder.name for builder in builders])
    builders = _with_material(split.corpus, builders)
    inputs = {builder.name: _inputs(split, builder) for builder in builders}
    config = {"builders": [artifact.describe(builder) for builder in builders]}
    all_inputs = {key: value for of_one in inputs.values() for key, value in of_one.items()}
    if artifact.is_current(directory, kind=KIND, config=config, inputs=all_inputs):
        return ItemFeatures.load(directory)
    (directory / artifact.MANIFEST).unlink(missing_ok=True)  # until all blocks are there, nothing is
    blocks = []
    for builder in tqdm(builders, desc="item features", unit=" blocks", delay=1):
        if not artifact.is_current(
            directory / builder.name, kind=BLOCK_KIND, config=builder, inputs=inputs[builder.name]
        ):
            block = builder.compute(split)
            check_block(block, split.corpus)
            _save_block(directory, block, builder, inputs[builder.name])
        blocks.append(_load_block(directory, builder.name))
    features = ItemFeatures(tuple(blocks))
    _finish(directory, features, config, all_inputs)
    return features


def _with_material(corpus: Corpus, builders: Sequence[FeatureBuilder]) -> list[FeatureBuilder]:
    """The builders that this corpus has something for; says which it has nothing for."""
    lacks = {builder.name: getattr(builder, "lacks", lambda corpus: "")(corpus) for builder in builders}
    kept = [builder for builder in builders if not lacks[builder.name]]
    if not kept:
        raise FeatureError(
            f"corpus {corpus.name!r} has {' and '.join(lacks.values())}, and the blocks {list(lacks)} are made of "
            "nothing else: name them in the source, or add a block to FEATURES, such as CoWatchEmbedding"
        )
    for builder in builders:
        if lacks[builder.name]:
            others = " and ".join(repr(other.name) for other in kept)
            print(
                f"{corpus.name}: {lacks[builder.name]}, so no block {builder.name!r}; items are described by {others}"
            )
    return kept


def _check_names(names: list[str]) -> None:
    if not names or len(set(names)) != len(names):
        raise FeatureError(f"expected at least one feature block, each of its own name, got {names}: set `name`")


def _inputs(split: Split, builder: FeatureBuilder) -> dict[str, str]:
    files: dict[str, str] = getattr(builder, "inputs", dict)()
    return {
        "corpus": split.corpus.fingerprint,
        "split": split.fingerprint,
        **{f"{builder.name}: {what}": value for what, value in files.items()},
    }


def _block_fingerprint(block: FeatureBlock) -> str:
    return artifact.fingerprint(block.name, block.values, block.present)


def _save_block(directory: epath.Path, block: FeatureBlock, config: Any, inputs: Mapping[str, str]) -> None:
    def write(aside: epath.Path) -> None:
        for name, array in (("values", block.values), ("present", block.present)):
            with (aside / f"{name}.npy").open("wb") as file:
                np.save(file, array, allow_pickle=False)

    artifact.write_artifact(
        directory / block.name,
        kind=BLOCK_KIND,
        fingerprint=_block_fingerprint(block),
        config=config,
        inputs=inputs,
        write=write,
    )


def _load_block(directory: epath.Path, name: str) -> FeatureBlock:
    artifact.read_manifest(directory / name, BLOCK_KIND)
    arrays = {}
    for part in ("values", "present"):
        with (directory / name / f"{part}.npy").open("rb") as file:
            arrays[part] = np.load(file, allow_pickle=False)
    return FeatureBlock(name, **arrays)


def _finish(directory: epath.Path, features: ItemFeatures, config: Any, inputs: Mapping[str, str]) -> artifact.Manifest:
    artifact.write_json(directory / BLOCKS, [block.name for block in features.blocks])
    manifest = artifact.Manifest(
        kind=KIND, fingerprint=features.fingerprint, inputs=dict(inputs), config=artifact.describe(config)
    )
    artifact.write_json(directory / artifact.MANIFEST, dataclasses.asdict(manifest))
    return manifest
