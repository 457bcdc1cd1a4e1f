"""What a compiled program will take and how fast it can be: as numbers for JSON, and as a table to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from plum_jax.pods.programs import Compiled
from plum_jax.training.chips import Chip


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that a step takes at least, by what it waits for, at the chip's published figures.

    Attributes:
      compute: floating-point operations at the peak of bfloat16.
      memory: bytes of HBM at its bandwidth.
      interconnect: bytes that a chip receives at the bandwidth of all its links; slices are taken as one.
    """

    compute: float
    memory: float
    interconnect: float

    @classmethod
    def of(cls, compiled: Compiled, chip: Chip) -> Roofline:
        """The three times of one program."""
        costs = compiled.costs
        wire = sum(traffic.wire_bytes for traffic in costs.collectives.values())
        return cls(costs.flops / chip.peak_flops, costs.hbm_bytes / chip.hbm_bandwidth, wire / chip.ici_bandwidth)

    @property
    def overlapped(self) -> float:
        """If everything hides behind the slowest: no step is faster."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def one_after_another(self) -> float:
        """If nothing overlaps."""
        return self.compute + self.memory + self.interconnect


def as_row(compiled: Compiled, chip: Chip, num_chips: int) -> dict[str, Any]:
    """All figures of a program, for JSON. FLOPs, bytes and collectives are of one chip and one step."""
    roofline = Roofline.of(compiled, chip)
    needed = compiled.model_flops / num_chips

    def mfu(seconds: float) -> float:
        return needed / (seconds * chip.peak_flops) if seconds else 0.0

    return {
        "program": compiled.name,
        "bytes": {
            **compiled.given_bytes,
            "arguments_with_padding": compiled.memory["arguments"],
            "temporaries": compiled.memory["temporaries"],
            "other_outputs": compiled.memory["other outputs"],
            "program": compiled.memory["program"],
            "peak": compiled.peak_bytes,
            "hbm": chip.hbm_bytes,
        },
        "fits": compiled.peak_bytes <= chip.hbm_bytes,
        "flops": {
            "model": needed,
            "compiled": compiled.costs.flops,
            "compiled_over_model": compiled.costs.flops / needed,
            "xla_loops_once": compiled.xla_flops,
        },
        "hbm_bytes_moved": compiled.costs.hbm_bytes,
        "collectives": {kind: dataclasses.asdict(t) for kind, t in sorted(compiled.costs.collectives.items())},
        "kernels": dict(compiled.costs.kernels),
        "unknown_loops": compiled.costs.unknown_loops,
        "roofline_seconds": dataclasses.asdict(roofline)
        | {"overlapped": roofline.overlapped, "one_after_another": roofline.one_after_another},
        "tokens_per_second": [compiled.tokens / roofline.one_after_another, compiled.tokens / roofline.overlapped],
        "mfu": [mfu(roofline.one_after_another), mfu(roofline.overlapped)],
        "compile_seconds": compiled.seconds,
    }


def as_text(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """The rows as Markdown, one table a program."""
    return "\n\n".join([title, *(_table(row) for row in rows)])


def _table(row: dict[str, Any]) -> str:
    seconds, flops = row["roofline_seconds"], row["flops"]
    lines = [f"| {row['program']}, of one chip | |", "|---|---|"]
    for kind, size in row["bytes"].items():
        lines.append(f"| {kind.replace('_', ' ')} | {size / 1e9:,.3f} GB |")
    lines.append(f"| fits | {'yes' if row['fits'] else 'NO'} |")
    lines.append(f"| FLOPs that the model needs | {flops['model'] / 1e12:,.3f} T |")
    lines.append(f"| FLOPs compiled | {flops['compiled'] / 1e12:,.3f} T, {flops['compiled_over_model']:.3f} x |")
    lines.append(f"| FLOPs by XLA, loops counted once | {flops['xla_loops_once'] / 1e12:,.3f} T |")
    lines.append(f"| HBM bytes moved | {row['hbm_bytes_moved'] / 1e9:,.2f} GB |")
    for kind, traffic in row["collectives"].items():
        lines.append(
            f"| {kind} | {traffic['count']:,} of {traffic['bytes'] / 1e9:,.3f} GB in all, "
            f"{traffic['wire_bytes'] / 1e9:,.3f} GB received |"
        )
    for name, calls in row["kernels"].items():
        lines.append(f"| kernel {name} | {calls:,} calls |")
    for name in ("compute", "memory", "interconnect"):
        lines.append(f"| at least, for {name} | {seconds[name] * 1e3:,.2f} ms |")
    low, high = row["tokens_per_second"]
    lines.append(f"| tokens/s, nothing or everything overlapped | {low:,.0f} to {high:,.0f} |")
    lines.append(f"| MFU, likewise | {row['mfu'][0]:.1%} to {row['mfu'][1]:.1%} |")
    lines.append(f"| compiled in | {row['compile_seconds']:,.0f} s |")
    if row["unknown_loops"]:
        lines.append(f"| loops counted once, their turns being unknown | {', '.join(row['unknown_loops'])} |")
    return "\n".join(lines)
