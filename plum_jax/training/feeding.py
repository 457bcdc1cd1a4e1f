"""From a feed to the devices: which rows each process reads, and a thread that has the next batches ready."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.sharding import Sharding

from plum_jax.training import processes

Batch = Mapping[str, np.ndarray]
# What is kept ready ahead of the step: packing a window takes as long as tens of small steps.
READY_BATCHES, READY_BYTES = 32, 64 << 20


class Feed(Protocol):
    """What training reads: batches of all rows, the same on every process, from an iterator whose state is saved."""

    def make_iterator(self) -> Any:
        """An iterator with `get_state()` and `set_state(state)` (JSON or bytes) besides `__next__`."""


@runtime_checkable
class ShardedFeed(Protocol):
    """A feed of `feed_shards` equal blocks of rows, each a stream of its own: a process reads those it has rows of.

    Its iterator's state is {"shards": {number: state}} of the shards it reads.
    """

    @property
    def batch_size(self) -> int:
        """Rows over all processes."""

    @property
    def feed_shards(self) -> int:
        """Number of blocks; part of what a batch is, and so not a matter of how many processes there are."""

    def make_iterator(self, shards: Sequence[int] | None = None) -> Any:
        """An iterator over the rows of these shards (all by default), one after the other."""


def open_feed(feed: Feed | ShardedFeed, sharding: Sharding) -> tuple[Any, Callable[[Batch], Any]]:
    """The iterator that this process reads, and the function that makes global device arrays of its batches."""
    if jax.process_count() == 1:
        return feed.make_iterator(), functools.partial(jax.device_put, device=sharding)
    if not isinstance(feed, ShardedFeed):
        return feed.make_iterator(), lambda batch: {
            name: jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
            for name, array in batch.items()
        }
    shards = shards_of_process(feed, sharding)
    # Where in this process's rows a row of the batch is. Devices of two processes may share rows (tensor axis).
    place_of = np.full(feed.batch_size, -1)
    rows = np.arange(feed.batch_size).reshape(feed.feed_shards, -1)[list(shards)].reshape(-1)
    place_of[rows] = np.arange(len(rows))

    def place(array: np.ndarray) -> jax.Array:
        shape = (len(place_of), *array.shape[1:])

        def piece(index: Any) -> np.ndarray:
            return array[place_of[index[0]]][:, *index[1:]]

        return jax.make_array_from_callback(shape, sharding, piece)

    return feed.make_iterator(shards), lambda batch: {name: place(array) for name, array in batch.items()}


def shards_of_process(feed: ShardedFeed, sharding: Sharding) -> tuple[int, ...]:
    """The shards that hold a row of one of this process's devices."""
    devices = sharding.addressable_devices_indices_map((feed.batch_size,))
    rows = np.concatenate([np.arange(feed.batch_size)[index] for index in devices.values()])
    return tuple(np.unique(rows // (feed.batch_size // feed.feed_shards)).tolist())


def gathered_state(state: Any) -> Any:
    """The state of a feed as all processes together have it: what a checkpoint keeps, for any number of processes."""
    states = processes.gather(state)
    if len(states) == 1 or not (isinstance(state, dict) and "shards" in state):
        return states[0]
    return {"shards": {number: of_shard for one in states for number, of_shard in one["shards"].items()}}


@dataclasses.dataclass(frozen=True)
class Fed:
    """One batch: on the host, on the devices, and the iterator's state after it."""

    host: Batch
    device: Any
    state: Any


class Prefetcher:
    """Reads an iterator in a thread of its own, `READY_BATCHES` ahead at most, and puts them on the devices.

    What is ready and unused at the end is dropped: the state that a checkpoint keeps is that of the batch in use.
    """

    def __init__(self, iterator: Any, place: Callable[[Batch], Any]):
        self._iterator = iterator
        self._place = place
        self._ready: collections.deque[tuple[Fed, int]] = collections.deque()
        self._ready_bytes = 0
        self._failure: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)
        self._thread.start()

    def __next__(self) -> Fed:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._failure is not None)
            if not self._ready:
                assert self._failure is not None
                raise self._failure
            fed, size = self._ready.popleft()
            self._ready_bytes -= size
            self._changed.notify_all()
            return fed

    def close(self) -> None:
        """Ends the thread; it finishes the batch that it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _read(self) -> None:
        try:
            while self._has_room():
                host = next(self._iterator)
                fed = Fed(host, self._place(host), self._iterator.get_state())
                size = sum(array.nbytes for array in host.values())
                with self._changed:
                    self._ready.append((fed, size))
                    self._ready_bytes += size
                    self._changed.notify_all()
        except BaseException as failure:  # it is the reader's, when it has used what came before
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _has_room(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._is_full())
            return not self._closed

    def _is_full(self) -> bool:
        return bool(self._ready) and (len(self._ready) >= READY_BATCHES or self._ready_bytes >= READY_BYTES)
