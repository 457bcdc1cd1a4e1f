"""The device mesh, and the one table from logical axes of the model to axes of the mesh."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

# Neighbours on the last axis are neighbours on the interconnect: the one that talks most comes last.
MESH_AXES = ("data", "fsdp", "expert", "tensor")
BATCH_AXES = ("data", "fsdp", "expert")

# Logical axis -> mesh axes. A name may come twice: the first rule whose mesh axes are still free in an array holds, so
# that the width of an expert's matrix, whose experts are split over `expert`, is split over `fsdp` alone. Parameters
# are split over `fsdp` on the model width, over `tensor` on heads, MLP and vocabulary, over `expert` on experts;
# batches over all but `tensor`; on their way through the experts rows leave the `expert` axis to the experts. An axis
# that is not here is replicated.
LOGICAL_AXIS_RULES: tuple[tuple[str, Any], ...] = (
    ("expert", "expert"),
    ("batch", BATCH_AXES),
    ("expert_batch", ("data", "fsdp")),
    ("embed", ("fsdp", "expert")),
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
    ("embed_gate", None),
    ("rank", None),
    ("router", None),
    ("capacity", None),
    ("norm", None),
)


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis of the mesh; -1, on one of them, takes what the others leave.

    Attributes:
      data: copies of the parameters, each with its share of the batch.
      fsdp: parameters and optimizer slots are cut over it, and gathered layer by layer; it has its share of the batch.
      expert: experts are cut over it, everything else as over `fsdp`.
      tensor: heads, MLP and vocabulary are cut over it.
    """

    data: int = -1
    fsdp: int = 1
    expert: int = 1
    tensor: int = 1

    def sizes(self, num_devices: int) -> tuple[int, ...]:
        """Devices along `MESH_AXES`.

        Raises:
          ValueError: the axes do not multiply to the number of devices, or two are -1.
        """
        asked = (self.data, self.fsdp, self.expert, self.tensor)
        if asked.count(-1) > 1:
            raise ValueError(f"expected at most one axis of -1, which takes what the others leave, got {self}")
        rest = math.prod(size for size in asked if size != -1)
        sizes = tuple(num_devices // rest if size == -1 else size for size in asked)
        if math.prod(sizes) != num_devices:
            raise ValueError(f"expected data x fsdp x expert x tensor = {num_devices} devices, got {sizes}")
        return sizes

    def build(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """The mesh over `devices` (all of them by default).

        Devices of several TPU slices are joined along `data`, else along `fsdp`: between slices is a data-centre
        network, slower than the interconnect inside by more than ten times.

        Raises:
          ValueError: the axes do not multiply to the number of devices, or the slices divide neither axis.
        """
        devices = jax.devices() if devices is None else devices
        sizes = self.sizes(len(devices))
        slices = len({getattr(device, "slice_index", 0) for device in devices})
        if slices == 1:
            array = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
            return Mesh(array, MESH_AXES)
        between, within = _split_over_slices(sizes, slices)
        array = mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
        return Mesh(array, MESH_AXES)


def _split_over_slices(sizes: tuple[int, ...], slices: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Sizes between slices and within one, whose product are `sizes`."""
    for axis in (0, 1):
        if sizes[axis] % slices == 0:
            between = tuple(slices if i == axis else 1 for i in range(len(sizes)))
            return between, tuple(size // outer for size, outer in zip(sizes, between, strict=True))
    raise ValueError(
        f"expected data or fsdp to be a multiple of the {slices} slices that it is spread over, got "
        f"{dict(zip(MESH_AXES, sizes, strict=True))}: between slices, only these two axes are fast enough"
    )


def parameter_shardings(boxed_params: Any, mesh: Mesh) -> Any:
    """Sharding of every parameter from its logical axis names; parameters without names are replicated."""
    specs = nn.get_partition_spec(boxed_params)
    shardings = nn.logical_to_mesh_sharding(specs, mesh, LOGICAL_AXIS_RULES)
    return jax.tree.map(lambda leaf, sharding: dividing(leaf.shape, sharding), nn.unbox(boxed_params), shardings)


def dividing(shape: tuple[int, ...], sharding: NamedSharding) -> NamedSharding:
    """Moves mesh axes from a dimension that they do not divide to the largest other one that they do, or drops them."""
    spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    for i, axes in enumerate(spec):
        ways = _ways(sharding.mesh, axes)
        if shape[i] % ways == 0:
            continue
        spec[i] = None
        free = [j for j in range(len(shape)) if _ways(sharding.mesh, spec[j]) == 1 and j != i and shape[j] % ways == 0]
        if free:
            spec[max(free, key=lambda j: shape[j])] = axes
    while spec and spec[-1] is None:
        spec.pop()
    return NamedSharding(sharding.mesh, PartitionSpec(*spec))


def _ways(mesh: Mesh | AbstractMesh, axes: Any) -> int:
    names = () if axes is None else (axes,) if isinstance(axes, str) else axes
    return math.prod(int(mesh.shape[name]) for name in names)


@contextlib.contextmanager
def logical_axes(mesh: Mesh) -> Iterator[None]:
    """Where a model is traced: its constraints on activations hold on this mesh.

    Flax drops them, silently, unless there are rules and a mesh in force; XLA then splits activations as parameters are
    split, along the width: ten times the memory.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(LOGICAL_AXIS_RULES):
        yield


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch are split over every axis but `tensor`."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def is_tpu(mesh: Mesh) -> bool:
    """Whether the mesh's devices are TPUs, real ones or those of a topology to compile for."""
    return bool(np.asarray(mesh.devices).flat[0].platform == "tpu")
