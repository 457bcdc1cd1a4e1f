"""A decoder whose layers are scanned, as one whose layers follow each other: what a CPU computes faster."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from plum_jax.model.decoder import Decoder


def unrolled(decoder: Decoder, params: Any) -> tuple[Decoder, Any]:
    """The same function with `scan_layers=False`, and its parameters: copies of the slices of each layer.

    A scan reads its layer's parameters and cache out of stacked arrays, which XLA's CPU backend copies every time.
    """
    if not decoder.config.scan_layers:
        return decoder, params
    transformer = dict(params["transformer"])
    stacked = transformer.pop("layers")
    for i in range(decoder.config.num_layers):
        transformer[f"layer_{i}"] = jax.tree.map(lambda x, i=i: x[i], stacked)
    config = dataclasses.replace(decoder.config, scan_layers=False)
    return decoder.clone(config=config), {**params, "transformer": transformer}
