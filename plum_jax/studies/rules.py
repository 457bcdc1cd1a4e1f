"""Rules that a study states once and every cell obeys: sizes of a ladder, learning rate and batch as power laws."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

from plum_jax.model.config import DecoderConfig

Axis = Literal["parameters", "tokens", "flops"]


@dataclasses.dataclass(frozen=True)
class PowerRule:
    """base * (x / reference) ** exponent, where x is what a cell has of `of`; a constant by default.

    Attributes:
      base: the value at the reference.
      reference: where it was found: parameters (total), tokens trained on, or training FLOPs.
      exponent: e.g. -1/3 for a learning rate over parameters (OLMo's ladder), 2/3 for its batch.
      of: what the rule looks at.
    """

    base: float
    reference: float = 1.0
    exponent: float = 0.0
    of: Axis = "parameters"

    def __post_init__(self) -> None:
        if self.of not in get_args(Axis):
            raise ValueError(f"PowerRule: expected `of` among {get_args(Axis)}, got {self.of!r}")
        if self.base <= 0 or self.reference <= 0:
            raise ValueError(f"PowerRule: expected base and reference above 0, got {self.base} and {self.reference}")

    def __call__(self, *, parameters: float, tokens: float, flops: float) -> float:
        """The value for a cell of these."""
        x = {"parameters": parameters, "tokens": tokens, "flops": flops}[self.of]
        return self.base * (x / self.reference) ** self.exponent


@dataclasses.dataclass(frozen=True)
class Size:
    """A decoder with the name that its cells bear; names are part of directory names."""

    name: str
    decoder: DecoderConfig


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Sizes that grow in width and depth with one shape: (d_model, layers) -> a decoder named like "d064x3".

    Attributes:
      steps: (d_model, num_layers) of each size, the smallest first.
      head_dim: of all; heads are d_model / head_dim.
      queries_per_key: query heads that share a key-value head.
      mlp_ratio: mlp_dim / d_model; rounded to a multiple of 4.
      decoder: all other fields.
    """

    steps: Sequence[tuple[int, int]]
    head_dim: int = 16
    queries_per_key: int = 1
    mlp_ratio: float = 2.75
    decoder: DecoderConfig = DecoderConfig()

    def sizes(self) -> tuple[Size, ...]:
        """The decoders, in the order of `steps`.

        Raises:
          ValueError: a width that heads do not divide.
        """
        return tuple(self._size(int(width), int(layers)) for width, layers in self.steps)

    def _size(self, width: int, layers: int) -> Size:
        heads, rest = divmod(width, self.head_dim)
        if rest or heads < 1 or heads % self.queries_per_key:
            raise ValueError(
                f"Ladder: d_model {width} does not divide into heads of {self.head_dim}, {self.queries_per_key} to a "
                "key-value head: choose multiples, or a smaller head_dim"
            )
        decoder = dataclasses.replace(
            self.decoder,
            d_model=width,
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=heads // self.queries_per_key,
            head_dim=self.head_dim,
            mlp_dim=4 * round(self.mlp_ratio * width / 4),
        )
        return Size(f"d{width:03d}x{layers}", decoder)
