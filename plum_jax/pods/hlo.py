"""Reads the text of a compiled XLA program: computations of instructions, their types, operands and attributes.

XLA's own parser does not read what every libtpu writes, and JAX offers no other view of a program that is compiled for
devices that are not here. Only what costs are counted from is read; the rest of a line stays text.
"""

from __future__ import annotations

import dataclasses
import functools
import re

BYTES = {
    "pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16, "token": 0,
}  # fmt: skip

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of a type: its element type, dimensions, and whether the compiler keeps it outside of HBM."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool = False

    @property
    def elements(self) -> int:
        return functools.reduce(lambda a, b: a * b, self.shape, 1)

    @property
    def bytes(self) -> int:
        """Without the padding of tiles."""
        return self.elements * BYTES.get(self.dtype, 4)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A line of a computation.

    Attributes:
      name: without the percent sign.
      opcode: "fusion", "while", "all-gather-start"...
      arrays: what it returns, a tuple flattened.
      operands: names of the instructions it reads, in order.
      text: of the operands' parentheses (a constant's value, a parameter's number).
      attributes: the rest of the line.
      root: whether it is its computation's result.
    """

    name: str
    opcode: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    text: str
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        return sum(array.bytes for array in self.arrays)

    def attribute(self, name: str) -> str | None:
        """The value of `name=value` among the attributes, up to the next comma outside of braces."""
        found = re.search(rf"(?:^|[ ,]){name}=", self.attributes)
        if found is None:
            return None
        value = self.attributes[found.end() :]
        return value[: _first_outside(value, ",")]

    def called(self, name: str) -> str | None:
        """The computation that the attribute `name` names."""
        value = self.attribute(name)
        return None if value is None else value.lstrip("%")


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order of the text (which is the schedule)."""

    name: str
    instructions: dict[str, Instruction]

    @property
    def root(self) -> Instruction:
        return next(i for i in reversed(self.instructions.values()) if i.root)

    @property
    def parameters(self) -> list[Instruction]:
        """Its parameters by number."""
        return sorted((i for i in self.instructions.values() if i.opcode == "parameter"), key=lambda i: int(i.text))


@dataclasses.dataclass(frozen=True)
class Program:
    """All computations of a module, and the name of the one that it starts with."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """The program that `compiled.as_text()` shows.

    Raises:
      ValueError: no ENTRY computation.
    """
    computations: dict[str, Computation] = {}
    entry, current = None, None
    for line in text.splitlines():
        if current is None:
            header = _COMPUTATION.match(line)
            if header:
                current = Computation(header.group(2), {})
                computations[current.name] = current
                entry = current.name if header.group(1) else entry
        elif line == "}" or line.startswith("}, execution_thread"):
            # Other lines that begin so belong to a kernel's metadata, which has line breaks of its own.
            current = None
        else:
            instruction = _instruction(line)
            if instruction is not None:
                current.instructions[instruction.name] = instruction
    if entry is None:
        raise ValueError("expected the text of an HLO module with an ENTRY computation, got none")
    return Program(computations, entry)


def _instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    rest = line[match.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else _first_outside(rest, " ")
    type_text, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close]
    return Instruction(
        name=match.group(2),
        opcode=opcode,
        arrays=arrays(type_text),
        operands=tuple(_NAME.findall(inside)),
        text=inside,
        attributes=rest[close + 1 :].lstrip(", "),
        root=match.group(1) is not None,
    )


def arrays(type_text: str) -> tuple[Array, ...]:
    """The arrays of a type, e.g. `(f32[4,8]{1,0:T(8,128)S(1)}, s32[])`; memory space 1 is on the chip itself."""
    found = []
    for dtype, dimensions, layout in _ARRAY.findall(type_text):
        shape = tuple(int(d) for d in dimensions.split(",") if d)
        found.append(Array(dtype, shape, "S(" in layout and "S(0)" not in layout))
    return tuple(found)


def _first_outside(text: str, wanted: str) -> int:
    """Where a character first stands outside of brackets, else the end.

    A blank ends the type of `bf16[4,8]{1,0:T(8,128)(2,1)} fusion(...)`.
    """
    depth = 0
    for i, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == wanted and depth == 0:
            return i
    return len(text)


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        if text[i] == "(":
            depth += 1
        elif text[i] == ")":
            depth -= 1
            if depth == 0:
                return i
    return len(text)
