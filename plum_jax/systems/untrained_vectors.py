"""Vectors of judged queries and items by a language model as it was imported, kept for runs of other seeds."""

from __future__ import annotations

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.text_vectors import text_vectors
from plum_jax.systems.judge_search import Vectors

KIND = "untrained_vectors"
TOKENS = 64  # that are read of a text
_FILE = "vectors.npz"


def untrained_vectors(judged: JudgedQueries, model: LanguageModel, directory: epath.PathLike) -> Vectors:
    """Vectors of all queries and items, made where `directory` does not have them yet.

    Raises:
      ValueError: a model without weights of its own.
    """
    directory = epath.Path(directory)
    start = model.start((), directory)
    inputs = {"judgements": judged.fingerprint, "language_model": start.fingerprint}
    config = {"tokens": TOKENS}
    if not artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
        queries, items = (text_vectors(start, texts, TOKENS) for texts in (judged.queries, judged.texts))

        def write(aside: epath.Path) -> None:
            with (aside / _FILE).open("wb") as file:
                np.savez(file, queries=queries, items=items)

        made = artifact.fingerprint(queries, items)
        artifact.write_artifact(directory, kind=KIND, fingerprint=made, config=config, inputs=inputs, write=write)
    with (directory / _FILE).open("rb") as file, np.load(file) as found:
        return found["queries"], found["items"]
