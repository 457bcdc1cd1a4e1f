"""What the network reads of examples: the user in one of three ways, the query's words, the source item, fields."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np

from plum_jax import artifact
from plum_jax.corpus.event_fields import EventFields
from plum_jax.corpus.splits import TRAIN, Split
from plum_jax.semantic_ids.assignment import assign
from plum_jax.semantic_ids.residual_kmeans import fit_codebook
from plum_jax.systems.unicorn.examples import NO_EVENT, Examples
from plum_jax.systems.unicorn.vectors import UNKNOWN, UserVectors

Personalisation = Literal["none", "cluster", "full"]
PERSONALISATIONS = ("none", "cluster", "full")


@dataclasses.dataclass(frozen=True, eq=False)
class QueryTable:
    """Queries by row; row 0 is no query.

    Attributes:
      words: int32 [R, W], numbers of known words, 0 behind the last.
      vectors: float32 [R, D_t], of length one or zero.
    """

    words: np.ndarray
    vectors: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Users:
    """Users as they are known, by rows of `UserVectors`; row 0 is a user of whom nothing is.

    Attributes:
      vectors: float32 [1 + R, V], for full personalisation; None: not read.
      cluster: int32 [1 + R], 0 for nobody; None: not read.
      clusters: how many, with the one of nobody.
      of_event: int32 [E], row before each event.
      of_user: int32 [U], newest row of each user.
    """

    vectors: np.ndarray | None
    cluster: np.ndarray | None
    clusters: int
    of_event: np.ndarray
    of_user: np.ndarray

    @classmethod
    def of(cls, personalisation: Personalisation, found: UserVectors | None, split: Split, clusters: int) -> Users:
        """k-means over the vectors that training events read gives the clusters.

        Raises:
          ValueError: personalisation without vectors, or fewer vectors than clusters.
        """
        if personalisation == "none":
            return cls.nobody(split.corpus.num_events, split.corpus.num_users)
        if found is None:
            raise ValueError(
                f"personalisation {personalisation!r} reads vectors of users: set UNICORN_VECTORS (vectors.VectorFile, "
                "vectors.KnowledgeVectors), or take 'none'"
            )
        of_event, of_user = found.of_event + 1, found.of_user + 1
        if personalisation == "full":
            vectors = np.concatenate([np.zeros_like(found.vectors[:1]), found.vectors])
            return cls(vectors, None, 0, of_event, of_user)
        read = np.unique(found.of_event[split.fold == TRAIN])
        read = read[read != UNKNOWN]
        if len(read) < clusters:
            raise ValueError(
                f"expected at least {clusters} vectors that training events read, one a cluster, got {len(read)}: "
                "lower UNICORN_CLUSTERS"
            )
        centroids = fit_codebook(found.vectors[read], clusters, iterations=20, points_per_code=256, seed=0, threads=1)
        nearest = assign(found.vectors, [centroids], threads=1).codes[:, 0]
        cluster = np.concatenate([[0], 1 + nearest]).astype(np.int32)
        return cls(None, cluster, 1 + clusters, of_event, of_user)

    @classmethod
    def nobody(cls, num_events: int, num_users: int) -> Users:
        """No personalisation."""
        return cls(None, None, 0, np.zeros(num_events, np.int32), np.zeros(num_users, np.int32))

    @property
    def width(self) -> int:
        """V; 0 where no vectors are read."""
        return 0 if self.vectors is None else self.vectors.shape[1]


@dataclasses.dataclass(frozen=True)
class ContextSizes:
    """What the data decide over.

    Attributes:
      words: rows of the words' embedding.
      fields: buckets of each field.
      clusters, vector: of users; 0 where they are not read.
    """

    words: int
    fields: tuple[int, ...]
    clusters: int
    vector: int


@dataclasses.dataclass(frozen=True, eq=False)
class Inputs:
    """Columns of contexts, looked up by the columns of `Examples`.

    Attributes:
      queries: by row.
      users: as they are known.
      fields: buckets of country, segment, ... int32 [E, F], by row of `corpus.events`.
      words: rows of the words' embedding.
    """

    queries: QueryTable
    users: Users
    fields: EventFields
    words: int

    @property
    def sizes(self) -> ContextSizes:
        return ContextSizes(self.words, self.fields.sizes, self.users.clusters, self.users.width)

    @functools.cached_property
    def fingerprint(self) -> str:
        users = self.users
        known = [part for part in (users.vectors, users.cluster) if part is not None]
        parts = self.queries.words, self.queries.vectors, self.fields.fingerprint, self.words
        return artifact.fingerprint(*parts, users.of_event, users.clusters, *known)

    def of(self, examples: Examples, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Of examples by their rows int [B]: "task", "source" int32 [B], "query_words" int32 [B, W], "query_vector"
        float32 [B, D_t], "fields" int32 [B, F], and "vector" float32 [B, V] with "known" bool [B], or "cluster" [B].
        """
        event = examples.event[rows]
        someone = event != NO_EVENT
        fields = np.where(someone[:, None], self.fields.buckets[event], 0)
        user = np.where(someone, self.users.of_event[event], 0)
        return self.contexts(examples.task[rows], examples.source[rows], examples.query[rows], user, fields)

    def contexts(
        self, task: np.ndarray, source: np.ndarray, query: np.ndarray, user: np.ndarray, fields: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The same of rows of queries and users int [B], and buckets of fields [B, F]."""
        batch = {
            "task": task,
            "source": source,
            "query_words": self.queries.words[query],
            "query_vector": self.queries.vectors[query],
            "fields": fields.astype(np.int32),
        }
        if self.users.vectors is not None:
            batch |= {"vector": self.users.vectors[user], "known": user > 0}
        if self.users.cluster is not None:
            batch["cluster"] = self.users.cluster[user]
        return batch


def fields_known_before(split: Split, names: Sequence[str]) -> EventFields:
    """Country, segment: columns of users, or of the request, by name.

    Raises:
      ValueError: no such column, or one that is known only after the event.
    """
    corpus = split.corpus
    there = [*corpus.user_features, *corpus.context_features]
    other = [name for name in names if name not in there]
    if other:
        raise ValueError(
            f"fields are columns of users or of requests: expected names among {there} of corpus {corpus.name!r}, got "
            f"{other}"
        )
    return EventFields.of(split, names)
