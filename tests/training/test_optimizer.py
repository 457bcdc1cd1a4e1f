"""Optimizers against what they are defined to be: Optax's AdamW, singular values, full batches, shardings, dtypes."""

import dataclasses
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_training import CONFIG, filled, init_of, params_of, trained

from plum_jax.model.config import MixtureOfExperts
from plum_jax.semantic_ids.rqvae.network import RqVaeNetwork
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import Adafactor, AdamW, Muon
from plum_jax.training.parameter_roles import map_with_path, role_of
from plum_jax.training.schedules import Constant, WarmupCosine
from plum_jax.training.slots import map_slots
from plum_jax.training.step import abstract_state

RATE = Constant(1e-2)
OPTIMIZERS = [AdamW(RATE), Muon(RATE), Adafactor(Constant(3e-2))]
each_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)


def _updates(transformation, params, steps=1):
    """The updates of the last of some steps with random gradients; the parameters are not moved."""
    state, update = jax.jit(transformation.init)(params), jax.jit(transformation.update)
    for step in range(steps):
        updates, state = update(filled(params, step + 1), state, params)
    return updates


def test_the_default_is_bit_for_bit_optax_adamw_behind_a_clip():
    params = params_of()
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 5, 10, 1e-4)
    decayed = jax.tree_util.tree_map_with_path(lambda keys, _: keys[-1].key != "scale", params)
    expected = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b1=0.9, b2=0.98, weight_decay=0.1, mask=decayed)
    )
    ours = AdamW().build(10)
    jax.tree.map(np.testing.assert_array_equal, _updates(ours, params, 3), _updates(expected, params, 3))
    assert AdamW().schedule == WarmupCosine(peak=1e-3, warmup_steps=100, final_fraction=0.1)


def test_norms_and_biases_are_not_decayed():
    params = {
        "embedding": jnp.ones((4, 2)),
        "transformer": {
            "layers": {
                "attention": {"qkv_bias": jnp.ones(2), "query_norm": jnp.ones(2), "qkv": jnp.ones((2, 1, 3, 2))},
                "mlp_norm": {"scale": jnp.ones(2)},
            }
        },
    }
    transformation = AdamW(Constant(1.0), weight_decay=0.5).build(10)
    updates, _ = transformation.update(jax.tree.map(jnp.zeros_like, params), transformation.init(params), params)
    moved = {path for path, update in _by_path(updates).items() if np.any(update)}
    assert moved == {"embedding", "transformer/layers/attention/qkv"}
    np.testing.assert_array_equal(updates["embedding"], -0.5)


def _by_path(tree):
    found = {}
    map_with_path(lambda path, leaf: found.setdefault(path, leaf), tree)
    return found


def test_clipping_bounds_the_norm_of_all_gradients_together_and_none_does_not():
    gradients = {"embedding": jnp.array([[3.0, 0.0]]), "head": jnp.array([[0.0, 4.0]])}
    for norm, expected in ((2.5, 0.5), (10.0, 1.0), (None, 1.0)):
        transformation = AdamW(Constant(1.0), b1=0.0, weight_decay=0.0, clip_norm=norm).build(10)
        _, (_, (adam, *_)) = transformation.update(gradients, transformation.init(gradients), gradients)
        np.testing.assert_allclose(adam.mu["embedding"], [[3.0 * expected, 0.0]], rtol=1e-6)


@each_optimizer
def test_the_rq_vae_trains_with_it(optimizer):
    network = RqVaeNetwork((6, 5), (8,), 4, 4, (4, 3), head_dims=(3,))
    blocks, present = (jnp.ones((2, 6)), jnp.ones((2, 5))), (jnp.ones(2, bool), jnp.ones(2, bool))
    params = filled(jax.eval_shape(network.init, jax.random.key(0), blocks, present)["params"])
    updates = _updates(optimizer.build(10), params, 2)
    assert all(np.all(np.isfinite(update)) and np.any(update) for update in jax.tree.leaves(updates))


def _matrices(params):
    """Each real matrix of a decoder's layer, cut out by hand, by name."""
    layers = params["transformer"]["layers"]
    for layer in range(CONFIG.num_layers):
        for kv_head in range(CONFIG.num_kv_heads):
            for head in range(4):  # two queries, key, value
                yield f"{layer} qkv {kv_head} {head}", layers["attention"]["qkv"][layer, :, kv_head, head]
        yield f"{layer} out", layers["attention"]["out"][layer].reshape(-1, CONFIG.d_model)
        for which in range(2):
            yield f"{layer} gate_up {which}", layers["mlp"]["gate_up"][layer, :, which]
        yield f"{layer} down", layers["mlp"]["down"][layer]


def test_muon_orthogonalises_each_matrix_and_gives_it_adams_size():
    params = params_of()
    optimizer = Muon(Constant(1.0), weight_decay=0.0)
    matrices = dict(_matrices(_updates(optimizer.build(10), params, 2)))
    assert len(matrices) == 2 * (8 + 1 + 2 + 1)
    for name, matrix in matrices.items():
        singular = np.linalg.svd(matrix, compute_uv=False)
        # Newton-Schulz with these coefficients ends between 0.7 and 1.2.
        expected = 0.2 * max(matrix.shape) ** 0.5
        assert singular.min() > 0.5 * expected and singular.max() < 1.3 * expected, name
        assert np.sqrt(np.mean(np.square(matrix))) == pytest.approx(0.2, rel=0.25), name
    # The test can fail: random matrices, as the gradients are, are far from orthogonal.
    raw = np.linalg.svd(dict(_matrices(params))["0 out"], compute_uv=False)
    assert raw.max() > 3 * raw.min()


def test_muons_update_of_one_matrix_does_not_depend_on_the_others():
    params, transformation = params_of(), Muon(Constant(1.0), clip_norm=None).build(10)
    gradients, other = filled(params, 1), filled(params, 1)
    mlp = other["transformer"]["layers"]["mlp"]
    mlp["gate_up"] = mlp["gate_up"].at[0, :, 0].multiply(-3.0)
    update = jax.jit(transformation.update)
    state = transformation.init(params)
    first, second = (dict(_matrices(update(g, state, params)[0])) for g in (gradients, other))
    assert [name for name in first if not np.allclose(first[name], second[name], atol=1e-6)] == ["0 gate_up 0"]


def test_experts_are_matrices_of_their_own_and_the_router_is_adams():
    layer = {
        "router": jnp.zeros((8, 3)),
        "gate_up": jnp.zeros((3, 8, 2, 6)),
        "down": jnp.zeros((3, 6, 8)),
        "shared": {"gate_up": jnp.zeros((8, 2, 6)), "down": jnp.zeros((6, 8))},
    }
    params = {"transformer": {"layer_0": {"moe": layer}}}
    updates = _updates(Muon(Constant(1.0), weight_decay=0.0).build(10), params)
    moe = updates["transformer"]["layer_0"]["moe"]
    for expert in range(3):
        for matrix in (moe["gate_up"][expert, :, 0], moe["gate_up"][expert, :, 1], moe["down"][expert]):
            singular = np.linalg.svd(matrix, compute_uv=False) / (0.2 * 8**0.5)
            assert singular.min() > 0.5 and singular.max() < 1.3
    np.testing.assert_allclose(np.abs(moe["router"]), 1.0, rtol=1e-4)  # Adam's first step


def test_every_parameter_of_a_decoder_has_a_role():
    extras = {"qkv_bias": True, "qk_norm": True, "post_norms": True, "branch_gates": True, "tied_embeddings": False}
    experts = MixtureOfExperts(num_experts=4, experts_per_token=2, mlp_dim=6, shared_mlp_dim=6)
    for changes in (extras, {"moe": experts, "scan_layers": False}):
        params = jax.eval_shape(init_of(dataclasses.replace(CONFIG, **changes)), jax.random.key(0))
        roles = {path: role_of(path) for path in _by_path(nn.unbox(params))}
        assert [path for path, role in roles.items() if role is None] == []
        assert all(role.kind == "vector" for path, role in roles.items() if re.search("norm|bias", path))
        kinds = {role.kind for role in roles.values()}
        assert kinds == {"heads", "hidden", "table", "vector"} | ({"router"} if "moe" in changes else set())


@each_optimizer
@pytest.mark.parametrize("mesh", [MeshShape(data=1, fsdp=4, tensor=2), MeshShape(data=2, fsdp=4)], ids=str)
def test_every_slot_of_a_parameters_shape_is_split_as_the_parameter_is(optimizer, mesh):
    config = dataclasses.replace(CONFIG, d_model=128, mlp_dim=128)  # large enough for Adafactor to factor
    frozen = dataclasses.replace(optimizer.groups, rules=((".*/attention/out", 0.0),))
    for groups in (optimizer.groups, frozen):
        transformation = dataclasses.replace(optimizer, groups=groups).build(10)
        state = abstract_state(init_of(config), transformation, jax.random.key(0), mesh.build())
        counted = {"whole": 0, "other": 0}

        def check(slot, parameter, counted=counted):
            if parameter is not None and slot.shape == parameter.shape:
                counted["whole"] += 1
                assert slot.sharding == parameter.sharding
            else:
                counted["other"] += 1
                assert slot.size <= 24 * 128, "what is replicated is small"

        map_slots(check, state.optimizer_state, state.params)
        assert counted["whole"] >= 5
        qkv = state.params["transformer"]["layers"]["attention"]["qkv"]
        assert np.prod(qkv.sharding.shard_shape(qkv.shape)) <= qkv.size // 4
        frozen_slots = [
            keys
            for keys, _ in jax.tree_util.tree_leaves_with_path(state.optimizer_state)
            if re.search("attention.*out", str(keys))
        ]
        assert bool(frozen_slots) == (groups is not frozen), "what is frozen has no slots"


@pytest.mark.parametrize("optimizer", [AdamW(RATE), Muon(RATE)], ids=["AdamW", "Muon"])
def test_momentum_may_be_kept_in_bfloat16(optimizer):
    params = params_of()
    short = dataclasses.replace(optimizer, momentum_dtype="bfloat16")
    moments = [
        slot.dtype
        for keys, slot in jax.tree_util.tree_leaves_with_path(short.build(10).init(params))
        if ".mu" in jax.tree_util.keystr(keys)
    ]
    assert moments and set(moments) == {jnp.dtype("bfloat16")}
    table = {"embedding": params["embedding"]}
    near, exact = (_updates(one.build(10), table, 3)["embedding"] for one in (short, optimizer))
    assert 0 < np.abs(near - exact).max() < 0.02 * np.abs(exact).max()


@pytest.mark.parametrize(
    "optimizer",
    [OPTIMIZERS[0], *(pytest.param(one, marks=pytest.mark.slow) for one in OPTIMIZERS[1:])],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_bfloat16_activations_leave_parameters_slots_and_updates_in_float32(optimizer):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    built = optimizer.build(10)
    _, after, losses = trained(built, 30, config)
    assert losses[-1] < 0.6 * losses[0]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(after)} <= {"float32", "int32"}
    program = jax.make_jaxpr(built.update)(after.params, after.optimizer_state, after.params)
    assert "bf16" not in str(program)


def test_updates_below_the_resolution_of_bfloat16_add_up():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    before, after, _ = trained(AdamW(Constant(1e-5), weight_decay=0.0).build(20), 20, config)
    old, new = (state.params["transformer"]["final_norm"]["scale"] for state in (before, after))
    assert 5e-5 < np.abs(new - old).mean() < 2.1e-4
    # Had the parameters been bfloat16, none of these updates would have been seen.
    np.testing.assert_array_equal(jnp.asarray(old, "bfloat16") + jnp.bfloat16(2e-5), jnp.asarray(old, "bfloat16"))
