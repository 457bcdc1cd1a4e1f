"""What accelerators can do at most, as published for one chip, and what this machine's CPU can, as measured."""

from __future__ import annotations

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip.

    Attributes:
      name: as in topology names, "v6e".
      device_kinds: what `jax.Device.device_kind` calls it.
      peak_flops: bfloat16 multiplications and additions a second.
      hbm_bytes: memory.
      hbm_bandwidth: bytes a second.
      ici_bandwidth: bytes a second that all its links to other chips of the slice send together, in one direction
        (half of the "bidirectional" figure).
      ici_links: links to neighbours.
    """

    name: str
    device_kinds: tuple[str, ...]
    peak_flops: float
    hbm_bytes: float
    hbm_bandwidth: float
    ici_bandwidth: float
    ici_links: int


# docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}, November 2026.
CHIPS = (
    Chip("v4", ("TPU v4",), 275e12, 32e9, 1200e9, 300e9, 6),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 16e9, 819e9, 200e9, 4),
    Chip("v5p", ("TPU v5", "TPU v5p"), 459e12, 95e9, 2765e9, 600e9, 6),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 32e9, 1638e9, 400e9, 4),
)

# bfloat16 FLOPs a second, without sparsity (NVIDIA's data sheets), by a part of `jax.Device.device_kind`; the first
# that fits.
GPU_PEAKS = {"B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}

_GEMM_WIDTH = 1024
_GEMM_REPEATS = 4


def chip_named(name: str) -> Chip:
    """The chip of a topology name's first part, e.g. "v6e".

    Raises:
      ValueError: not in the table.
    """
    for chip in CHIPS:
        if chip.name == name:
            return chip
    raise ValueError(f"expected a chip among {[chip.name for chip in CHIPS]}, got {name!r}")


def chip_of(device: jax.Device) -> Chip | None:
    """The chip that a device is; None where it is not in the table."""
    return next((chip for chip in CHIPS if device.device_kind in chip.device_kinds), None)


def peak_flops_per_second() -> float | None:
    """What all devices of the run could reach together: published for TPUs and GPUs, measured for CPUs, else None."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return measured_gemm_flops_per_second() * jax.process_count()
    chip = chip_of(device)
    peak = chip.peak_flops if chip else gpu_peak(device.device_kind)
    return None if peak is None else peak * jax.device_count()


def gpu_peak(device_kind: str) -> float | None:
    """bfloat16 FLOPs a second of a GPU by its name; None where it is not in the table."""
    return next((peak for name, peak in GPU_PEAKS.items() if name in device_kind), None)


@functools.cache
def measured_gemm_flops_per_second() -> float:
    """float32 FLOPs a second of the best of a few products of two 1,024 x 1,024 matrices in XLA; takes 0.2 s."""
    matrix = jnp.ones((_GEMM_WIDTH, _GEMM_WIDTH), jnp.float32)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    fastest = float("inf")
    for _ in range(_GEMM_REPEATS):
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * _GEMM_WIDTH**3 / fastest
