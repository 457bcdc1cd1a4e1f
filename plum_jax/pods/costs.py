"""What a compiled program does on one chip: floating-point operations, bytes to and from HBM, collectives.

XLA's own cost analysis counts the body of a loop once, so a stack of layers under `scan` counts as one layer. Here the
program is walked as it runs: a loop's body is counted as often as it turns.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Callable

from plum_jax.pods.hlo import Computation, Instruction, Program
from plum_jax.pods.product_flops import convolution_flops, dot_flops
from plum_jax.pods.trip_count import trip_count

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# These move no data: names for what is already there, or halves of a pair whose other half is counted.
_FREE = frozenset(
    [
        "parameter",
        "constant",
        "get-tuple-element",
        "tuple",
        "bitcast",
        "after-all",
        "partition-id",
        "replica-id",
        "iota",
        "while",
        "conditional",
        "call",
        "all-gather-done",
        "all-reduce-done",
        "collective-permute-done",
        "copy-done",
        "async-done",
        "async-update",
        "opt-barrier",
    ]
)


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one step of one chip.

    Attributes:
      count: how often one is started.
      bytes: of the whole array: what an all-gather returns, what the others are given.
      wire_bytes: what a chip must receive at the least, a ring's (n - 1) / n of it; twice that for an all-reduce.
    """

    count: int = 0
    bytes: int = 0
    wire_bytes: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.count + other.count, self.bytes + other.bytes, self.wire_bytes + other.wire_bytes)

    def __mul__(self, times: int) -> Traffic:
        return Traffic(self.count * times, self.bytes * times, self.wire_bytes * times)


@dataclasses.dataclass
class Costs:
    """Sums over a program.

    Attributes:
      flops: of matrix products (convolutions, on TPU) and kernels, 2 a multiply-add.
      hbm_bytes: read and written, arrays that the compiler keeps on the chip left out; a slice counts as a slice.
      collectives: kind -> traffic.
      kernels: name of a custom kernel -> calls.
      unknown_loops: loops whose number of turns could not be read; their bodies are counted once.
    """

    flops: float = 0.0
    hbm_bytes: float = 0.0
    collectives: dict[str, Traffic] = dataclasses.field(default_factory=dict)
    kernels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unknown_loops: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: Costs, times: int = 1) -> None:
        """Adds what `other` costs, `times` times."""
        self.flops += other.flops * times
        self.hbm_bytes += other.hbm_bytes * times
        for kind, traffic in other.collectives.items():
            self.collectives[kind] = self.collectives.get(kind, Traffic()) + traffic * times
        for name, calls in other.kernels.items():
            self.kernels[name] += calls * times
        self.unknown_loops.extend(other.unknown_loops)


KernelFlops = Callable[[str, Instruction, Computation], float]


def program_costs(program: Program, kernel_flops: KernelFlops | None = None) -> Costs:
    """Walks the program from its entry.

    Args:
      program: a parsed one.
      kernel_flops: operations of one call of a Pallas kernel, from its name, its instruction and the computation around
        it; the program's text does not say them. None: 0.
    """
    return _Walk(program, kernel_flops or (lambda *_: 0.0)).of(program.entry)


class _Walk:
    def __init__(self, program: Program, kernel_flops: KernelFlops) -> None:
        self._program = program
        self._kernel_flops = kernel_flops
        self._known: dict[str, Costs] = {}

    def of(self, name: str) -> Costs:
        """Costs of one run of a computation."""
        if name not in self._known:
            computation = self._program.computations[name]
            total = Costs()
            for instruction in computation.instructions.values():
                total.add(self._of_instruction(instruction, computation))
            self._known[name] = total
        return self._known[name]

    def _of_instruction(self, instruction: Instruction, computation: Computation) -> Costs:
        costs = Costs()
        opcode = instruction.opcode
        if opcode == "while":
            turns = trip_count(self._program, instruction, computation)
            if turns is None:
                costs.unknown_loops.append(instruction.name)
            costs.add(self.of(instruction.called("body") or ""), 1 if turns is None else turns)
        elif opcode == "conditional":
            branches = _branches(instruction)
            costs.add(max((self.of(name) for name in branches), key=lambda c: c.flops))  # the dearest one
        elif opcode in ("call", "call-start", "async-start"):
            callee = instruction.called("to_apply") or instruction.called("calls")
            costs.add(self.of(callee or ""))
        elif opcode == "fusion":
            self._add_fusion(costs, instruction)
        elif opcode == "convolution":
            costs.flops = convolution_flops(instruction, computation)
        elif opcode == "dot":
            costs.flops = dot_flops(instruction, computation)
        elif opcode == "custom-call":
            name = kernel_name(instruction)
            if name is not None:
                costs.kernels[name] += 1
                costs.flops = self._kernel_flops(name, instruction, computation)
        kind = opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            costs.collectives[kind] = _traffic(kind, instruction, computation)
        elif opcode not in _FREE:
            costs.hbm_bytes += self._hbm_bytes(instruction, computation)
        return costs

    def _add_fusion(self, costs: Costs, instruction: Instruction) -> None:
        """Products and collectives inside; what a fusion reads and writes is counted at its boundary."""
        inside = self.of(instruction.called("calls") or "")
        costs.flops += inside.flops
        costs.kernels.update(inside.kernels)
        for kind, traffic in inside.collectives.items():
            # A TPU's reduce-scatter is a fusion of an all-reduce and the slice that this chip keeps.
            scatter = kind == "all-reduce" and "all-reduce-scatter" in (instruction.called("calls") or "")
            name = "reduce-scatter" if scatter else kind
            wire = traffic.wire_bytes / 2 if scatter else traffic.wire_bytes
            costs.collectives[name] = dataclasses.replace(traffic, wire_bytes=wire)

    def _hbm_bytes(self, instruction: Instruction, computation: Computation) -> float:
        opcode = instruction.opcode
        if opcode == "copy-start":  # (destination, source, context): one way
            return float(sum(a.bytes for a in instruction.arrays[:2] if not a.on_chip))
        operands = [computation.instructions[n] for n in instruction.operands if n in computation.instructions]
        if opcode == "dynamic-slice":
            return float(2 * _off_chip(instruction))
        if opcode == "dynamic-update-slice":
            return float(2 * operands[1].bytes if len(operands) > 1 and _off_chip(instruction) else 0)
        inside = self._program.computations.get(instruction.called("calls") or "") if opcode == "fusion" else None
        if inside is None:
            return float(_off_chip(instruction) + sum(_off_chip(o) for o in operands))
        read = sum(
            min(_off_chip(operand), _bytes_read(parameter, inside))
            for operand, parameter in zip(operands, inside.parameters, strict=False)
        )
        return float(read + _bytes_written(instruction, inside))


def _off_chip(instruction: Instruction) -> int:
    return sum(array.bytes for array in instruction.arrays if not array.on_chip)


def _bytes_read(parameter: Instruction, inside: Computation) -> int:
    """What a fusion reads of a parameter: the slices, where slices are all that it uses of it."""
    users = [i for i in inside.instructions.values() if parameter.name in i.operands]
    total = 0
    for user in users:
        if user.opcode == "dynamic-slice":
            total += user.bytes
        elif user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name:
            continue  # written in place
        elif user.opcode == "bitcast":
            total += _bytes_read(user, inside)
        else:
            return parameter.bytes
    return total


def _bytes_written(instruction: Instruction, inside: Computation) -> int:
    """What a fusion writes: the update alone, where its result is an array that is updated in place."""
    root = inside.root
    while root.opcode == "bitcast" and root.operands[0] in inside.instructions:
        root = inside.instructions[root.operands[0]]
    if root.opcode == "dynamic-update-slice":
        update = inside.instructions[root.operands[1]]
        return update.bytes if _off_chip(instruction) else 0
    return _off_chip(instruction)


def kernel_name(instruction: Instruction) -> str | None:
    """The name of a Pallas kernel; None for the compiler's own custom calls."""
    if instruction.attribute("custom_call_target") != '"tpu_custom_call"':
        return None
    named = re.search(r"kernel_name\W+([\w.\-]+)", instruction.attributes)
    return named.group(1) if named else instruction.name.split(".")[0]


def _branches(instruction: Instruction) -> list[str]:
    listed = instruction.attribute("branch_computations")
    if listed is not None:
        return re.findall(r"%?([\w.\-]+)", listed)
    return [name for key in ("true_computation", "false_computation") if (name := instruction.called(key))]


def _traffic(kind: str, instruction: Instruction, computation: Computation) -> Traffic:
    operands = [computation.instructions[n] for n in instruction.operands if n in computation.instructions]
    size = sum(operand.bytes for operand in operands)
    group = group_size(instruction)
    if kind == "all-gather":
        size *= group
    share = 1.0 if kind == "collective-permute" else (group - 1) / group
    return Traffic(1, size, size * share * (2 if kind == "all-reduce" else 1))


def group_size(instruction: Instruction) -> int:
    """Chips that take part in one collective, in each of the three ways that XLA writes groups."""
    text = instruction.attributes
    listed = re.search(r"replica_groups=\{\{([\d,]*)\}", text)
    if listed:
        return len(listed.group(1).split(","))
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]", text)
    if counted:
        return int(counted.group(2))
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text)
    if named:
        sizes = {name: int(size) for name, size in re.findall(r"'([\w.]+)'=(\d+)", named.group(1))}
        parts = re.findall(r"'([\w.]+)'(?::\(\d+\)(\d+))?", named.group(2))
        return math.prod(int(part) if part else sizes[name] for name, part in parts)
    return 2
