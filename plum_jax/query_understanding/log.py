"""The query log: what was searched for, what was taken after it and of which category; head, torso and tail."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import scipy.sparse

from plum_jax import artifact
from plum_jax.corpus.splits import FOLDS, TRAIN, Split
from plum_jax.corpus.taxonomy import NONE, ItemCategories, Taxonomy
from plum_jax.queries.known_item import NO_QUERY, KnownItemQueries

HEAD, TORSO, TAIL = 0, 1, 2
BANDS = ("head", "torso", "tail")


@dataclasses.dataclass(frozen=True)
class QueryLogConfig:
    """What the log is made of.

    Attributes:
      queries: of the events.
      categories: of the items; their text is no part of a query.
      unlabelled: queries without a conversion, of items drawn by training popularity: for the student to learn on.
    """

    queries: KnownItemQueries
    categories: ItemCategories
    unlabelled: int = 0

    def __post_init__(self) -> None:
        if self.categories.field in self.queries.fields:
            raise ValueError(
                f"queries are drawn from {self.queries.fields} and are to find {self.categories.field!r}: a query "
                "would say its category; leave that field out of QUERY_TEXT"
            )

    def of(self, split: Split) -> QueryLog:
        """The log of a split; what is learnt from it are its training events alone."""
        corpus = split.corpus
        taxonomy, of_item = self.categories.of(corpus)
        classes, class_of_item = np.unique(of_item[of_item != NONE]), np.full(corpus.num_items, NONE, np.int32)
        class_of_item[of_item != NONE] = np.searchsorted(classes, of_item[of_item != NONE])
        queries = self.queries.of(corpus)
        more: tuple[str, ...] = ()
        if self.unlabelled:
            popularity = split.item_popularity / split.item_popularity.sum()
            random = np.random.default_rng(self.queries.seed)
            drawn = random.choice(corpus.num_items, size=self.unlabelled, p=popularity)
            more = self.queries.for_items(corpus, drawn, "unlabelled").texts
        return QueryLog(split, queries.texts, queries.of_event, class_of_item, taxonomy, classes, more)


@dataclasses.dataclass(frozen=True, eq=False)
class QueryLog:
    """Searches and what they converted to. C classes are the categories that items stand under.

    Attributes:
      split: whose events they are.
      texts: Q queries, of all folds.
      query: int32 [E], of each event; `NO_QUERY`.
      class_of_item: int32 [N]; `NONE`.
      taxonomy: of all categories.
      classes: int32 [C], categories in the taxonomy.
      unlabelled: further queries, of which no conversion is known.
    """

    split: Split
    texts: tuple[str, ...]
    query: np.ndarray
    class_of_item: np.ndarray
    taxonomy: Taxonomy
    classes: np.ndarray
    unlabelled: tuple[str, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(
            self.split.fingerprint, list(self.texts), self.query, self.class_of_item, list(self.unlabelled)
        )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @functools.cached_property
    def class_of_event(self) -> np.ndarray:
        """int32 [E], of the item that was taken."""
        return self.class_of_item[self.split.corpus.events["item"].to_numpy()]

    def events_of(self, fold: int) -> np.ndarray:
        """Rows of events of a fold that have a query and a class."""
        return np.flatnonzero((self.split.fold == fold) & (self.query != NO_QUERY) & (self.class_of_event != NONE))

    @functools.cached_property
    def training_events(self) -> np.ndarray:
        """Rows of the events that are learnt from.

        Raises:
          LeakError: a held-out event among them.
        """
        rows = self.events_of(TRAIN)
        events = self.split.training_events()
        self.split.check_no_leak(events.filter(events["event"].is_in(rows)), used_by="the query log")
        return rows

    def counts(self, events: np.ndarray) -> scipy.sparse.csr_array:
        """float32 [Q, C]: conversions of each query to each class in some events."""
        shape, ones = (len(self.texts), self.num_classes), np.ones(len(events), np.float32)
        return scipy.sparse.coo_array((ones, (self.query[events], self.class_of_event[events])), shape=shape).tocsr()

    def taken(self, events: np.ndarray) -> np.ndarray:
        """int64 [N], how often each item was taken in some events."""
        corpus = self.split.corpus
        return np.bincount(corpus.events["item"].to_numpy()[events], minlength=corpus.num_items)

    @functools.cached_property
    def conversions(self) -> scipy.sparse.csr_array:
        """float32 [Q, C], of the training events."""
        return self.counts(self.training_events)

    @functools.cached_property
    def frequency(self) -> np.ndarray:
        """int64 [Q], training events of each query; 0: it is new."""
        return np.bincount(self.query[self.training_events], minlength=len(self.texts))

    @property
    def learnt_queries(self) -> np.ndarray:
        """The numbers of the queries that stand in training."""
        return np.flatnonzero(self.frequency)

    @functools.cached_property
    def band(self) -> np.ndarray:
        """int8 [Q]: head, the most frequent queries that make a third of the training events; torso, the next third;
        tail, the rest and what is new. Queries of one frequency are of one band, the rarer.
        """
        ascending = np.sort(self.frequency)
        share = np.cumsum(ascending[::-1]) / max(ascending.sum(), 1)
        of_last = np.searchsorted(ascending, self.frequency, side="left")
        made = share[len(ascending) - 1 - of_last]  # by the queries of this frequency and more
        band = np.where(made <= 1 / 3, HEAD, np.where(made <= 2 / 3, TORSO, TAIL))
        return np.where(self.frequency == 0, TAIL, band).astype(np.int8)

    def truth(self, fold: str, at_most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What is to be found of the queries of a fold: their numbers [n], and bool [n, C] the classes of all items
        taken after them in that fold; `at_most` queries evenly spread.
        """
        counts = self.counts(self.events_of(FOLDS[fold]))
        asked = np.flatnonzero(np.diff(counts.indptr))
        asked = evenly_spread(asked, at_most)
        return asked, counts[asked].toarray() > 0

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """Of each class its name, behind its parent's where two classes have one name."""
        names = [self.taxonomy.names[one] for one in self.classes]
        return tuple(
            name if names.count(name) == 1 else f"{self._parent_name(int(one))} {name}"
            for name, one in zip(names, self.classes, strict=True)
        )

    def _parent_name(self, category: int) -> str:
        parent = int(self.taxonomy.parent[category])
        return "" if parent == NONE else self.taxonomy.names[parent]


def evenly_spread(values: np.ndarray, at_most: int | None) -> np.ndarray:
    """`at_most` of some values, the first and the last among them; all for None."""
    if at_most is None or at_most >= len(values):
        return values
    return values[np.linspace(0, len(values) - 1, at_most).astype(int)]
