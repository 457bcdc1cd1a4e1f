"""A trained dense decoder as a mixture of experts (sparse upcycling, arXiv 2212.05055)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from plum_jax.interop import InteropError
from plum_jax.interop.layout import Params, host_params
from plum_jax.model.config import DecoderConfig, MixtureOfExperts


def upcycle(
    config: DecoderConfig,
    params: Any,
    moe: MixtureOfExperts,
    *,
    seed: int,
    router_stddev: float = 0.02,
    noise: float = 0.0,
) -> tuple[DecoderConfig, Params]:
    """Every expert begins as the dense MLP, the router as small random numbers; everything else is taken over.

    With `moe.normalise_weights` the experts' weights sum to one, so the function is the dense decoder's while nothing
    is dropped and `noise` is 0. Without it the MLP's output begins multiplied by the chosen experts' probabilities,
    about experts_per_token / num_experts. Section 2 of the paper; it upcycles every other layer, this one all.

    Args:
      config: of the dense decoder.
      params: its parameters; not changed.
      moe: its `mlp_dim` is the dense one's; no shared expert.
      seed: of router and noise.
      router_stddev: of the router's weights (0.02 in the paper).
      noise: of each expert's weights, as a share of their standard deviation, so that experts part sooner.

    Returns:
      The configuration with experts, and parameters with the same layout (stacked or not).

    Raises:
      InteropError: a decoder that has experts, experts of another size, or a shared expert.
    """
    if config.moe is not None:
        raise InteropError("expected a dense decoder to upcycle, got one with experts")
    if moe.mlp_dim != config.mlp_dim or moe.shared_mlp_dim:
        raise InteropError(
            f"expected experts of the dense MLP's size and no shared one (mlp_dim={config.mlp_dim}, shared_mlp_dim=0), "
            f"got mlp_dim={moe.mlp_dim}, shared_mlp_dim={moe.shared_mlp_dim}"
        )
    params = host_params(params)
    random = np.random.default_rng(seed)
    transformer = dict(params["transformer"])
    stacks = ["layers"] if config.scan_layers else [f"layer_{layer}" for layer in range(config.num_layers)]
    for stack in stacks:
        layer = dict(transformer[stack])
        mlp = layer.pop("mlp")
        # Behind the stacked layers, if there are any, comes the axis of experts.
        place = mlp["down"].ndim - 2
        experts = {name: _copies(mlp[name], place, moe.num_experts, noise, random) for name in ("gate_up", "down")}
        router_shape = (*mlp["down"].shape[:place], config.d_model, moe.num_experts)
        router = router_stddev * random.standard_normal(router_shape, np.float32)
        layer["moe"] = {"router": router.astype(mlp["down"].dtype), **experts}
        transformer[stack] = layer
    return dataclasses.replace(config, moe=moe), {**params, "transformer": transformer}


def _copies(dense: np.ndarray, axis: int, count: int, noise: float, random: np.random.Generator) -> np.ndarray:
    copies = np.repeat(np.expand_dims(dense, axis), count, axis)
    if noise:
        spread = noise * dense.astype(np.float32).std()
        copies = (copies + spread * random.standard_normal(copies.shape, np.float32)).astype(dense.dtype)
    return copies
