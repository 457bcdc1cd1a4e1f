"""What is compiled for a pod against what the model needs, and against MaxText's own train step; no TPU is needed.

    python benchmarks/compiled_training.py                       # the dense and MoE ladder: minutes a size
    python benchmarks/compiled_training.py --models moe_900m
    python benchmarks/compiled_training.py --models reference --maxtext DIRECTORY   # of benchmarks/maxtext_compile.py

The last line is JSON; `compiled_flops_over_model_max` is the largest ratio of FLOPs compiled to FLOPs needed. Those are
of `model.counts.train_step_flops(causal=True)`: three times the forward products of activated parameters, half of
the causal scores, the head. What comes above is recomputation, capacity that stays empty, masked halves of blocks.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from plum_jax.model.config import DecoderConfig, MixtureOfExperts
from plum_jax.pods.costs import program_costs
from plum_jax.pods.hlo import parse
from plum_jax.pods.programs import compile_train_step
from plum_jax.pods.report import as_row
from plum_jax.pods.topology import topology_devices
from plum_jax.run import configure
from plum_jax.systems.generative.phase import Phase, step_recipe
from plum_jax.training.mesh import MeshShape
from plum_jax.training.training_config import TrainingConfig

LADDER = ("dense_110m", "dense_370m", "dense_900m", "moe_110m", "moe_370m", "moe_900m", "moe_3b")
VOCAB_SIZE, LENGTH, ROWS_A_CHIP = 48_128, 1536, 4
# The same shapes as `maxtext_compile.REFERENCE`.
REFERENCE = DecoderConfig(
    num_layers=24, d_model=1536, num_heads=12, num_kv_heads=12, head_dim=128, moe=MixtureOfExperts(16, 2, 2048)
)


def compiled_training(models: Sequence[str] = LADDER, topology: str = "v6e:16x16") -> dict[str, Any]:
    """Rows of `pods.report.as_row` by model, and the largest ratio; parameters split over all chips, full remat."""
    chip, devices = topology_devices(topology)
    rows = {}
    for name in models:
        config = _with_pod_settings(REFERENCE if name == "reference" else _from_gin(name))
        phase = Phase(TrainingConfig(mesh=MeshShape(data=1, fsdp=-1)), ROWS_A_CHIP * len(devices), LENGTH)
        compiled = compile_train_step(step_recipe(phase, config, VOCAB_SIZE), phase.training.mesh.build(devices))
        rows[name] = as_row(compiled, chip, len(devices))
        print(_line(name, rows[name]), flush=True)
    ratios = [row["flops"]["compiled_over_model"] for row in rows.values()]
    return {"models": rows, "compiled_flops_over_model_max": max(ratios)}


def beside_maxtext(row: dict[str, Any], directory: pathlib.Path) -> dict[str, float]:
    """Our bytes over MaxText's: of memory, of all arrays that collectives move, and of what a chip receives."""
    memory = json.loads((directory / "memory.json").read_text())
    theirs = program_costs(parse((directory / "program.hlo").read_text())).collectives.values()
    ours = row["collectives"].values()
    peak = sum(memory[f"{name}_bytes"] for name in ("argument", "temp", "output", "generated_code"))
    return {
        "bytes_over_maxtext": row["bytes"]["peak"] / (peak - memory["alias_bytes"]),
        "collective_bytes_over_maxtext": sum(t["bytes"] for t in ours) / sum(t.bytes for t in theirs),
        "received_bytes_over_maxtext": sum(t["wire_bytes"] for t in ours) / sum(t.wire_bytes for t in theirs),
    }


def _from_gin(name: str) -> DecoderConfig:
    from gin import config as gin  # type: ignore[attr-defined]

    configure(["gin/run/compile.gin", f"gin/model/{name}.gin"], ["MODEL_DIR = ''"])
    return gin.get_configurable(DecoderConfig)()


def _with_pod_settings(config: DecoderConfig) -> DecoderConfig:
    return DecoderConfig(**{**vars(config), "dtype": "bfloat16", "remat": "full", "dropout_rate": 0.0})


def _line(name: str, row: dict[str, Any]) -> str:
    flops, size = row["flops"], row["bytes"]
    moved = sum(t["bytes"] for t in row["collectives"].values())
    return (
        f"{name:12s} FLOPs {flops['compiled'] / 1e12:8.2f} T = {flops['compiled_over_model']:.3f} x needed, memory "
        f"{size['peak'] / 1e9:6.2f} GB, HBM {row['hbm_bytes_moved'] / 1e9:7.1f} GB, collectives {moved / 1e9:6.2f} GB, "
        f"MFU at most {row['mfu'][1]:.0%}, compiled in {row['compile_seconds']:.0f} s"
    )


def main() -> None:
    """Prints a line a model, and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=LADDER, choices=[*LADDER, "reference"])
    parser.add_argument("--topology", default="v6e:16x16")
    parser.add_argument("--maxtext", type=pathlib.Path, help="a directory that maxtext_compile.py wrote")
    arguments = parser.parse_args()
    found = compiled_training(arguments.models, arguments.topology)
    if arguments.maxtext and "reference" in found["models"]:
        found |= beside_maxtext(found["models"]["reference"], arguments.maxtext)
    print(json.dumps({name: value for name, value in found.items() if name != "models"}))


if __name__ == "__main__":
    main()
