"""A simulated corpus with planted structure, of any size, whose best possible recall is known.

Items hang on the leaves of a topic tree; within a leaf their popularity is Zipf's. A user has a favourite branch (a
user feature) and a present taste: the topic of what he or she watched last. The next topic c' after topic c is drawn
from

  T(c' | c, branch) = stay·[c' = c] + drift·[c' a sibling of c]/siblings + home·q(c' | branch) + rest·q(c')

with q the topics' overall shares, and the next item from the popularity within c'. A history therefore tells the next
item's distribution completely, and nobody can recommend better than by it.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import polars as pl

from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.sources.simulator_words import WORDS_PER_NODE, node_words, numbered_ids

_START = 1_577_836_800  # 2020-01-01
_DAY = 86_400
_CHANNELS_PER_TOPIC = 5


@dataclasses.dataclass(frozen=True)
class Simulator:
    """Users with histories of items; see the module for how they come about.

    Attributes:
      num_users, num_items: how many.
      mean_history: mean events a user (geometric beyond `minimum_history`).
      minimum_history: fewest events a user.
      branching: children of a node at each depth of the topic tree; the leaves are the topics.
      zipf_exponent: popularity of a topic's r-th item, and of the r-th topic, is r^-zipf_exponent.
      stay, drift, home: chances that the next topic is the present one, a sibling of it, or of the favourite branch;
        the rest goes to all topics by their shares.
      seed: of everything.
    """

    num_users: int = 2000
    num_items: int = 1000
    mean_history: float = 20.0
    minimum_history: int = 5
    branching: tuple[int, ...] = (4, 4, 4)
    zipf_exponent: float = 1.0
    stay: float = 0.5
    drift: float = 0.2
    home: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "branching", tuple(self.branching))
        if not self.branching or min(self.branching) < 2:
            raise CorpusError(
                f"branching must name at least one depth, each with 2 children or more, got {self.branching}"
            )
        if self.num_items < self.num_topics:
            raise CorpusError(
                f"num_items must be at least the number of topics, {self.num_topics}, got {self.num_items}"
            )
        if min(self.stay, self.drift, self.home) < 0 or self.stay + self.drift + self.home > 1:
            raise CorpusError(
                f"stay, drift and home are chances that sum to 1 at most, got {self.stay}, {self.drift}, {self.home}"
            )
        if self.num_users < 1 or self.minimum_history < 2 or self.mean_history < self.minimum_history:
            raise CorpusError(
                "expected num_users >= 1 and mean_history >= minimum_history >= 2, got "
                f"{self.num_users}, {self.mean_history}, {self.minimum_history}"
            )

    @property
    def num_topics(self) -> int:
        return math.prod(self.branching)

    @property
    def num_branches(self) -> int:
        return self.branching[0]

    def inputs(self) -> dict[str, str]:
        """Nothing: the fields say it all."""
        return {}

    def read(self) -> Corpus:
        """Simulates. Equal fields give equal corpora."""
        events = self._events
        return Corpus(
            name=f"simulated-{self.num_users}x{self.num_items}",
            items=self._items(),
            users=pl.DataFrame(
                {
                    "user_id": numbered_ids("u", self.num_users),
                    "favourite": self._words[0][self._favourite, 0],
                }
            ),
            events=events.drop("topic"),
            text_fields=("title",),
            item_features=("topics", "channel"),
            user_features=("favourite",),
        )

    def best_items(self, k: int) -> np.ndarray:
        """int32 [U, k]: the k items most probable as each user's last event, given all events before it."""
        _, state_of_user = self._last_states
        return self._best(k)[0][state_of_user]

    def best_possible_recall(self, k: int, users: np.ndarray | None = None) -> float:
        """Expected recall@k of the best recommender there can be, for each user's last event given those before it.

        The mean over users (these, int [n], or all) of the probability of the k most probable items; items seen before
        are not removed.
        """
        _, state_of_user = self._last_states
        return float(self._best(k)[1][state_of_user if users is None else state_of_user[users]].mean())

    def best_possible_nats(self, users: np.ndarray | None = None) -> float:
        """Mean over users (these, int [n], or all) of -log p(last item | events before it) under the simulator itself.

        What the best model there can be would lose on these very events; its mean over many draws is their entropy.
        """
        states, state_of_user = self._last_states
        users = np.arange(self.num_users) if users is None else users
        last = np.flatnonzero(np.diff(self._events["user"].to_numpy(), append=-1))
        items, of_user = self._events["item"].to_numpy()[last[users]], state_of_user[users]
        nats = np.empty(len(users))
        for state in np.unique(of_user):
            here = of_user == state
            nats[here] = -np.log(self.next_item_probabilities(*states[state])[items[here]])
        return float(nats.mean())

    def best_possible_loss(self) -> float:
        """Expected -log of the probability, in nats an item, that the best recommender gives each user's last event.

        The entropy of the next item given topic and favourite branch, the mean over users. A model that is told no
        favourite must infer it from the history, so its own floor is a little higher.
        """
        states, state_of_user = self._last_states
        probabilities = (self.next_item_probabilities(topic, branch) for topic, branch in states)
        entropies = np.array([-(p * np.log(p, where=p > 0, out=np.zeros_like(p))).sum() for p in probabilities])
        return float(entropies[state_of_user].mean())

    def next_item_probabilities(self, topic: int, branch: int) -> np.ndarray:
        """float64 [N]: distribution of the next item after one of `topic`, for a user whose favourite is `branch`."""
        return self._transition(topic, branch)[self._topic_of_item] * self._share_in_topic

    def _transition(self, topic: int, branch: int) -> np.ndarray:
        """T(. | topic, branch), [topics]."""
        topics, siblings = np.arange(self.num_topics), self.branching[-1]
        same_parent = (topics // siblings == topic // siblings) & (topics != topic)
        at_home = self._topic_shares * (topics // (self.num_topics // self.num_branches) == branch)
        chances = self.stay * (topics == topic) + self.drift * same_parent / (siblings - 1)
        chances += self.home * at_home / at_home.sum()
        return chances + (1 - self.stay - self.drift - self.home) * self._topic_shares

    @functools.cached_property
    def _last_states(self) -> tuple[np.ndarray, np.ndarray]:
        """Different (topic before the last event, favourite branch) [S, 2], and which of them each user is in, [U]."""
        last = np.flatnonzero(np.diff(self._events["user"].to_numpy(), append=-1))
        pairs = np.stack([self._events["topic"].to_numpy()[last - 1], self._favourite], axis=1)
        states, state_of_user = np.unique(pairs, axis=0, return_inverse=True)
        return states, state_of_user.reshape(-1)

    def _best(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k most probable items after each state of `_last_states`, [S, k], and their probabilities' sum, [S]."""
        if not 1 <= k <= self.num_items:
            raise CorpusError(f"k must be between 1 and num_items, {self.num_items}, got {k}")
        rank = np.empty(self.num_items, dtype=np.int64)
        rank[self._by_topic] = np.arange(self.num_items) - self._first_of_topic[self._topic_of_item[self._by_topic]]
        candidates = np.flatnonzero(rank < k)  # a topic's later items are never better than its first k
        items, sums = [], []
        for topic, branch in self._last_states[0]:
            probabilities = self.next_item_probabilities(topic, branch)[candidates]
            best = np.argsort(-probabilities, kind="stable")[:k]
            items.append(candidates[best])
            sums.append(probabilities[best].sum())
        return np.stack(items).astype(np.int32), np.asarray(sums)

    def _random(self, what: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what.encode()])

    @functools.cached_property
    def _topic_shares(self) -> np.ndarray:
        weights = np.arange(1, self.num_topics + 1) ** -self.zipf_exponent
        return self._random("topics").permutation(weights / weights.sum())

    @functools.cached_property
    def _favourite(self) -> np.ndarray:
        """[U] branch."""
        return self._random("favourites").integers(self.num_branches, size=self.num_users)

    @functools.cached_property
    def _topic_of_item(self) -> np.ndarray:
        """[N]; every topic has an item, and their index says nothing about topic or popularity."""
        random = self._random("items")
        more = random.choice(self.num_topics, size=self.num_items - self.num_topics, p=self._topic_shares)
        return random.permutation(np.concatenate([np.arange(self.num_topics), more]))

    @functools.cached_property
    def _by_topic(self) -> np.ndarray:
        """[N] items in order of topic, within a topic from the most popular on."""
        return np.argsort(self._topic_of_item, kind="stable")

    @functools.cached_property
    def _first_of_topic(self) -> np.ndarray:
        """[topics + 1] where each topic begins in `_by_topic`."""
        return np.searchsorted(self._topic_of_item[self._by_topic], np.arange(self.num_topics + 1))

    @functools.cached_property
    def _share_in_topic(self) -> np.ndarray:
        """[N] probability of an item given its topic."""
        first, sizes = self._first_of_topic[:-1], np.diff(self._first_of_topic)
        weights = (np.arange(self.num_items) - np.repeat(first, sizes) + 1.0) ** -self.zipf_exponent
        shares = np.empty(self.num_items)
        shares[self._by_topic] = weights / np.repeat(np.add.reduceat(weights, first), sizes)
        return shares

    @functools.cached_property
    def _events(self) -> pl.DataFrame:
        """Events of a Corpus, and their "topic"."""
        random = self._random("events")
        beyond = random.geometric(1 / (self.mean_history - self.minimum_history + 1), size=self.num_users) - 1
        lengths = self.minimum_history + beyond
        topics = self._walk(lengths, random)
        user = np.repeat(np.arange(self.num_users, dtype=np.int32), lengths)
        # The items of topic c cover the interval [c, c + 1) by their shares; rounding must not lead out of the topic.
        place = np.searchsorted(
            np.cumsum(self._share_in_topic[self._by_topic]), topics + random.random(len(topics)), side="right"
        )
        item = self._by_topic[np.clip(place, self._first_of_topic[topics], self._first_of_topic[topics + 1] - 1)]
        gaps = 1 + random.exponential(_DAY, size=len(topics)).astype(np.int64)
        time = np.cumsum(gaps) - np.repeat(np.cumsum(gaps)[np.cumsum(lengths) - lengths], lengths)
        time += np.repeat(_START + random.integers(365 * _DAY, size=self.num_users), lengths)
        at_home = topics // (self.num_topics // self.num_branches) == self._favourite[user]
        watch_ratio = random.beta(np.where(at_home, 4.0, 2.0), 2.0)
        minutes = self._random("minutes").gamma(2.0, 5.0, size=self.num_items) + 1
        return pl.DataFrame(
            {
                "user": user,
                "item": item.astype(np.int32),
                "time": time,
                "watch_ratio": watch_ratio.astype(np.float32),
                "watch_time": (watch_ratio * minutes[item] * 60).astype(np.float32),
                "topic": topics,
            }
        )

    def _walk(self, lengths: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """[events] topics of all users, one user after the other; one step of all users at a time."""
        starts = np.cumsum(lengths) - lengths
        topics = np.empty(lengths.sum(), dtype=np.int64)
        anywhere = np.cumsum(self._topic_shares)
        leaves, siblings = self.num_topics // self.num_branches, self.branching[-1]
        edges = np.concatenate([[0.0], anywhere])[::leaves]  # of the branches, in the order of `anywhere`
        chances = np.cumsum([self.stay, self.drift, self.home])
        order = np.argsort(-lengths, kind="stable")
        longer = np.searchsorted(-lengths[order], -np.arange(lengths.max()), side="left")
        for step, active in enumerate(longer):
            users = order[:active]
            branch = self._favourite[users]
            # At the start there is no topic to stay at: half begin at home.
            kind = (
                np.searchsorted(chances, random.random(active), side="right") if step else random.integers(2, 4, active)
            )
            low = np.where(kind == 2, edges[branch], 0.0)
            high = np.where(kind == 2, edges[branch + 1], 1.0)
            drawn = np.searchsorted(anywhere, low + (high - low) * random.random(active), side="right")
            drawn = np.minimum(drawn, np.where(kind == 2, (branch + 1) * leaves, self.num_topics) - 1)
            if step:
                now = topics[starts[users] + step - 1]
                sibling = now - now % siblings + (now + random.integers(1, siblings, active)) % siblings
                drawn = np.select([kind == 0, kind == 1], [now, sibling], drawn)
            topics[starts[users] + step] = drawn
        return topics

    @functools.cached_property
    def _words(self) -> list[np.ndarray]:
        """For each depth the words of its nodes, [nodes, words]; no two nodes share a word."""
        return node_words(self.branching, self._random("words"))

    def _items(self) -> pl.DataFrame:
        """Titles of one word of each node from the branch down, and one more of the leaf; "topics" names the nodes."""
        random = self._random("titles")
        nodes = [self._topic_of_item // (self.num_topics // int(size)) for size in np.cumprod(self.branching)]
        names = [pl.Series(words[node, 0]) for words, node in zip(self._words, nodes, strict=True)]
        picked = [
            pl.Series(words[node, random.integers(WORDS_PER_NODE, size=self.num_items)])
            for words, node in zip([*self._words, self._words[-1]], [*nodes, nodes[-1]], strict=True)
        ]
        channel = self._words[-1][nodes[-1], random.integers(_CHANNELS_PER_TOPIC, size=self.num_items)]
        return pl.select(
            item_id=numbered_ids("i", self.num_items),
            title=pl.concat_str(picked, separator=" "),
            topics=pl.concat_list(names),
            channel=pl.concat_str(pl.Series(channel), pl.lit(" channel")),
        )
