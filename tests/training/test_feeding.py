"""What is read ahead: in order, bounded, with the state of the batch in use, and ended cleanly."""

import threading
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plum_jax.training import feeding
from plum_jax.training.feeding import Prefetcher


class Numbers:
    """Batch n is the number n; it fails at `end`."""

    def __init__(self, end=None, size=1):
        self.number, self.end, self.size = 0, end, size

    def __next__(self):
        if self.number == self.end:
            raise OSError(f"no batch {self.end}")
        self.number += 1
        return {"x": np.full(self.size, self.number)}

    def get_state(self):
        return self.number


def feed_threads():
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_batches_come_in_order_each_with_its_own_state():
    prefetcher = Prefetcher(Numbers(), lambda batch: batch["x"] * 10)
    time.sleep(0.05)  # it is far ahead by now
    for number in range(1, 100):
        fed = next(prefetcher)
        assert (fed.host["x"][0], fed.device[0], fed.state) == (number, 10 * number, number)
    prefetcher.close()
    assert not feed_threads()


@pytest.mark.parametrize(("size", "most"), [(1, feeding.READY_BATCHES), (feeding.READY_BYTES // 16, 2)])
def test_it_reads_only_so_far_ahead(size, most):
    numbers = Numbers(size=size)
    prefetcher = Prefetcher(numbers, lambda batch: None)
    next(prefetcher)
    ended = time.monotonic() + 10
    while numbers.number < most and time.monotonic() < ended:
        time.sleep(0.01)
    time.sleep(0.1)
    assert most <= numbers.number <= most + 1
    prefetcher.close()


def test_a_failure_comes_after_the_batches_before_it_and_ends_the_thread():
    prefetcher = Prefetcher(Numbers(end=3), lambda batch: None)
    assert [next(prefetcher).state for _ in range(3)] == [1, 2, 3]
    for _ in range(2):
        with pytest.raises(OSError, match="no batch 3"):
            next(prefetcher)
    prefetcher.close()
    assert not feed_threads()


class Sharded:
    batch_size, feed_shards = 16, 8

    def make_iterator(self, shards=None):
        return shards


@pytest.mark.parametrize(("shape", "expected"), [((8, 1), range(8)), ((2, 4), range(8)), ((1, 8), range(8))])
def test_a_process_reads_the_shards_of_its_rows(shape, expected):
    mesh = Mesh(np.asarray(jax.devices()).reshape(shape), ("data", "tensor"))
    assert feeding.shards_of_process(Sharded(), NamedSharding(mesh, PartitionSpec("data"))) == tuple(expected)


def test_some_rows_make_the_arrays_of_some_devices(monkeypatch):
    """As if this process had the devices of half the rows alone: only their shards are asked for."""

    class HalfHere:
        def addressable_devices_indices_map(self, shape):
            return {device: (slice(4 * n, 4 * n + 4),) for n, device in enumerate(jax.devices()[:2], start=2)}

    assert feeding.shards_of_process(Sharded(), HalfHere()) == (4, 5, 6, 7)
    states = [{"shards": {"0": {"row": 1}}}, {"shards": {"1": {"row": 5}}}]
    monkeypatch.setattr(feeding.processes, "gather", lambda state: states)
    assert feeding.gathered_state(states[0]) == {"shards": {"0": {"row": 1}, "1": {"row": 5}}}
