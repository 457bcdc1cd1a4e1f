"""Token records: sequences of token ids with float loss weights in ArrayRecord files, written once and read at random.

A record holds n little-endian int32 tokens followed by n little-endian float32 weights; `weights[i]` is the loss weight
of predicting `tokens[i]` from what precedes it. The tasks write them, training feeds on them; neither needs the other.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from array_record.python import array_record_module
from etils import epath

from plum_jax import artifact

KIND = "token_records"
TASK_KIND = "token_record_task"
STATISTICS = "statistics.json"
RECORDS_PER_FILE = 1_000_000


@dataclasses.dataclass(frozen=True)
class TaskStatistics:
    """Counts of one task's records.

    Attributes:
      records: number of sequences.
      tokens: tokens in all of them.
      unique_tokens: how many different ids occur.
      max_length: tokens of the longest record.
      longest_record: its index.
      weighted_tokens: tokens whose loss weight is not zero.
      weight_sum: sum of all loss weights.
      largest_token: the largest id, so that a smaller vocabulary is noticed.
      content: hash of all records.
    """

    records: int
    tokens: int
    unique_tokens: int
    max_length: int
    longest_record: int
    weighted_tokens: int
    weight_sum: float
    largest_token: int
    content: str


class TokenRecordWriter:
    """Writes records into `directory/records-00000.array_record`, ... and counts them; a context manager."""

    def __init__(self, directory: epath.PathLike) -> None:
        self._directory = epath.Path(directory)
        self._writer: Any = None
        self._seen = np.zeros(1024, bool)
        self._counts: dict[str, int] = dict.fromkeys(
            ("records", "tokens", "max_length", "longest_record", "weighted_tokens"), 0
        )
        self._weight_sum = 0.0
        self._digest = hashlib.sha256()

    def __enter__(self) -> TokenRecordWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, tokens: np.ndarray, weights: np.ndarray) -> None:
        """Adds one record: `tokens` int [n], `weights` float [n].

        Raises:
          ValueError: lengths differ, the sequence is empty, a token is negative, or a weight is negative or not finite.
        """
        counts = self._counts
        index = counts["records"]
        tokens, weights = np.asarray(tokens, "<i4"), np.asarray(weights, "<f4")
        if tokens.ndim != 1 or tokens.shape != weights.shape or not tokens.size:
            raise ValueError(
                f"record {index}: expected tokens [n] and weights [n], n > 0, got {tokens.shape=} {weights.shape=}"
            )
        total = float(weights.sum())
        if not (weights.min() >= 0 and total < np.inf):
            raise ValueError(f"record {index}: expected finite weights >= 0, got {weights.tolist()}")
        largest = int(tokens.max())
        if tokens.min() < 0:
            raise ValueError(f"record {index}: expected token ids >= 0, got {tokens.tolist()}")
        if largest >= len(self._seen):
            self._seen = np.pad(self._seen, (0, 2 * largest - len(self._seen) + 1))
        self._seen[tokens] = True
        if tokens.size > counts["max_length"]:
            counts["max_length"], counts["longest_record"] = tokens.size, index
        if index % RECORDS_PER_FILE == 0:
            self._next_file(index // RECORDS_PER_FILE)
        record = tokens.tobytes() + weights.tobytes()
        self._writer.write(record)
        self._digest.update(len(record).to_bytes(8, "little") + record)
        counts["records"] += 1
        counts["tokens"] += tokens.size
        counts["weighted_tokens"] += int(np.count_nonzero(weights))
        self._weight_sum += total

    def _next_file(self, number: int) -> None:
        if self._writer is not None:
            self._writer.close()
        path = self._directory / f"records-{number:05d}.array_record"
        # One record a group: training reads in a global shuffle, and a larger group would be decompressed for each.
        self._writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")

    @property
    def statistics(self) -> TaskStatistics:
        """Counts of what has been written so far."""
        seen = np.flatnonzero(self._seen)
        return TaskStatistics(
            **self._counts,
            unique_tokens=len(seen),
            weight_sum=self._weight_sum,
            largest_token=int(seen[-1]) if len(seen) else -1,
            content=self._digest.hexdigest()[:16],
        )


@dataclasses.dataclass(frozen=True)
class TaskRecords:
    """One task's share of a token-record artefact: where its files lie, its mixture rate and counts."""

    name: str
    directory: epath.Path
    rate: float
    statistics: TaskStatistics

    @property
    def paths(self) -> list[str]:
        """The ArrayRecord files, in order."""
        return sorted(os.fspath(path) for path in self.directory.glob("*.array_record"))


def write_task(
    directory: epath.PathLike,
    records: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    name: str,
    config: Any,
    inputs: Mapping[str, str],
) -> TaskStatistics:
    """Writes one task's (tokens, weights) pairs as an artefact of kind `TASK_KIND`.

    Raises:
      ValueError: the task has no records.
    """
    statistics: list[TaskStatistics] = []

    def write(aside: epath.Path) -> None:
        with TokenRecordWriter(aside) as writer:
            for tokens, weights in records:
                try:
                    writer.write(tokens, weights)
                except ValueError as error:
                    raise ValueError(f"task {name}: {error}") from None
        if not writer.statistics.records:
            raise ValueError(f"task {name} has no records: check its templates and its split, or leave it out")
        statistics.append(writer.statistics)
        artifact.write_json(aside / STATISTICS, dataclasses.asdict(writer.statistics))

    artifact.write_artifact(
        directory,
        kind=TASK_KIND,
        fingerprint=artifact.fingerprint(name, config, dict(inputs)),
        config=config,
        inputs=inputs,
        write=write,
    )
    return statistics[0]


def write_manifest(
    directory: epath.PathLike, *, rates: Mapping[str, float], config: Any, inputs: Mapping[str, str]
) -> None:
    """Declares `directory`, whose sub-directories are finished tasks, a complete artefact of kind `KIND`."""
    directory = epath.Path(directory)
    contents = {name: _read_statistics(directory / name).content for name in rates}
    manifest = artifact.Manifest(
        kind=KIND,
        fingerprint=artifact.fingerprint(contents, dict(rates)),
        inputs=dict(inputs),
        config=artifact.describe(config),
    )
    artifact.write_json(directory / STATISTICS, {"rates": dict(rates)})
    artifact.write_json(directory / artifact.MANIFEST, dataclasses.asdict(manifest))


def read_tasks(directory: epath.PathLike) -> tuple[TaskRecords, ...]:
    """The tasks of a finished token-record artefact, in mixture order.

    Raises:
      artifact.ArtifactError: nothing there, or not finished.
    """
    directory = epath.Path(directory)
    artifact.read_manifest(directory, KIND)
    rates: dict[str, float] = json.loads((directory / STATISTICS).read_text())["rates"]
    tasks = []
    for name, rate in sorted(rates.items()):
        statistics = _read_statistics(directory / name)
        tasks.append(TaskRecords(name=name, directory=directory / name, rate=rate, statistics=statistics))
    return tuple(tasks)


def _read_statistics(directory: epath.Path) -> TaskStatistics:
    artifact.read_manifest(directory, TASK_KIND)
    return TaskStatistics(**json.loads((directory / STATISTICS).read_text()))


def unpack(records: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Records as they lie in a file -> (lengths int64 [R], tokens int32 [sum of lengths], weights float32 [same])."""
    lengths = np.fromiter((len(record) // 8 for record in records), np.int64, len(records))
    words = np.frombuffer(b"".join(records), "<i4")
    first = np.repeat(np.cumsum(lengths) - lengths, lengths)  # where this token's record starts among all tokens
    token_at = np.arange(len(first)) + first
    return lengths, words[token_at], words.view("<f4")[token_at + np.repeat(lengths, lengths)]
