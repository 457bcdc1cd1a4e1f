"""What a trained trunk says of users and items: vectors, whole histories at once or from a cache on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.corpus.event_fields import GAP, UNKNOWN
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.system import Ranking
from plum_jax.model.cache import KVCache
from plum_jax.model.masks import PackedCausal
from plum_jax.model.repeats import repeat_scores
from plum_jax.systems.scored_items import in_blocks
from plum_jax.systems.trunk.known import TrunkKnown
from plum_jax.systems.trunk.network import TrunkNetwork

_USERS = 256  # of one device call


@dataclasses.dataclass(frozen=True, eq=False)
class TrunkReader:
    """A network with all that is known of items and events.

    Attributes:
      network: that was trained.
      known: items, and fields of events.
      item: int32 [E], of each event.
      history_length: the latest events of a user that are read.
    """

    network: TrunkNetwork
    known: TrunkKnown
    item: np.ndarray
    history_length: int

    def items(self, params: Any) -> np.ndarray:
        """float32 [N, D] of all items."""
        return np.asarray(_item_vectors(self.network, params))

    def users(
        self, params: Any, histories: Sequence[np.ndarray], requests: np.ndarray | None = None, later: int = 0
    ) -> np.ndarray:
        """float32 [U, D]: what is compared with items. A user without history is all zeros.

        Args:
          params: of the network.
          histories: int64 [n] each, rows of the corpus's events, oldest first.
          requests: int32 [U, G], what is known of each user's request; None: nothing.
          later: 0 for the next item; k for the one k events behind it, of a trunk that predicts so many.

        Raises:
          ValueError: `later` that the network does not predict.
        """
        if later >= self.network.config.tokens:
            raise ValueError(
                f"the trunk predicts the next {self.network.config.tokens} items, and the one {later} behind the next "
                "is asked for: train it with more tokens"
            )
        if requests is None:
            requests = self.no_request(len(histories))
        batch, lengths = self.read(histories, requests)
        names = list(batch)
        vectors = _item_vectors(self.network, params)

        def run(lengths: np.ndarray, *columns: np.ndarray) -> jax.Array:
            return _last(self.network, params, vectors, dict(zip(names, columns, strict=True)), lengths, later)

        found = in_blocks(run, min(_USERS, len(histories)), lengths, *batch.values())
        return np.where(lengths[:, None] > 0, found, 0.0).astype(np.float32)

    def read(self, histories: Sequence[np.ndarray], requests: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The latest events of each history as a batch of `TrunkNetwork.represented`, [U, history_length] with padding
        on the right, and how many there are, int32 [U]. Behind each event stands the request of the one after it.
        """
        most = self.history_length
        lengths = np.array([min(len(history), most) for history in histories], np.int32)
        events = np.zeros((len(histories), most), np.int64)
        for row, (history, length) in enumerate(zip(histories, lengths, strict=True)):
            events[row, :length] = history[len(history) - length :]
        request = np.roll(self.known.request.buckets[events], -1, axis=1)
        last = np.maximum(lengths - 1, 0)
        request[np.arange(len(last)), last] = requests
        places = np.broadcast_to(np.arange(most, dtype=np.int32), events.shape).copy()
        batch = {
            "decoder_input_tokens": self.item[events],
            "post": self.known.post.buckets[events],
            "request": request,
            "decoder_positions": places,
        }
        return batch, lengths

    def no_request(self, users: int) -> np.ndarray:
        """int32 [U, G], of requests of which nothing is known."""
        return np.full((users, len(self.known.request.names)), UNKNOWN, np.int32)

    def requests_of(self, evaluation: EvaluationSet) -> np.ndarray:
        """int32 [U, G], of the targets' requests. A gap is known where the event before the target is the history's
        last: else it would tell of events that are not in the history.
        """
        found = self.known.request.buckets[evaluation.target_event].copy()
        if GAP in self.known.request.names:
            ends = evaluation.history_offsets[1:]
            last = np.where(
                np.diff(evaluation.history_offsets) > 0, evaluation.history_events[np.maximum(ends - 1, 0)], -2
            )
            place = self.known.request.names.index(GAP)
            found[:, place] = np.where(last == evaluation.target_event - 1, found[:, place], UNKNOWN)
        return found

    def rank(self, params: Any, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user at the request of the target, exactly."""
        users = self.users(params, histories_of(evaluation), self.requests_of(evaluation))
        worth: Any = self.network.apply({"params": params}, method="repeat_worth")
        added = repeat_scores(np.asarray(worth), evaluation.history_items, evaluation.history_offsets)
        lists, scores = exact_top_k(users, self.items(params), evaluation, k, added=added)
        return Ranking(lists, scores)

    def begin(
        self, params: Any, histories: Sequence[np.ndarray], requests: np.ndarray
    ) -> tuple[jax.Array, KVCache, np.ndarray]:
        """Representations behind each of some users' events [U, T, D], the cache of their keys and values, and how many
        events each has, int32 [U]: what `go_on` goes on from.
        """
        batch, lengths = self.read(histories, requests)
        vectors = _item_vectors(self.network, params)
        states, cache = _begun(self.network, params, vectors, batch, lengths)
        return states, cache, lengths

    def go_on(
        self, params: Any, cache: KVCache, seen: np.ndarray, batch: Mapping[str, np.ndarray]
    ) -> tuple[jax.Array, KVCache]:
        """Representations behind new events [U, T, D] and the cache with them; equal to reading all at once.

        Args:
          params: of the network.
          cache: of `begin` or `go_on`, S events.
          seen: bool [U, S], which of them are real.
          batch: of new events, all real, as `TrunkNetwork.represented` has it; their positions go on.

        Raises:
          ValueError: positions that do not go on: an event that is older than the cache's last, or one that is left
            out. Nothing is read.
        """
        _require_going_on(np.asarray(seen), np.asarray(batch["decoder_positions"]))
        vectors = _item_vectors(self.network, params)
        return _gone_on(self.network, params, vectors, cache, seen, dict(batch))


def _require_going_on(seen: np.ndarray, positions: np.ndarray) -> None:
    expected = seen.sum(axis=1, keepdims=True) + np.arange(positions.shape[1])
    wrong = np.argwhere(positions != expected)
    if len(wrong):
        row, place = wrong[0]
        raise ValueError(
            f"row {row}: the cache has {int(seen[row].sum())} events, so that position {expected[row, place]} comes "
            f"next, and the event that came has {positions[row, place]}: events go on in order of time; leave out the "
            "older ones, or begin anew with the whole history"
        )


def histories_of(evaluation: EvaluationSet) -> list[np.ndarray]:
    """int64 [n] each, the rows of the corpus's events before each user's target."""
    offsets = evaluation.history_offsets
    return [evaluation.history_events[start:stop] for start, stop in zip(offsets, offsets[1:], strict=False)]


@functools.partial(jax.jit, static_argnums=0)
def _item_vectors(network: TrunkNetwork, params: Any) -> jax.Array:
    found: Any = network.apply({"params": params}, method="vectors")
    return found


def _segments(lengths: jax.Array, length: int) -> PackedCausal:
    return PackedCausal((jnp.arange(length) < lengths[:, None]).astype(jnp.int32))


@functools.partial(jax.jit, static_argnums=(0, 5))
def _last(
    network: TrunkNetwork, params: Any, vectors: jax.Array, batch: Any, lengths: jax.Array, later: int
) -> jax.Array:
    mask = _segments(lengths, batch["decoder_positions"].shape[1])
    states: Any = network.apply({"params": params}, vectors, batch, mask, method="represented")
    place = jnp.maximum(lengths - 1, 0)[:, None, None]
    last: Any = jnp.take_along_axis(states[0], place, axis=1)
    if later:
        last = network.apply({"params": params}, last, later, method="later")
    return last[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def _begun(network: TrunkNetwork, params: Any, vectors: jax.Array, batch: Any, lengths: jax.Array) -> Any:
    mask = _segments(lengths, batch["decoder_positions"].shape[1])
    return network.apply({"params": params}, vectors, batch, mask, KVCache(), method="represented")


@functools.partial(jax.jit, static_argnums=0)
def _gone_on(
    network: TrunkNetwork, params: Any, vectors: jax.Array, cache: KVCache, seen: jax.Array, batch: Any
) -> Any:
    length = batch["decoder_positions"].shape[1]
    new = jnp.broadcast_to(jnp.tril(jnp.ones((length, length), bool)), (len(seen), length, length))
    mask = jnp.concatenate([jnp.repeat(seen[:, None], length, axis=1), new], axis=2)
    return network.apply({"params": params}, vectors, batch, mask, cache, method="represented")
