"""T5X checkpoints read and written: parameters, step, and the optimizer's slots where the optimizer is the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict

from plum_jax.interop.t5x.installed import T5xError
from plum_jax.interop.t5x.optimizer_def import OptimizerDef
from plum_jax.interop.t5x.parameters import shapes_of, variables_of
from plum_jax.interop.t5x.partitioner import Partitioner
from plum_jax.model.decoder import Decoder
from plum_jax.training.initial import initial_params
from plum_jax.training.mesh import MeshShape
from plum_jax.training.saved_params import read_arrays, read_shapes

from t5x import checkpoints as t5x_checkpoints  # isort: skip
from t5x import optimizers, train_state  # isort: skip

_NAMED = 4  # parameters that one message names


@dataclasses.dataclass(frozen=True)
class T5xCheckpoint:
    """What a checkpoint holds.

    Attributes:
      step: finished steps.
      params: nested dictionaries of host arrays.
      slots: the optimizer's state as a state dict; {} where there is none.
    """

    step: int
    params: Any
    slots: Any


def read_checkpoint(path: epath.PathLike) -> T5xCheckpoint:
    """A directory `checkpoint_<step>`, of T5X with Orbax or of T5X's own older form.

    Raises:
      T5xError: neither is there.
    """
    directory = epath.Path(path)
    if (directory / "state").is_dir():
        state = read_arrays(directory / "state")
    elif (directory / "checkpoint").exists():
        state = t5x_checkpoints.load_t5x_checkpoint(str(directory))
    else:
        raise T5xError(
            f"expected a directory checkpoint_<step> of T5X, got {directory}: it has neither state/ (Orbax) nor "
            "checkpoint (T5X's older form)"
        )
    own = state.get("state", {})
    step = int(np.asarray(own.get("step", 0)))
    return T5xCheckpoint(step, jax.tree.map(np.asarray, state["target"]), own.get("param_states", {}))


@dataclasses.dataclass(frozen=True)
class RequireArchitecture:
    """A restore transformation for T5X's gin files: another decoder's checkpoint is refused by name, before it is read.

    T5X compares no shapes, so that Orbax fails in its depths; with `fallback_to_scratch` it takes random numbers for
    what is missing, and what is too much it leaves out.

    Attributes:
      path: the checkpoint that T5X was told to begin with, alone or as a list of one.
      model_dir: of T5X's training, which goes on from the latest checkpoint there; None where none is trained.
    """

    path: str | Sequence[str]
    model_dir: str | None = None

    def __call__(self, state_dict: Any, target_state_dict: Any, *, is_resuming: bool = False) -> Any:
        """The state as it came.

        Raises:
          T5xError: names the parameters that differ.
        """
        given = (self.path,) if isinstance(self.path, str) else self.path
        where = _latest(self.model_dir) if is_resuming else given[0]
        require_architecture(_saved_shapes(where), target_state_dict["target"], where)
        return state_dict


def _latest(model_dir: str | None) -> str:
    assert model_dir is not None
    names = [path.name.removeprefix("checkpoint_") for path in epath.Path(model_dir).glob("checkpoint_*")]
    # What is being written has a longer name.
    return t5x_checkpoints.get_checkpoint_dir(model_dir, max(int(name) for name in names if name.isdigit()))


def _saved_shapes(path: epath.PathLike) -> Any:
    directory = epath.Path(path)
    if (directory / "state").is_dir():
        return read_shapes(directory / "state")["target"]
    return read_checkpoint(directory).params


def require_architecture(params: Any, expected: Any, where: object) -> None:
    """Refuses parameters that are not a decoder's.

    Args:
      params: nested dictionaries of what has a shape.
      expected: the same of the decoder (`parameters.shapes_of`).
      where: what the message names.

    Raises:
      T5xError: names what differs.
    """
    found, wanted = (_shapes(tree) for tree in (params, expected))
    if any(name.startswith(("decoder/", "token_embedder/")) for name in found):
        raise T5xError(
            f"{where} is a checkpoint of T5X's examples/decoder_only, whose parameters have other names: read it with "
            "plum_jax.interop.t5x.decoder_only"
        )
    different = [
        f"{name} is {found.get(name, 'not there')}, expected {wanted.get(name, 'none of that name')}"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if different:
        more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
        raise T5xError(
            f"{where} is of another decoder than this configuration and vocabulary: "
            f"{'; '.join(different[:_NAMED])}{more}. Take the gin/model file, and the run, that it was trained with"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    flat = flatten_dict(flax.core.unfreeze(tree), sep="/")
    return {name: tuple(leaf.shape) for name, leaf in flat.items()}


def slots_for(optimizer_def: OptimizerDef, params: Any, slots: Any) -> Any | None:
    """The slots of a checkpoint in the optimizer's own structure; None: they are another optimizer's."""
    template = optimizers.OptimizerState(0, jax.eval_shape(optimizer_def.optax_optimizer.init, params))
    wanted = flatten_dict(flax.serialization.to_state_dict(template.param_states), sep="/")
    found = flatten_dict(flax.core.unfreeze(slots), sep="/") if slots else {}
    if {name: jnp.shape(leaf) for name, leaf in found.items()} != {n: leaf.shape for n, leaf in wanted.items()}:
        return None
    state = {"target": params, "state": {"step": 0, "param_states": slots}}
    _, restored = optimizer_def.restore_state(params, template, state)
    return restored.param_states


def write_checkpoint(
    directory: epath.PathLike,
    decoder: Decoder,
    optimizer_def: OptimizerDef,
    *,
    step: int,
    params: Any,
    slots: Any | None,
    mesh_shape: MeshShape = MeshShape(),  # noqa: B008 (frozen)
) -> epath.Path:
    """Writes `directory/checkpoint_<step>`, which T5X trains on from, evaluates and infers with.

    Args:
      directory: what T5X calls MODEL_DIR.
      decoder: whose parameters they are.
      optimizer_def: the optimizer that T5X will have.
      step: finished steps.
      params: host arrays.
      slots: the optimizer's state in its own structure; None: new ones.
      mesh_shape: of the devices here; the checkpoint can be read on any.

    Returns:
      the checkpoint's directory.
    """
    require_architecture(params, shapes_of(decoder), "what is to be written")
    init = initial_params(decoder)
    assert callable(init)
    axes = jax.eval_shape(lambda key: init(key), jax.random.key(0))
    variables = {**variables_of(axes), "params": flax.core.freeze(params)}
    state = train_state.FlaxOptimTrainState.create(optimizer_def, flax.core.freeze(variables))
    own = state.param_states if slots is None else slots
    numbered = optimizers.OptimizerState(step=jnp.int32(step), param_states=own)
    state = state.replace(_optimizer=state._optimizer.replace(state=numbered))
    target = epath.Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    manager = t5x_checkpoints.OrbaxCheckpointManagerInterface(str(target.resolve()), state, Partitioner(mesh_shape))
    try:
        manager.save(state)
        manager.wait_until_finished()
    finally:
        manager.close()
    return epath.Path(t5x_checkpoints.get_checkpoint_dir(str(target), step))
