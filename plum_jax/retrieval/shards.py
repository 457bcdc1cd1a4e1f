"""A large table made in shards by any number of processes, so that a kill costs a shard: one Parquet file at the end.

Shard s is process s mod P's. Each is written aside and renamed; the first process waits for all, puts them together in
order and clears them away. So the file is the same for any number of processes, whatever was killed in between.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath
from tqdm import tqdm

from plum_jax import artifact

_PLAN = "plan.json"
_POLL_SECONDS = 0.5
PATIENCE_SECONDS = 3600.0  # how long the first process waits for others while no shard comes


@dataclasses.dataclass(frozen=True)
class Worker:
    """One of `count` processes that share the shards: `index` is 0 for the first, who puts them together."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"expected a process from 0 to {self.count - 1} of {self.count}, got {self.index}")


ALONE = Worker()


@dataclasses.dataclass(frozen=True)
class ShardedTable:
    """A table that is made in shards.

    Attributes:
      directory: of the artefact; the shards lie beside it until they are put together.
      file: name of the Parquet file in it.
      kind: of the artefact.
      schema: of the table.
      config, inputs: what decides the content.
      rows: units of work (users, items) in all; a unit may give any number of the table's rows.
      rows_per_shard: units that a kill can cost.
    """

    directory: epath.Path
    file: str
    kind: str
    schema: pa.Schema
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    rows: int
    rows_per_shard: int

    def make(
        self, make_rows: Callable[[int, int], pa.Table], *, worker: Worker = ALONE, description: str
    ) -> epath.Path | None:
        """Does this process's part, and returns the file's path; None where the first process is yet to write it.

        Args:
          make_rows: (start, stop) -> the table of these units, the same whoever calls it.
          worker: which of the processes this is.
          description: of the progress bar.

        Raises:
          artifact.ArtifactError: a shard is damaged; or other processes do not bring theirs (`PATIENCE_SECONDS`).
        """
        if self._is_made() or not self._open(worker):
            return self.directory / self.file
        own = range(worker.index, self._count, worker.count)
        there = self._there()
        missing = [number for number in own if number not in there]
        for number in tqdm(missing, desc=description, unit=" shards"):
            start = number * self.rows_per_shard
            self._write(number, make_rows(start, min(start + self.rows_per_shard, self.rows)))
        if worker.index:
            return None
        self._wait_for_others(worker)
        self._put_together()
        return self.directory / self.file

    @property
    def _count(self) -> int:
        return -(-self.rows // self.rows_per_shard)

    @property
    def _shards(self) -> epath.Path:
        return self.directory.parent / f".{self.directory.name}.shards"

    def _shard(self, number: int) -> epath.Path:
        return self._shards / f"shard-{number:05d}.parquet"

    def _there(self) -> set[int]:
        names = {path.name for path in self._shards.iterdir()}
        return {number for number in range(self._count) if self._shard(number).name in names}

    def _is_made(self) -> bool:
        return artifact.is_current(self.directory, kind=self.kind, config=self.config, inputs=self.inputs)

    def _open(self, worker: Worker) -> bool:
        """Makes the folder of shards, empty if what is there is of another plan; the first process's task.

        Returns False where the table was finished while another process waited for the folder.
        """
        made_of = {"config": artifact.describe(self.config), "inputs": self.inputs, "schema": str(self.schema)}
        plan = json.loads(json.dumps({**made_of, "rows": self.rows, "rows_per_shard": self.rows_per_shard}))
        path = self._shards / _PLAN
        waiting_since = time.monotonic()
        while not (path.exists() and json.loads(path.read_text()) == plan):
            if worker.index == 0:
                if self._shards.exists():
                    self._shards.rmtree()
                artifact.write_json(path, plan)
            elif self._is_made():
                return False
            elif time.monotonic() - waiting_since > PATIENCE_SECONDS:
                raise artifact.ArtifactError(
                    f"process 0 of {worker.count} has not begun {self.directory} from the same parameters, prompts and "
                    "settings as this one: start all with the same command"
                )
            else:
                time.sleep(_POLL_SECONDS)
        return True

    def _write(self, number: int, table: pa.Table) -> None:
        """Writes a shard aside and renames it: a shard that is there is whole."""
        path = self._shard(number)
        aside = path.parent / f".{path.name}.aside"
        with aside.open("wb") as file:
            pq.write_table(table.cast(self.schema), file, write_page_checksum=True)
        aside.replace(path)

    def _wait_for_others(self, worker: Worker) -> None:
        there, since = self._there(), time.monotonic()
        left = self._count - len(there)
        with tqdm(total=left, desc="other processes", unit=" shards", disable=not left) as progress:
            while len(there) < self._count:
                if time.monotonic() - since > PATIENCE_SECONDS:
                    self._give_up(there, worker)
                time.sleep(_POLL_SECONDS)
                now = self._there()
                if now != there:
                    progress.update(len(now - there))
                    there, since = now, time.monotonic()

    def _give_up(self, there: set[int], worker: Worker) -> NoReturn:
        missing = sorted(set(range(self._count)) - there)
        of = ", ".join(str(process) for process in sorted({number % worker.count for number in missing}))
        raise artifact.ArtifactError(
            f"no shard of {self.directory} has come for {PATIENCE_SECONDS / 60:.0f} minutes, and {len(missing)} of "
            f"{self._count} are missing: start process {of} of {worker.count} again, then this one; or one process "
            "alone, which makes all that is missing"
        )

    def _put_together(self) -> None:
        def write(aside: epath.Path) -> None:
            with (aside / self.file).open("wb") as file, pq.ParquetWriter(file, self.schema) as writer:
                for number in range(self._count):
                    writer.write_table(self._read(number))

        artifact.write_artifact(
            self.directory,
            kind=self.kind,
            fingerprint=artifact.fingerprint(self.config, self.inputs),
            config=self.config,
            inputs=self.inputs,
            write=write,
        )
        self._shards.rmtree()

    def _read(self, number: int) -> pa.Table:
        path = self._shard(number)
        try:
            with path.open("rb") as file:
                return pq.read_table(file, schema=self.schema, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise artifact.ArtifactError(
                f"{path} is damaged ({error}): delete it; the same command makes it again, and no other"
            ) from None
