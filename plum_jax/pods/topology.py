"""The chips of a TPU topology that is not here, as devices to compile for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from plum_jax.training.chips import Chip, chip_named


class TopologyError(ValueError):
    """There is no such topology, or no compiler for it."""


def topology_devices(name: str, num_slices: int = 1) -> tuple[Chip, Sequence[jax.Device]]:
    """The chips of `num_slices` times a slice such as "v6e:16x16" or "v5p:4x4x8", and what one of them can do.

    From here on this process's own computations run on CPU: libtpu is loaded as a compiler, and looks for no chips.

    Raises:
      TopologyError: libtpu is not installed, or does not know the topology.
    """
    chip = chip_named(name.partition(":")[0])
    if importlib.util.find_spec("libtpu") is None:
        raise TopologyError("compiling for a TPU needs libtpu, which is not installed: pip install 'plum_jax[tpu]'")
    # Several processes may compile at once, and none asks Google's metadata server what machine this is.
    for variable, value in {
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v6e-1",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        arguments = {"num_slices": num_slices} if num_slices > 1 else {}
        return chip, topologies.get_topology_desc(platform="tpu", topology_name=name, **arguments).devices
    except Exception as error:  # libtpu raises what it likes
        raise TopologyError(
            f"libtpu knows no topology {name!r} (x {num_slices} slices): expected a chip and a shape, such as "
            f"v5e:16x16, v6e:16x16, v5p:4x4x8 or v4:4x4x4. It said: {str(error)[:200]}"
        ) from error
