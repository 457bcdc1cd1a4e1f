"""How often a loop of a compiled program runs."""

from __future__ import annotations

import math
import re

from plum_jax.pods.hlo import Computation, Instruction, Program


def trip_count(program: Program, instruction: Instruction, computation: Computation) -> int | None:
    """How often a loop turns: as the compiler noted it, or from its counter's start, step and bound."""
    noted = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', instruction.attributes)
    if noted:
        return int(noted.group(1))
    condition = program.computations[instruction.called("condition") or ""]
    body = program.computations[instruction.called("body") or ""]
    bounded = _bound(condition, program)
    if bounded is None:
        return None
    bound, place = bounded
    start, step = 0, 1
    carried = computation.instructions.get(instruction.operands[0])
    if carried is not None and carried.opcode == "tuple":
        start = _constant(computation, carried.operands[place], program) or 0
    if body.root.opcode == "tuple":
        step = _step(body, body.root.operands[place], program) or 1
    return max(0, math.ceil((bound - start) / step))


def _bound(condition: Computation, program: Program) -> tuple[int, int] | None:
    """The bound of `counter < bound`, and the counter's place in the loop's tuple."""
    root = condition.root
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    counter = condition.instructions[root.operands[0]]
    bound = _constant(condition, root.operands[1], program)
    while counter.opcode in ("copy", "bitcast"):
        counter = condition.instructions[counter.operands[0]]
    place = counter.attribute("index") if counter.opcode == "get-tuple-element" else None
    return None if bound is None or place is None else (bound, int(place))


def _constant(computation: Computation, name: str, program: Program) -> int | None:
    instruction = computation.instructions.get(name)
    while instruction is not None and instruction.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
        instruction = computation.instructions.get(instruction.operands[0])
    if instruction is not None and instruction.opcode == "constant" and re.fullmatch(r"-?\d+", instruction.text):
        return int(instruction.text)
    return None


def _step(body: Computation, name: str, program: Program) -> int | None:
    """k of `counter + k`, inside a fusion or not."""
    instruction = body.instructions[name]
    while instruction.opcode in ("copy", "bitcast"):
        instruction = body.instructions[instruction.operands[0]]
    if instruction.opcode == "fusion":
        inside = program.computations[instruction.called("calls") or ""]
        return _step(inside, inside.root.name, program)
    if instruction.opcode != "add":
        return None
    constants = [_constant(body, operand, program) for operand in instruction.operands]
    return next((value for value in constants if value is not None), None)
