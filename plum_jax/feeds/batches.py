"""Batches: Grain over materialised token records, with a state of a few integers.

Why not Grain's own packer: its first fit closes all bins as soon as one sequence does not fit, and it walks a tree for
each sequence. On rows of 128 it gave 0.14M tokens/s for sequences of 16 tokens, and 83% full rows for sequences of 50.
Here the mixture, the global shuffle and the epochs are Grain's, as a function of an index; a window of that order is
read in one call, packed best-fit by numpy (1.1M tokens/s, and 87% full, on the same), and its rows are shuffled.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import grain
import numpy as np

from plum_jax import artifact
from plum_jax.feeds import packing, token_records
from plum_jax.feeds.shuffling import fold_seed, shuffled

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TokenBatches:
    """Batches of packed (or, one record a row, unpacked) sequences from one artefact of token records.

    Every value of a batch is [rows, length]: `decoder_input_tokens`, `decoder_target_tokens`, `decoder_segment_ids`
    (0 = padding), `decoder_positions` int32, and `decoder_loss_weights` float32.

    What batch n is does not depend on the number of processes, so that a run may go on with another. A batch is
    `feed_shards` equal blocks of rows, each from a stream of its own (its share of every task's records, its own
    packing and state); a process reads and packs only the shards it has rows of, and a checkpoint has the states of
    all. Set `feed_shards` once, to the number of hosts of the largest pod that the run may meet: with fewer shards than
    hosts several hosts read and pack the same one, which is exact and wastes their time. The other exact way, one
    stream that every process packs whole, is what `feed_shards=1` does; at 1M tokens/s a core it feeds a few hosts.

    Attributes:
      records_dir: artefact of kind "token_records".
      batch_size: rows over all processes.
      length: tokens in a row; no record may be longer.
      seed: order of the records; every epoch has another order.
      rates: sampling rate of each task; those of the artefact where None. Tasks not named are left out.
      rate_unit: what rates are shares of, "sequences" or "tokens": a task of short records needs more of them to be
        half of the tokens.
      share: from where to where of each task's records, in a fixed random order, are fed: (0.0, 0.9) leaves a tenth for
        another feed that judges.
      num_epochs: for a single task: end after so many, the last batch filled up with empty rows. None: never end.
      once: every record of all tasks once, in one shuffle, whatever the rates; then the feed ends as with `num_epochs`.
      pack: whether several records may share a row.
      packing_window: records that are read and packed together; larger fills rows better and shuffles more finely.
      feed_shards: number of independent streams; another number is another order.
      start_token: what every sequence's inputs begin with.
    """

    records_dir: str | os.PathLike[str]
    batch_size: int
    length: int
    seed: int = 0
    rates: Mapping[str, float] | None = None
    rate_unit: str = "sequences"
    share: tuple[float, float] = (0.0, 1.0)
    num_epochs: int | None = None
    once: bool = False
    pack: bool = True
    packing_window: int = 4096
    feed_shards: int = 1
    start_token: int = 0

    def __post_init__(self) -> None:
        if self.rate_unit not in ("sequences", "tokens"):
            raise ValueError(f"expected a rate_unit of 'sequences' or 'tokens', got {self.rate_unit!r}")
        if not 0 <= self.share[0] < self.share[1] <= 1:
            raise ValueError(f"expected a share (from, to) with 0 <= from < to <= 1, got {self.share}")
        if self.batch_size % self.feed_shards:
            raise ValueError(f"{self.batch_size=} must be divisible by {self.feed_shards=}")
        if not self.tasks:
            raise ValueError(f"the mixture of {self.records_dir} has no tasks: name some in rates, or leave rates None")
        for task in self.tasks:
            longest = task.statistics
            if longest.records < self.feed_shards:
                raise ValueError(
                    f"task {task.name} in {self.records_dir} has {longest.records} records, expected one for each of "
                    f"{self.feed_shards} feed shards at least: check its templates and its split, or leave it out"
                )
            if longest.max_length > self.length:
                raise ValueError(
                    f"task {task.name} in {self.records_dir}: record {longest.longest_record} has {longest.max_length} "
                    f"tokens, but a row has {self.length}: raise the length, or shorten the task's history and texts"
                )
        if self.num_epochs is not None and len(self.tasks) > 1:
            names = [task.name for task in self.tasks]
            raise ValueError(f"num_epochs={self.num_epochs} is meaningless for a mixture of {names}: leave it None")

    @functools.cached_property
    def tasks(self) -> tuple[token_records.TaskRecords, ...]:
        """The tasks that are fed, with the rates of records that are used."""
        if self.rate_unit == "tokens":
            return tuple(
                dataclasses.replace(task, rate=task.rate * task.statistics.records / task.statistics.tokens)
                for task in self._asked
            )
        return self._asked

    @property
    def _asked(self) -> tuple[token_records.TaskRecords, ...]:
        """The tasks with the rates as they were given."""
        tasks = token_records.read_tasks(self.records_dir)
        if self.rates is None:
            return tasks
        names = [task.name for task in tasks]
        unknown = sorted(set(self.rates) - set(names))
        if unknown or any(rate <= 0 for rate in self.rates.values()):
            raise ValueError(
                f"rates for {self.records_dir}: expected positive rates for tasks among {names}, got {self.rates}"
            )
        return tuple(dataclasses.replace(t, rate=self.rates[t.name]) for t in tasks if t.name in self.rates)

    @property
    def fingerprint(self) -> str:
        """Hash of the records' content and rates: what a checkpoint was trained on."""
        return artifact.read_manifest(self.records_dir, token_records.KIND).fingerprint

    def count(self) -> int:
        """Batches until the feed ends, by reading all of them: for `once` and `num_epochs`."""
        return sum(1 for _ in self.make_iterator())

    @property
    def steps_per_epoch(self) -> float:
        """Batches that hold, in expectation, as many records as the tasks have in all."""
        records = sum(task.statistics.records for task in self.tasks)
        if not self.pack:
            return records / self.batch_size
        total_rate = sum(task.rate for task in self.tasks)
        mean_length = sum(t.rate / total_rate * t.statistics.tokens / t.statistics.records for t in self.tasks)
        return records * mean_length / (self.batch_size * self.length)

    def make_iterator(self, shards: Sequence[int] | None = None) -> ShardsIterator:
        """A fresh iterator at the start, over the rows of these shards (all by default), one after the other."""
        if shards is None:
            shards = range(self.feed_shards)
        elif (self.once or self.num_epochs is not None) and len(shards) < self.feed_shards:
            raise ValueError(
                f"{'once' if self.once else f'num_epochs={self.num_epochs}'}: shards end at different steps, so one "
                "process reads all"
            )
        source = grain.sources.ArrayRecordDataSource([path for task in self.tasks for path in task.paths])
        return ShardsIterator({shard: PackedIterator(self, self._order(shard), source, shard) for shard in shards})

    def _order(self, shard: int) -> grain.MapDataset:
        """Position -> index of the record, of one shard."""
        if self.once:
            records = sum(task.statistics.records for task in self.tasks)
            return shuffled(grain.MapDataset.range(records), fold_seed(self.seed, 0))[shard :: self.feed_shards]
        datasets, rates, first = [], [], 0
        for number, task in enumerate(self.tasks):
            after = first + task.statistics.records
            # Shuffled before it is shared out, so that all shards together see every record once an epoch.
            indices = shuffled(self._shared(grain.MapDataset.range(first, after)), fold_seed(self.seed, number))
            datasets.append(indices[shard :: self.feed_shards].repeat(self.num_epochs))
            rates.append(task.rate)
            first = after
        return datasets[0] if len(datasets) == 1 else grain.MapDataset.mix(datasets, rates)

    def _shared(self, indices: grain.MapDataset) -> grain.MapDataset:
        """The records of `share`; the order that they are taken from is the same for every seed."""
        if self.share == (0.0, 1.0):
            return indices
        start, stop = (round(end * len(indices)) for end in self.share)
        start = min(start, len(indices) - 1)  # of few records the last is fed, whatever another feed was given
        return shuffled(indices, 0)[start : max(stop, start + 1)]


class ShardsIterator(grain.DatasetIterator[Batch]):
    """Iterator over the rows of some shards of `TokenBatches`, in their order."""

    def __init__(self, shards: Mapping[int, PackedIterator]) -> None:
        super().__init__()
        self._shards = dict(shards)

    def get_state(self) -> dict[str, Any]:
        """{"shards": {number: state}} of its shards."""
        return {"shards": {str(number): shard.get_state() for number, shard in self._shards.items()}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken; states of other shards are left alone."""
        for number, shard in self._shards.items():
            shard.set_state(state["shards"][str(number)])

    def __next__(self) -> Batch:
        blocks = [shard.next_rows() for shard in self._shards.values()]
        if not any(len(block["decoder_positions"]) for block in blocks):
            raise StopIteration
        # At the end of the last epoch: empty rows, so that every batch has one shape.
        full = [shard.filled_up(block) for shard, block in zip(self._shards.values(), blocks, strict=True)]
        return full[0] if len(full) == 1 else {key: np.concatenate([rows[key] for rows in full]) for key in full[0]}


class PackedIterator:
    """The stream of one shard of `TokenBatches`; its state names the next row, and restoring it is exact."""

    def __init__(self, batches: TokenBatches, order: grain.MapDataset, source: Any, shard: int) -> None:
        self._batches = batches
        self._order = order
        self._source = source
        self._shard = shard
        self._rows = batches.batch_size // batches.feed_shards
        self._window_number = -1  # of the rows in memory
        self._window: Batch = {}
        self.set_state({"window": 0, "row": 0})

    def get_state(self) -> dict[str, Any]:
        """{"window": int, "row": int}: the next row to be given out."""
        return {"window": self._next_window, "row": self._next_row}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was taken."""
        self._next_window, self._next_row = int(state["window"]), int(state["row"])

    def next_rows(self) -> Batch:
        """The shard's rows of the next batch; fewer, or none, at the end of the last epoch."""
        parts: list[Batch] = []
        missing = self._rows
        while missing and self._next_window * self._batches.packing_window < len(self._order):
            window = self._read_window(self._next_window)
            available = len(window["decoder_positions"])
            taken = min(missing, available - self._next_row)
            parts.append({key: rows[self._next_row : self._next_row + taken] for key, rows in window.items()})
            missing -= taken
            self._next_row += taken
            if self._next_row == available:
                self._next_window, self._next_row = self._next_window + 1, 0
        if not parts:
            parts = [{key: rows[:0] for key, rows in self._read_window(0).items()}]
        return parts[0] if len(parts) == 1 else {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def filled_up(self, rows: Batch) -> Batch:
        """`rows` and empty ones, so that there are as many as in every batch."""
        missing = self._rows - len(rows["decoder_positions"])
        if not missing:
            return rows
        return {
            key: np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)])
            for key, value in rows.items()
        }

    def _read_window(self, number: int) -> Batch:
        if number != self._window_number:
            self._window = self._pack_window(number)
            self._window_number = number
        return self._window

    def _pack_window(self, number: int) -> Batch:
        batches = self._batches
        start = number * batches.packing_window
        end = min(start + batches.packing_window, len(self._order))
        records = self._source.__getitems__([self._order[i] for i in range(start, end)])
        if batches.pack:
            rows = packing.best_fit_rows(np.array([len(record) // 8 for record in records]), batches.length)
        else:
            rows = np.arange(len(records))
        num_rows = int(rows.max()) + 1
        # Best fit leaves the rows sorted by their longest sequence: shuffle them.
        of_shard = [self._shard] if self._shard else []
        shuffled = np.random.default_rng([batches.seed, number, *of_shard]).permutation(num_rows)
        return packing.fill_rows(records, shuffled[rows], num_rows, batches.length, batches.start_token)
