"""Oracle of the mesh: however a step is split over eight devices, loss and parameters are those of one device."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from plum_jax.model.config import DecoderConfig, MixtureOfExperts
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.kernels import loss_on
from plum_jax.objectives.next_token import NextTokenLoss
from plum_jax.training.mesh import MESH_AXES, MeshShape, logical_axes, parameter_shardings
from plum_jax.training.step import abstract_state, initial_state, make_train_step

VOCAB, BATCH, LENGTH = 32, 16, 6
DENSE = DecoderConfig(num_layers=2, d_model=16, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=16, remat="full")
EXPERTS = DecoderConfig(**{**vars(DENSE), "moe": MixtureOfExperts(4, 2, 16, shared_mlp_dim=8)})
CONFIGS = {"dense": DENSE, "experts": EXPERTS}
OPTIMIZER = optax.sgd(0.3, momentum=0.9)
KEY = jax.random.key(0)


def _batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, VOCAB, (BATCH, LENGTH), dtype=np.int32)
    return {
        "decoder_input_tokens": np.roll(tokens, 1, axis=1),
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": rng.random((BATCH, LENGTH), dtype=np.float32),
        "decoder_segment_ids": np.tile(np.array([1, 1, 1, 2, 2, 0], np.int32), (BATCH, 1)),
        "decoder_positions": np.tile(np.array([0, 1, 2, 0, 1, 0], np.int32), (BATCH, 1)),
    }


def _init(decoder, key):
    one = jnp.zeros((1, 1), jnp.int32)
    return decoder.init(key, one, one, jnp.ones((1, 1, 1), bool))["params"]


def _two_steps(config, mesh, microbatches):
    decoder = Decoder(config, VOCAB)
    state = initial_state(functools.partial(_init, decoder), OPTIMIZER, KEY, mesh)
    step = make_train_step(NextTokenLoss(decoder), OPTIMIZER, microbatches, KEY, mesh, state)
    losses = []
    for _ in range(2):
        state, sums = step(state, _batch())
        losses.append(float(sums["loss"][0] / sums["loss"][1]))
    return losses, jax.device_get((state.params, state.optimizer_state)), state


@functools.cache
def _on_one_device(name, microbatches):
    return _two_steps(CONFIGS[name], MeshShape().build(jax.devices()[:1]), microbatches)[:2]


@pytest.mark.parametrize(
    ("name", "mesh", "microbatches"),
    [
        pytest.param("dense", MeshShape(data=8), 2, marks=pytest.mark.slow),
        ("dense", MeshShape(data=1, fsdp=8), 1),
        pytest.param("dense", MeshShape(data=1, fsdp=4, tensor=2), 2, marks=pytest.mark.slow),
        ("dense", MeshShape(data=2, fsdp=2, tensor=2), 1),
        pytest.param("experts", MeshShape(data=1, fsdp=8), 1, marks=pytest.mark.slow),
        pytest.param("experts", MeshShape(data=2, expert=4), 2, marks=pytest.mark.slow),
        pytest.param("experts", MeshShape(data=2, fsdp=2, tensor=2), 1, marks=pytest.mark.slow),
        ("experts", MeshShape(data=1, fsdp=2, expert=2, tensor=2), 2),
    ],
)
def test_split_over_eight_devices_equals_one(name, mesh, microbatches):
    expected_losses, expected = _on_one_device(name, microbatches)
    losses, got, state = _two_steps(CONFIGS[name], mesh.build(), microbatches)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)
    ways = 8 // mesh.sizes(8)[0]  # all axes but `data` split the matrices, and the momentum as them
    layers = state.params["transformer"]["layers"]
    slots = state.optimizer_state[0].trace["transformer"]["layers"]
    matrix = ("mlp", "gate_up") if name == "dense" else ("moe", "gate_up")
    for tree in (layers, slots):
        array = tree[matrix[0]][matrix[1]]
        assert array.addressable_shards[0].data.size * ways == array.size


def test_shapes_say_where_everything_lies():
    mesh = MeshShape(data=2, fsdp=2, tensor=2).build()
    decoder = Decoder(DENSE, VOCAB)
    abstract = abstract_state(functools.partial(_init, decoder), OPTIMIZER, KEY, mesh)
    real = initial_state(functools.partial(_init, decoder), OPTIMIZER, KEY, mesh)
    facts = lambda x: (x.shape, x.dtype, x.sharding)  # noqa: E731
    assert jax.tree.map(facts, abstract) == jax.tree.map(facts, real)


def test_an_axis_that_does_not_divide_a_dimension_splits_another_one():
    mesh = MeshShape(data=1, fsdp=8).build()

    def spec(*shape):
        box = nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), ("embed", "mlp"))
        return parameter_shardings({"x": box}, mesh)["x"].spec

    assert spec(16, 24) == PartitionSpec(("fsdp", "expert"), "tensor")
    assert spec(12, 24) == PartitionSpec(None, ("fsdp", "expert"))
    assert spec(12, 7) == PartitionSpec(None, "tensor")


def test_constraints_on_activations_hold_in_a_step():
    mesh = MeshShape(data=8).build()

    def constrained(x):
        with logical_axes(mesh):
            return nn.with_logical_constraint(x, ("batch", "embed_activation"))

    assert "sharding" in jax.jit(constrained).lower(jnp.ones((8, 4))).as_text()


class _Chip:
    platform, device_kind = "cpu", "pretended"

    def __init__(self, number, slice_index):
        self.id, self.slice_index, self.process_index = number, slice_index, slice_index


def test_slices_are_joined_along_data_and_else_along_fsdp():
    chips = [_Chip(number, number // 4) for number in range(8)]

    def slices_along(mesh):
        array = np.vectorize(lambda chip: chip.slice_index)(mesh.build(chips).devices)
        return [axis for i, axis in enumerate(MESH_AXES) if (np.diff(array, axis=i) != 0).any()]

    assert slices_along(MeshShape(data=2, fsdp=4)) == ["data"]
    assert slices_along(MeshShape(data=1, fsdp=4, tensor=2)) == ["fsdp"]
    with pytest.raises(ValueError, match="expected data or fsdp to be a multiple of the 2 slices"):
        MeshShape(data=1, fsdp=1, tensor=8).build(chips)


def test_sizes_are_checked():
    assert MeshShape(data=1, fsdp=-1, tensor=2).sizes(8) == (1, 4, 1, 2)
    with pytest.raises(ValueError, match=r"data x fsdp x expert x tensor = 8 devices, got \(3, 1, 1, 1\)"):
        MeshShape(data=3).sizes(8)
    with pytest.raises(ValueError, match="at most one axis of -1"):
        MeshShape(data=-1, fsdp=-1).sizes(8)


def test_a_cpu_takes_all_logits_at_once():
    assert loss_on(MeshShape().build(jax.devices()[:1])) is None
