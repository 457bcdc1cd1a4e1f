"""Codec: what gives an item its codes, frozen once it is fitted, and saved beside the table it made."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features import ItemFeatures
from plum_jax.semantic_ids.assignment import Assignment, assign
from plum_jax.semantic_ids.inputs import BlockInput

CODEC_FILE = "codec.json"
ARRAYS_FILE = "codec.npz"


class Encoder(Protocol):
    """From feature blocks to the latents that codebooks are searched with."""

    @property
    def inputs(self) -> tuple[BlockInput, ...]:
        """The feature blocks that are read."""

    def __call__(self, features: ItemFeatures) -> np.ndarray:
        """Latents float32 [N, D]. A row does not depend on the rows around it."""

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON values and arrays that make the same encoder again."""


@dataclasses.dataclass(frozen=True, eq=False)
class LinearEncoder:
    """Blocks side by side, turned by `rotation` [sum of D, D'] where there is one."""

    inputs: tuple[BlockInput, ...]
    rotation: np.ndarray | None = None

    def __call__(self, features: ItemFeatures) -> np.ndarray:
        mixed = np.concatenate([block_input(features)[0] for block_input in self.inputs], axis=1)
        if self.rotation is None:
            return mixed
        # In single precision a row's last bits depend on its place in the product, and so would near codes.
        return (mixed.astype(np.float64) @ self.rotation.astype(np.float64)).astype(np.float32)

    def to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {} if self.rotation is None else {"rotation": self.rotation}


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """Encoder and codebooks: `assign(encode(features))` are the codes of any items, old or new.

    Attributes:
      encoder: feature blocks -> latents.
      codebooks: L arrays, float32 [W_l, D].
      last_level_bias: float32 [W_L], subtracted from the squared distances of the last level; None: plain nearest.
    """

    encoder: Encoder
    codebooks: tuple[np.ndarray, ...]
    last_level_bias: np.ndarray | None = None

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        return tuple(len(codebook) for codebook in self.codebooks)

    def encode(self, features: ItemFeatures) -> np.ndarray:
        """Latents, float32 [N, D].

        Raises:
          FeatureError, QuantizerError: blocks that are missing, of another dimension, or not finite.
        """
        return self.encoder(features)

    def assign(self, latents: np.ndarray, threads: int | None = None) -> Assignment:
        """Codes and errors of latents [N, D]."""
        return assign(latents, self.codebooks, self.last_level_bias, threads)

    def residual(self, latents: np.ndarray, codes: np.ndarray, level: int) -> np.ndarray:
        """What the codes of the levels before `level` leave of the latents, float32 [N, D]."""
        residual = latents.copy()
        for codebook, code in zip(self.codebooks[:level], codes.T, strict=False):
            residual -= codebook[code]
        return residual

    def last_level_distances(self, latents: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """float32 [N, W_L], squared distances of the last level's codewords as `assign` compares them, plus |r|^2."""
        last = self.codebooks[-1]
        residual = self.residual(latents, codes, len(self.codebooks) - 1)
        squared = np.square(residual).sum(axis=1, keepdims=True)
        distances = squared - 2 * residual @ last.T + np.square(last).sum(axis=1)
        return distances if self.last_level_bias is None else distances - self.last_level_bias

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of all that decides codes: two codecs of one fingerprint give every item the same."""
        described, arrays = self._to_arrays()
        return artifact.fingerprint(described, *(arrays[name] for name in sorted(arrays)))

    def write_files(self, directory: epath.Path) -> None:
        """Writes the codec into an artefact that is being made."""
        described, arrays = self._to_arrays()
        with (directory / ARRAYS_FILE).open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        artifact.write_json(directory / CODEC_FILE, {**described, "fingerprint": self.fingerprint})

    def _to_arrays(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """JSON values and arrays that make the same codec again."""
        facts, arrays = self.encoder.to_arrays()
        inputs = self.encoder.inputs
        arrays = {f"encoder/{name}": value for name, value in arrays.items()}
        arrays |= {f"mean_{number}": block_input.mean for number, block_input in enumerate(inputs)}
        arrays |= {f"level_{level}": codebook for level, codebook in enumerate(self.codebooks)}
        if self.last_level_bias is not None:
            arrays["last_level_bias"] = self.last_level_bias
        described = {
            "encoder": type(self.encoder).__name__,
            "encoder_facts": facts,
            "inputs": [{"name": i.name, "normalise": i.normalise, "scale": i.scale} for i in inputs],
            "levels": len(self.codebooks),
        }
        return described, arrays


def fitted_items(features: ItemFeatures, learnt: Sequence[bool] | np.ndarray) -> ItemFeatures:
    """The features of the items that codebooks may be fitted to."""
    return features if np.all(learnt) else features.take(np.flatnonzero(learnt))
