"""FLOPs of matrix products and convolutions in the text of a compiled program."""

from __future__ import annotations

import math
import re

import numpy as np

from plum_jax.pods.hlo import Computation, Instruction


def dot_flops(instruction: Instruction, computation: Computation) -> float:
    """2 x elements of the result x length of the contracted axes."""
    left = computation.instructions[instruction.operands[0]].arrays[0]
    axes = [int(a) for a in re.findall(r"\d+", instruction.attribute("lhs_contracting_dims") or "")]
    return 2.0 * instruction.arrays[0].elements * math.prod(left.shape[a] for a in axes)


def convolution_flops(instruction: Instruction, computation: Computation) -> float:
    """2 x multiply-adds, those with padding or dilation left out: a TPU writes a batched product as such a window."""
    left, right = (computation.instructions[name].arrays[0] for name in instruction.operands[:2])
    labels = instruction.attribute("dim_labels") or ""
    left_labels, right_labels, out_labels = re.split(r"_|->", labels)
    window = _window(instruction.attribute("window") or "{}")
    out = instruction.arrays[0]
    total = 2.0 * right.shape[right_labels.index("i")] * right.shape[right_labels.index("o")]
    groups = int(instruction.attribute("batch_group_count") or 1)
    total *= left.shape[left_labels.index("b")] / groups
    for axis in (label for label in out_labels if label.isdigit()):
        number = int(axis)
        total *= _valid_positions(
            left.shape[left_labels.index(axis)],
            right.shape[right_labels.index(axis)],
            out.shape[out_labels.index(axis)],
            {name: values[number] for name, values in window.items() if number < len(values)},
        )
    return total


def _window(text: str) -> dict[str, list[str]]:
    return {name: values.split("x") for name, values in re.findall(r"(\w+)=([\w\-]+)", text)}


def _valid_positions(left: int, kernel: int, out: int, window: dict[str, str]) -> int:
    """Pairs of an output place and a kernel place that meet a real element of the left side."""
    stride, dilation = int(window.get("stride", 1)), int(window.get("lhs_dilate", 1))
    spread, low = int(window.get("rhs_dilate", 1)), int(window.get("pad", "0_0").partition("_")[0])
    places = np.arange(out)[:, None] * stride - low + np.arange(kernel)[None, :] * spread
    return int(np.sum((places >= 0) & (places < (left - 1) * dilation + 1) & (places % dilation == 0)))
