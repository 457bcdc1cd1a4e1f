"""A trained relevance model: what it says of pairs, kept for its students; itself in 8 bits; one request."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.model.int8 import quantised
from plum_jax.queries.words import require_words
from plum_jax.relevance.pairs import Pairs, RelevanceData
from plum_jax.relevance.reader import PairReader, PairScorer
from plum_jax.training.metrics_log import read_metrics, seconds_of

HEAD = "^(hidden_states|hidden_numbers|interaction|head)/"  # the head's parameters, which stay float32 in 8 bits
Of = Literal["unlabelled", "validation", "test"]


@dataclasses.dataclass(frozen=True, eq=False)
class FittedRelevance:
    """Attributes:
    reader: of pairs.
    params: host arrays, or `Int8Weights` among them.
    data: that it was trained on.
    directory: of the training, which keeps its logits too.
    facts: of the training.
    """

    reader: PairReader
    params: Any
    data: RelevanceData
    directory: epath.Path
    facts: Mapping[str, Any]

    @property
    def served_params(self) -> Any:
        """All that an answer takes: its own, and those that a query is read by."""
        return {"model": self.params, "reading": self.reader.reading_params}

    @functools.cached_property
    def scorer(self) -> PairScorer:
        """Of pairs."""
        return self.reader.scorer(self.params)

    def logits(self, of: Of) -> np.ndarray:
        """float32 [n, C] of pairs of the data, computed once: a teacher has students of several seeds."""
        pairs, directory = self.data.pairs(of), self.directory / "logits" / of
        inputs = {"model": self._fingerprint, "pairs": pairs.fingerprint}
        if not artifact.is_current(directory, kind="relevance_logits", config={}, inputs=inputs):
            found = self.scorer.logits(self.reader.queries, pairs)

            def write(aside: epath.Path) -> None:
                with (aside / "logits.npy").open("wb") as file:
                    np.save(file, found)

            made = artifact.fingerprint(found)
            artifact.write_artifact(
                directory, kind="relevance_logits", fingerprint=made, config={}, inputs=inputs, write=write
            )
        with (directory / "logits.npy").open("rb") as file:
            return np.load(file)

    @functools.cached_property
    def _fingerprint(self) -> str:
        return artifact.fingerprint(
            *(np.asarray(leaf) for leaf in jax.tree.leaves(self.params)), self.reader.fingerprint
        )

    def int8(self) -> FittedRelevance:
        """The same with the weights in 8 bits and the head in float32."""
        params = quantised(self.params, HEAD)
        return dataclasses.replace(self, params=params, directory=self.directory / "int8")

    def levels(self, query: str, items: np.ndarray) -> np.ndarray:
        """float32 [n], the expected levels of items (numbers) for a query that need not be among the data's.

        Raises:
          ValueError: a query without a word.
        """
        require_words(query)
        pairs = Pairs(np.zeros(len(items), np.int32), items.astype(np.int32), np.zeros(len(items), np.int32))
        return self.data.classes.expected(self.scorer.logits(self.reader.read_queries([query]), pairs))

    @property
    def train_seconds(self) -> float:
        """Of all phases."""
        folders = [path for path in self.directory.iterdir() if (path / "metrics.jsonl").exists()]
        return round(sum(seconds_of(read_metrics(folder)) for folder in folders), 1)
