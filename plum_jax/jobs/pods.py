"""The job of `gin/run/compile.gin`: a run's programs, compiled for a pod that is not there."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from etils import epath
from tqdm import tqdm

from plum_jax import artifact
from plum_jax.model.config import DecoderConfig
from plum_jax.pods.programs import Compiled, DoesNotFit, Search, compile_beam_search, compile_train_step
from plum_jax.pods.report import as_row, as_text
from plum_jax.pods.topology import topology_devices
from plum_jax.systems.generative.phase import Phase, step_recipe
from plum_jax.systems.generative.pipeline import Pipeline
from plum_jax.training.mesh import MeshShape

_REMAT_FROM_CHEAP = ("none", "save_dots", "save_attention", "full")
_MOST_ALTERNATIVES = 6


def check_pod(
    model_dir: str,
    pipeline: Pipeline,
    topology: str,
    num_slices: int = 1,
    vocab_size: int = 48_128,
    phase: Literal["cpt", "retrieval"] = "cpt",
    programs: Sequence[Literal["train_step", "beam_search"]] = ("train_step", "beam_search"),
    codebook_sizes: Sequence[int] = (2048, 1024, 512, 256, 128),
    num_items: int = 1_000_000,
    alternatives: bool = True,
) -> dict[str, Any]:
    """Compiles the train step of a pipeline for a TPU topology, prints what it takes, and writes `pod_check.json`.

    No corpus and no weight is read: of the pipeline only the decoder (that of PRETRAINED, if set) and the phase
    are looked at.

    Args:
      model_dir: gets `pod_check.json` and `pod_check.md`.
      pipeline: the run.
      topology: chip and shape of a slice, e.g. "v6e:16x16".
      num_slices: slices that are joined by the data-centre network.
      vocab_size: text pieces, SID tokens and the rest; a run's own is known only when its vocabulary is made.
      phase: which of the two phases of training.
      programs: what is compiled.
      codebook_sizes, num_items: of the random catalogue that the beam search is constrained to.
      alternatives: when it does not fit, look for a setting that does.

    Returns:
      what `pod_check.json` says.

    Raises:
      TopologyError: no libtpu, or no such topology.
    """
    chip, devices = topology_devices(topology, num_slices)
    asked = Setting(pipeline.decoder, getattr(pipeline, phase))
    found: dict[str, Any] = {
        "topology": topology,
        "slices": num_slices,
        "chips": len(devices),
        "vocab_size": vocab_size,
        "batch_size": asked.phase.batch_size,
        "length": asked.phase.length,
        "settings_tried": [],
    }
    compiled = []
    print(f"compiling for {len(devices)} {chip.name} chips: minutes for each program, on two cores", flush=True)
    if "train_step" in programs:
        most = _MOST_ALTERNATIVES if alternatives else 0
        found["settings_tried"], step = _fitting(asked, vocab_size, devices, chip.hbm_bytes, most)
        compiled += [step] if step else []
    if "beam_search" in programs:
        evaluation = pipeline.evaluation
        search = Search(
            evaluation.batch_size, asked.phase.length, evaluation.num_beams, tuple(codebook_sizes), num_items
        )
        compiled.append(compile_beam_search(pipeline.decoder, vocab_size, search, asked.mesh.build(devices)))
    found["programs"] = [as_row(program, chip, len(devices)) for program in compiled]
    directory = epath.Path(model_dir)
    text = as_text(_verdict(found), found["programs"])
    artifact.write_json(directory / "pod_check.json", found)
    artifact.write_text(directory / "pod_check.md", text + "\n")
    for program in compiled:
        artifact.write_text(directory / f"{program.name.replace(' ', '_')}.hlo", program.text)
    print(text)
    return found


def _fitting(
    asked: Setting, vocab_size: int, devices: Any, hbm_bytes: float, most: int
) -> tuple[list[dict[str, Any]], Compiled | None]:
    """What was tried, the setting that was asked for first, until one fits; and the last one's program."""
    tried: list[dict[str, Any]] = []
    compiled = None
    settings = [asked, *_alternatives(asked, len(devices))][: 1 + most]
    for setting in tqdm(settings, desc="settings tried", unit=" settings", disable=len(settings) == 1):
        fact: dict[str, Any] = {"setting": setting.text(asked), "fits": False, "peak_bytes": None}
        try:
            compiled = compile_train_step(
                step_recipe(setting.phase, setting.decoder, vocab_size), setting.mesh.build(devices)
            )
        except DoesNotFit as error:
            fact["compiler"] = str(error)
        else:
            fact |= {"fits": compiled.peak_bytes <= hbm_bytes, "peak_bytes": compiled.peak_bytes}
        tried.append(fact)
        if fact["fits"]:
            break
    return tried, compiled


@dataclasses.dataclass(frozen=True)
class Setting:
    """What decides over memory."""

    decoder: DecoderConfig
    phase: Phase

    @property
    def mesh(self) -> MeshShape:
        return self.phase.training.mesh

    @property
    def microbatches(self) -> int:
        return self.phase.training.microbatches

    def with_training(self, **changes: Any) -> Setting:
        """Another number of microbatches, or another mesh."""
        training = dataclasses.replace(self.phase.training, **changes)
        return dataclasses.replace(self, phase=dataclasses.replace(self.phase, training=training))

    def with_remat(self, policy: Any) -> Setting:
        """Another remat policy."""
        return dataclasses.replace(self, decoder=dataclasses.replace(self.decoder, remat=policy))

    def text(self, asked: Setting) -> str:
        """In what it differs from what was asked for."""
        changes = []
        if self.decoder.remat != asked.decoder.remat:
            changes.append(f"remat {self.decoder.remat!r}")
        if self.microbatches != asked.microbatches:
            changes.append(f"{self.microbatches} microbatches")
        if self.mesh != asked.mesh:
            changes.append(f"{self.mesh}")
        return ", ".join(changes) or "as asked"


def _alternatives(asked: Setting, num_chips: int) -> Iterator[Setting]:
    """Settings that take less memory, those that cost the least time first."""
    place = _REMAT_FROM_CHEAP.index(asked.decoder.remat)
    for policy in _REMAT_FROM_CHEAP[place + 1 :]:
        yield asked.with_remat(policy)
    full = asked.with_remat("full")
    data, fsdp, expert, tensor = asked.mesh.sizes(num_chips)
    rows = asked.phase.batch_size // (data * fsdp * expert)
    more = [n for n in range(asked.microbatches + 1, rows + 1) if rows % n == 0]
    for microbatches in [*more[:1], *more[-1:]]:
        yield full.with_training(microbatches=microbatches)
    if data > 1:
        split = full.with_training(mesh=MeshShape(1, data * fsdp, expert, tensor))
        yield split
        yield from (split.with_training(microbatches=n) for n in more[-1:])


def _verdict(found: dict[str, Any]) -> str:
    chips = f"{found['chips']} chips of {found['topology']}" + (f" x {found['slices']}" if found["slices"] > 1 else "")
    if not found["settings_tried"]:
        return f"Compiled for {chips}."
    first, last = found["settings_tried"][0], found["settings_tried"][-1]
    if first["fits"]:
        return f"It fits {chips}."
    needs = "more than a chip has" if first["peak_bytes"] is None else f"{first['peak_bytes'] / 1e9:.1f} GB a chip"
    if last["fits"]:
        return f"It does not fit {chips}: as asked it needs {needs}. It fits with {last['setting']}:"
    names = "; ".join(row["setting"] for row in found["settings_tried"][1:]) or "nothing else was tried"
    return f"It does not fit {chips}: it needs {needs}. Tried without success: {names}. Take more chips or fewer rows."
