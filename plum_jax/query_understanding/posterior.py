"""What the simulation of queries itself says of a query's classes: the most that any classifier could know."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.taxonomy import NONE
from plum_jax.queries.known_item import ItemWords, KnownItemQueries
from plum_jax.query_understanding.classifier import shares_or_prior
from plum_jax.query_understanding.log import QueryLog

Slots = tuple[int, ...]  # places in a query, ascending


@dataclasses.dataclass(frozen=True)
class SimulatorPosterior:
    """Shares of classes by Bayes' rule: P(item | query) in proportion to P(query | item) P(item), summed over items.

    No rival: it is told how the queries were made (`KnownItemQueries`), and says how far above others one could come.
    P(query | item) is exact but for queries into which one word was drawn twice; P(item) is the share of training
    events, which is what is known of the events to come.

    Attributes:
      queries: how the log's queries were drawn.
      unseen: events that each item is given besides its own.
    """

    queries: KnownItemQueries
    unseen: float = 0.5

    def fit(self, log: QueryLog, directory: epath.Path) -> FittedPosterior:
        """Reads the words of all items and counts the training events; nothing is trained."""
        begun, corpus = time.perf_counter(), log.split.corpus
        words = self.queries.words(corpus)
        prior = np.where(log.class_of_item != NONE, log.taken(log.training_events) + self.unseen, 0.0)
        items = pl.DataFrame({"item": np.arange(corpus.num_items), "class": log.class_of_item, "prior": prior})
        tables, longest = {}, int((words.numbers > 0).sum(axis=1).max())
        for length in range(1, 1 + min(len(self.queries.lengths), longest)):
            draws = _draws(words, length, self.queries.lengths).join(items.filter(pl.col("prior") > 0), on="item")
            for size in range(length + 1):
                for slots in itertools.combinations(range(length), size):
                    together = draws.group_by([*_names(slots), "class"]).agg(
                        (pl.col("probability") * pl.col("prior")).sum().alias("weight")
                    )
                    tables[length, slots] = together
        of_class = np.bincount(log.class_of_item[prior > 0], weights=prior[prior > 0], minlength=log.num_classes)
        facts = {"train_seconds": round(time.perf_counter() - begun, 1)}
        return FittedPosterior(words, tables, of_class / of_class.sum(), self.queries.noise, facts)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedPosterior:
    """`SimulatorPosterior` of a log.

    Attributes:
      words: of the items.
      tables: words of a query and some of its slots -> "word_<slot>" of each, "class", and "weight": how often, in
        events, an item of the class was meant and these of its words were drawn into these slots.
      prior: float64 [C], for queries that cannot have been drawn.
      noise: probability of a word that is not the item's.
      facts: for `results.jsonl`.
    """

    words: ItemWords
    tables: Mapping[tuple[int, Slots], pl.DataFrame]
    prior: np.ndarray
    noise: float
    facts: Mapping[str, Any]

    def shares(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, C]."""
        found = np.zeros((len(texts), len(self.prior)))
        longest = max(length for length, _ in self.tables)
        numbers = self.words.known.numbers(texts, longest + 1)
        lengths = (numbers > 0).sum(axis=1)
        for (length, slots), table in self.tables.items():
            rows = np.flatnonzero(lengths == length)
            # Each word is the item's, or another one: those in `slots` are the item's here, the others were replaced.
            replaced = [slot for slot in range(length) if slot not in slots]
            chance = self.noise * self.words.frequency[numbers[rows][:, replaced]]
            asked = pl.DataFrame(
                {
                    "row": rows,
                    "chance": (1 - self.noise) ** len(slots) * chance.prod(axis=1),
                    **{name: numbers[rows, slot] for name, slot in zip(_names(slots), slots, strict=True)},
                }
            )
            met = asked.join(table, on=_names(slots)) if slots else asked.join(table, how="cross")
            np.add.at(
                found, (met["row"].to_numpy(), met["class"].to_numpy()), (met["chance"] * met["weight"]).to_numpy()
            )
        return shares_or_prior(found, self.prior)


def _names(slots: Slots) -> list[str]:
    return [f"word_{slot}" for slot in slots]


def _draws(words: ItemWords, length: int, lengths: Sequence[float]) -> pl.DataFrame:
    """All ways to draw `length` words of an item: "item", "word_0", ... in the text's order, and "probability"."""
    counts, shares = (words.numbers > 0).sum(axis=1), np.array(lengths) / sum(lengths)
    frames = []
    for count in np.unique(counts[counts >= length]):
        items = np.flatnonzero(counts == count)
        # Who wants more words than there are gets all.
        wanted = shares[length - 1 :].sum() if count == length else shares[length - 1]
        places = np.array(list(itertools.combinations(range(count), length)))
        weights = np.maximum(words.weight[words.numbers[items, :count]], 1e-9).astype(np.float64)
        chosen = (weights / weights.sum(axis=1, keepdims=True))[:, places]  # [items, draws, length]
        probability = np.zeros(chosen.shape[:2])
        for order in itertools.permutations(range(length)):
            one, left = np.ones_like(probability), np.ones_like(probability)
            for place in order:
                one *= chosen[..., place] / np.maximum(left, 1e-12)
                left -= chosen[..., place]
            probability += one
        drawn = words.numbers[items][:, places].reshape(-1, length)
        frames.append(
            pl.DataFrame(
                {
                    "item": np.repeat(items, len(places)),
                    **{name: drawn[:, slot] for slot, name in enumerate(_names(tuple(range(length))))},
                    "probability": (wanted * probability).ravel(),
                }
            )
        )
    return pl.concat(frames)
