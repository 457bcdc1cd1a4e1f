"""The device mesh, and the one table from logical axes of the model to axes of the mesh."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Logical axis -> mesh axes. Parameters are split over `fsdp` on the model width and over `tensor` on heads, MLP and
# vocabulary; batches over `data` and `fsdp`. An axis that is not here is replicated.
LOGICAL_AXIS_RULES: tuple[tuple[str, Any], ...] = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
    ("length", None),
    ("embed_activation", None),
    ("layers", None),
    ("groups", None),
    ("qkv", None),
    ("head", None),
    ("gate_up", None),
    ("norm", None),
)


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh; -1 on `data` takes what the others leave."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def build(self, devices: list[jax.Device] | None = None) -> Mesh:
        """The mesh over `devices` (all of them by default).

        Raises:
          ValueError: the axes do not multiply to the number of devices.
        """
        devices = jax.devices() if devices is None else devices
        data = len(devices) // (self.fsdp * self.tensor) if self.data == -1 else self.data
        shape = (data, self.fsdp, self.tensor)
        if math.prod(shape) != len(devices):
            raise ValueError(f"expected data x fsdp x tensor = {len(devices)} devices, got {shape}")
        return Mesh(np.asarray(devices).reshape(shape), ("data", "fsdp", "tensor"))


def parameter_shardings(boxed_params: Any, mesh: Mesh) -> Any:
    """Sharding of every parameter from its logical axis names; parameters without names are replicated."""
    specs = nn.get_partition_spec(boxed_params)
    return nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_AXIS_RULES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch are split over `data` and `fsdp`."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())
