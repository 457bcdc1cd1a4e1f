"""Vectors of texts by a language model as it was imported: what nothing was trained for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.encoders.language_model import LanguageModelStart
from plum_jax.encoders.length_blocks import blocks_by_length
from plum_jax.encoders.network import TextEncoder

KIND = "text_vectors"
_SIZES = (1, 8, 64)  # texts of the compiled programs
_STEP = 8  # lengths are multiples of it, so that few programs are compiled


@dataclasses.dataclass(frozen=True, eq=False)
class TextVectors:
    """A language model that is asked for texts' vectors.

    Attributes:
      start: the imported model.
      length: tokens that are read of each text.

    Raises:
      ValueError: a model without parameters of its own.
    """

    start: LanguageModelStart
    length: int = 64

    def __post_init__(self) -> None:
        if self.start.params is None:
            raise ValueError("expected a language model with imported weights: vectors of random ones say nothing")

    @functools.cached_property
    def params(self) -> Any:
        """Of a `TextEncoder`, on the device, where they stay from one call to the next."""
        return jax.device_put(self.start.encoder_params)

    @property
    def dim(self) -> int:
        """Of the vectors."""
        return self.start.config.d_model

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, D] of length one, the mean of each text's states."""
        encoder = TextEncoder(self.start.config, self.start.vocab_size, "mean")
        rows = self.start.rows(texts, self.length)
        found = np.zeros((len(texts), self.dim), np.float32)
        blocks = blocks_by_length(rows.lengths, _SIZES)
        for block, filled in tqdm(blocks, desc="text vectors", unit=" blocks", delay=3):
            tokens, lengths = rows.of(filled)
            tokens = np.pad(tokens, ((0, 0), (0, -tokens.shape[1] % _STEP)))
            found[block] = np.asarray(_apply(encoder, self.params, tokens, lengths))[: len(block)]
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    def kept(self, texts: Sequence[str], run: epath.PathLike) -> np.ndarray:
        """The same, computed once a run: "text_vectors/<model>" in its directory is read where it is of these texts.

        A process that asks while another computes them waits for it.
        """
        model, config = self.start.fingerprint, {"length": self.length}
        directory = epath.Path(run) / KIND / model
        inputs = {"language_model": model, "texts": artifact.fingerprint(tuple(texts))}
        with artifact.alone(directory):
            if not artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
                found = self.of(texts)

                def write(aside: epath.Path) -> None:
                    with (aside / "vectors.npy").open("wb") as file:
                        np.save(file, found)

                made = artifact.fingerprint(found)
                artifact.write_artifact(
                    directory, kind=KIND, fingerprint=made, config=config, inputs=inputs, write=write
                )
        with (directory / "vectors.npy").open("rb") as file:
            return np.load(file)

    def of_both(
        self, queries: Sequence[str], items: Sequence[str], run: epath.PathLike
    ) -> tuple[np.ndarray, np.ndarray]:
        """float32 [Q, D] of queries and [N, D] of items, kept as one."""
        found = self.kept([*queries, *items], run)
        return found[: len(queries)], found[len(queries) :]


@functools.partial(jax.jit, static_argnums=0)
def _apply(encoder: TextEncoder, params: Any, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    return encoder.bind({"params": params})(tokens, lengths)
