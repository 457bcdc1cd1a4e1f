"""What a train step costs where a study is to run: measured here, or compiled for a TPU slice that is not here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.evaluation.scalable import DataFacts
from plum_jax.pods.programs import DoesNotFit, compile_train_step
from plum_jax.pods.report import Roofline
from plum_jax.pods.topology import topology_devices
from plum_jax.studies.places import Cell, StudyError
from plum_jax.studies.step_timing import step_times
from plum_jax.studies.study import Study


@dataclasses.dataclass(frozen=True)
class StepCost:
    """One step of one cell.

    Attributes:
      seconds: measured; of a compiled step, were nothing to overlap; None: it does not fit.
      seconds_at_least: of a compiled step, were all to hide behind the slowest; None: measured.
      peak_hbm_bytes, hbm_bytes: of a chip: needed and there; None: not known.
    """

    seconds: float | None
    seconds_at_least: float | None = None
    peak_hbm_bytes: int | None = None
    hbm_bytes: float | None = None

    @property
    def fits(self) -> bool | None:
        """Whether a chip has the memory; None: not known."""
        if self.hbm_bytes is None:
            return None
        return self.peak_hbm_bytes is not None and self.peak_hbm_bytes <= self.hbm_bytes


@dataclasses.dataclass(frozen=True)
class Here:
    """This machine, by steps that are timed on it.

    Attributes:
      price_per_hour: of the whole machine, in any currency; None: no cost is said.
    """

    price_per_hour: float | None = None

    chips = 1
    name = "this machine"

    @property
    def price(self) -> float | None:
        """Of an hour of a chip; the machine counts as one."""
        return self.price_per_hour

    def step_costs(
        self, study: Study, cells: Sequence[Cell], data: DataFacts, directory: epath.Path
    ) -> dict[str, StepCost]:
        """By cell id; what was timed before is read from the directory."""
        return {cell: StepCost(seconds) for cell, seconds in step_times(study, cells, data, directory).items()}


@dataclasses.dataclass(frozen=True)
class Pod:
    """A TPU slice that need not be here: each size's own step is compiled for it, at its largest batch.

    Seconds are the roofline's, nothing overlapped, at the published figures of the chip; smaller batches in proportion.

    Attributes:
      topology: chip and shape, "v5e:4x4".
      num_slices: joined by the data-centre network.
      price_per_chip_hour: in any currency; None: no cost is said.
    """

    topology: str
    num_slices: int = 1
    price_per_chip_hour: float | None = None

    @property
    def name(self) -> str:
        """As a plan names it."""
        return self.topology + (f" x {self.num_slices}" if self.num_slices > 1 else "")

    @property
    def chips(self) -> int:
        """Of all slices."""
        return len(topology_devices(self.topology, self.num_slices)[1])

    @property
    def price(self) -> float | None:
        """Of an hour of a chip."""
        return self.price_per_chip_hour

    def step_costs(
        self, study: Study, cells: Sequence[Cell], data: DataFacts, directory: epath.Path
    ) -> dict[str, StepCost]:
        """By cell id; what was compiled before is read from the directory.

        Raises:
          StudyError: a batch that the slice's chips do not divide.
          TopologyError: no libtpu, or no such topology.
        """
        largest: dict[str, Cell] = {}
        for cell in sorted(cells, key=lambda c: c.batch_size):
            largest[cell.size] = cell
        path = directory / f"step_costs_{self.name.replace(':', '_').replace(' ', '')}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        keys = {size: self._key(study, cell, data) for size, cell in largest.items()}
        missing = {size: cell for size, cell in largest.items() if keys[size] not in known}
        for size, cell in tqdm(missing.items(), desc=f"compiling for {self.name}", unit=" sizes", disable=not missing):
            known[keys[size]] = dataclasses.asdict(self._compiled(study, cell, data))
            artifact.write_json(path, known)
        return {cell.cell_id: _scaled(known[keys[cell.size]], cell, largest[cell.size]) for cell in cells}

    def _key(self, study: Study, cell: Cell, data: DataFacts) -> str:
        # A schedule's numbers are constants of the program, and no part of its cost.
        training = study.system_of(cell).training
        return f"{cell.size} {cell.batch_size}x{cell.length} " + artifact.fingerprint(
            type(study.system).__name__,
            cell.decoder,
            data.vocab_size,
            type(training.optimizer).__name__,
            training.microbatches,
        )

    def _compiled(self, study: Study, cell: Cell, data: DataFacts) -> StepCost:
        chip, devices = topology_devices(self.topology, self.num_slices)
        recipe = study.system_of(cell).step(data)
        mesh = recipe.training.mesh.build(devices)
        if cell.batch_size % len(devices):
            raise StudyError(
                f"study {study.name}, cell {cell.cell_id}: a batch of {cell.batch_size} rows is not split evenly over "
                f"{len(devices)} chips of {self.name}: set batch_multiple to {len(devices)}, or take fewer chips"
            )
        try:
            program = compile_train_step(recipe, mesh)
        except DoesNotFit:
            return StepCost(None, hbm_bytes=chip.hbm_bytes)
        roofline = Roofline.of(program, chip)
        if program.peak_bytes > chip.hbm_bytes:
            return StepCost(None, None, program.peak_bytes, chip.hbm_bytes)
        return StepCost(roofline.one_after_another, roofline.overlapped, program.peak_bytes, chip.hbm_bytes)


Machine = Here | Pod


def _scaled(known: dict[str, float | None], cell: Cell, largest: Cell) -> StepCost:
    """The largest batch's cost for a smaller one; its memory as an upper bound."""
    share = cell.batch_size / largest.batch_size
    times = {
        name: None if (seconds := known[name]) is None else seconds * share for name in ("seconds", "seconds_at_least")
    }
    return dataclasses.replace(StepCost(**known), **times)  # type: ignore[arg-type]
