"""Our mesh and our rules for T5X's `PjitPartitioner`."""

from __future__ import annotations

import functools
from typing import Any

import flax
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plum_jax.interop.t5x import installed  # noqa: F401  (before t5x)
from plum_jax.training.mesh import LOGICAL_AXIS_RULES, MeshShape, dividing

from t5x import partitioning  # isort: skip


class Partitioner(partitioning.PjitPartitioner):
    """`PjitPartitioner` over the mesh (data, fsdp, expert, tensor) of `plum_jax.training.mesh`, with its rules.

    T5X's own mesh is (data, model). Experts have no axis there, and the kernels for TPU are written for ours; with
    T5X's partitioner and `t5x_rules` the decoder trains too, on CPU and GPU.
    """

    def __init__(self, mesh_shape: MeshShape = MeshShape()) -> None:  # noqa: B008 (frozen)
        """Devices along each axis are `mesh_shape`'s.

        Raises:
          ValueError: they do not multiply to the number of devices.
        """
        self.mesh_shape = mesh_shape
        # Of no account but for T5X's own check that there is one: the mesh is ours.
        super().__init__(num_partitions=1, logical_axis_rules=LOGICAL_AXIS_RULES)

    @functools.cached_property
    def mesh(self) -> Mesh:
        return self.mesh_shape.build()

    def get_mesh_axes(self, train_state: Any) -> Any:
        """T5X's, without axes of one device, which T5X's older checkpointer cannot read beside others.

        Where an axis of the mesh does not divide a dimension, another dimension is split, or none.
        """
        axes = super().get_mesh_axes(train_state)
        flat = flatten_dict(flax.core.unfreeze(train_state.state_dict()), keep_empty_nodes=True)
        specs = flatten_dict(flax.core.unfreeze(axes.state_dict()), keep_empty_nodes=True)
        fitted = {keys: self._dividing(flat.get(keys), spec) for keys, spec in specs.items()}
        return axes.restore_state(unflatten_dict(fitted))

    def _dividing(self, leaf: Any, spec: Any) -> Any:
        if spec is None or spec is empty_node or not hasattr(leaf, "shape"):
            return spec
        return self._of_many(dividing(leaf.shape, NamedSharding(self.mesh, spec)).spec)

    def _of_many(self, spec: PartitionSpec) -> PartitionSpec:
        parts: list[Any] = []
        for axes in spec:
            names = () if axes is None else (axes,) if isinstance(axes, str) else axes
            many = tuple(name for name in names if self.mesh.shape[name] > 1)
            parts.append(many if len(many) > 1 else many[0] if many else None)
        return PartitionSpec(*parts)


def t5x_rules() -> list[tuple[str, Any]]:
    """Our logical axes on the axes of T5X's own mesh: "data" takes what ours splits over data, fsdp and expert."""
    names = {"data": "data", "fsdp": "data", "expert": "data", "tensor": "model"}
    rules: list[tuple[str, Any]] = []
    for axis, ours in LOGICAL_AXIS_RULES:
        over = () if ours is None else (ours,) if isinstance(ours, str) else ours
        theirs = list(dict.fromkeys(names[name] for name in over))
        rules.append((axis, theirs[0] if theirs else None))
    return rules
