"""Oracles of the experts: slots = a sort by hand, dispatch = every expert on every token, dropless = cached = full."""

import dataclasses

import flax.linen as nn
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig, MixtureOfExperts
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import PackedCausal
from plum_jax.model.moe.experts import Experts
from plum_jax.model.moe.grouped_matmul import BLOCK, _ragged, grouped_matmul
from plum_jax.model.moe.routing import route
from plum_jax.model.moe.slots import capacity, fixed_slots, from_slots, ragged_slots, to_slots

MOE = MixtureOfExperts(num_experts=4, experts_per_token=2, mlp_dim=24, dispatch="dropless")
CONFIG = DecoderConfig(num_layers=2, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, moe=MOE)
TOKENS = 12


def _with(**changes):
    return dataclasses.replace(CONFIG, moe=dataclasses.replace(MOE, **changes))


def _layer(config, seed=0):
    x = jax.random.normal(jax.random.key(seed), (3, TOKENS, config.d_model))
    layer = Experts(config)
    return layer, nn.unbox(jax.jit(layer.init)(jax.random.key(1), x)), x


def _every_expert_on_every_token(params, x, config):
    """The definition: a weighted sum over the chosen experts, each computed for all tokens."""
    p, moe = params["params"], config.moe
    probabilities = jax.nn.softmax(x @ p["router"], axis=-1)
    both = jnp.einsum("btd,eduf->beutf", x, p["gate_up"])
    outputs = jnp.einsum("betf,efd->betd", jax.nn.silu(both[:, :, 0]) * both[:, :, 1], p["down"])
    order = jnp.argsort(-probabilities, axis=-1)[..., : moe.experts_per_token]
    weights = jnp.take_along_axis(probabilities, order, axis=-1)
    if moe.normalise_weights:
        weights = weights / weights.sum(-1, keepdims=True)
    y = jnp.zeros_like(x)
    for choice in range(moe.experts_per_token):
        chosen = jnp.take_along_axis(outputs, order[:, None, :, choice, None], axis=1)[:, 0]
        y += weights[..., choice, None] * chosen
    if moe.shared_mlp_dim:
        gate, up = jnp.moveaxis(jnp.einsum("btd,duf->btuf", x, p["shared"]["gate_up"]), 2, 0)
        y += (jax.nn.silu(gate) * up) @ p["shared"]["down"]
    return y


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("changes", [{}, {"dispatch": "capacity", "capacity_factor": 4.0}, {"shared_mlp_dim": 8}])
def test_dispatch_equals_every_expert_on_every_token_and_so_do_its_gradients(changes, normalise):
    config = _with(normalise_weights=normalise, **changes)
    layer, params, x = _layer(config)
    y, statistics = jax.jit(layer.apply)(params, x)
    np.testing.assert_allclose(y, _every_expert_on_every_token(params, x, config), atol=1e-5)
    assert float(statistics.dropped) == 0.0
    cotangent = jax.random.normal(jax.random.key(5), y.shape)
    ours = jax.jit(jax.grad(lambda p, x: jnp.sum(layer.apply(p, x)[0] * cotangent), (0, 1)))(params, x)
    by_definition = jax.grad(lambda p, x: jnp.sum(_every_expert_on_every_token(p, x, config) * cotangent), (0, 1))
    theirs = jax.jit(by_definition)(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), ours, theirs)


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(
    experts=st.lists(st.permutations(range(4)).map(lambda p: p[:2]), min_size=1, max_size=9), places=st.integers(1, 9)
)
def test_fixed_slots_serve_first_choices_first_and_then_in_order(experts, places):
    real = jnp.arange(len(experts)) % 5 != 3
    slots = fixed_slots(jnp.asarray(experts, jnp.int32), 4, places, real)
    queues = {e: [] for e in range(4)}
    for choice in range(2):
        for token, chosen in enumerate(experts):
            if real[token]:
                queues[chosen[choice]].append(token * 2 + choice)
    expected = np.full(4 * places, 2 * len(experts))
    for expert, queue in queues.items():
        kept = queue[:places]
        expected[expert * places : expert * places + len(kept)] = kept
    np.testing.assert_array_equal(slots.assignment, expected)
    for assignment, slot in enumerate(np.asarray(slots.of_assignment)):
        assert slot == 4 * places or slots.assignment[slot] == assignment
    assert int(np.sum(slots.of_assignment < 4 * places)) == int(np.sum(expected < 2 * len(experts)))


def test_ragged_slots_keep_every_assignment_in_its_experts_blocks():
    experts = jnp.asarray([[0, 3], [3, 0], [3, 1], [3, 0], [3, 1]], jnp.int32)
    slots, sizes = ragged_slots(experts, 4, block=4)
    np.testing.assert_array_equal(sizes, [4, 4, 0, 8])
    bounds = np.cumsum(sizes)
    for assignment, expert in enumerate(np.asarray(experts).reshape(-1)):
        slot = int(slots.of_assignment[assignment])
        assert slots.assignment[slot] == assignment
        assert bounds[expert] - sizes[expert] <= slot < bounds[expert]
    everywhere, _ = ragged_slots(jnp.zeros((9, 1), jnp.int32) + 2, 4, block=4)
    assert len(everywhere.assignment) >= 12  # one expert may get all


def test_to_and_from_slots_are_reverses():
    experts = jax.lax.top_k(jax.random.normal(jax.random.key(0), (7, 4)), 2)[1]
    slots = fixed_slots(experts, 4, 7, jnp.ones(7, bool))
    x = jax.random.normal(jax.random.key(1), (7, 5))
    back = from_slots(to_slots(x, slots), slots)
    np.testing.assert_array_equal(back, np.repeat(np.asarray(x)[:, None], 2, axis=1))


def test_both_grouped_products_are_a_loop_over_groups():
    sizes = np.array([[BLOCK, 0, 2 * BLOCK], [0, 3 * BLOCK, 0]])
    x = jax.random.normal(jax.random.key(0), (2, 4 * BLOCK, 6))
    weights = jax.random.normal(jax.random.key(1), (3, 6, 5))
    first = np.concatenate([x[0, :BLOCK] @ weights[0], x[0, BLOCK : 3 * BLOCK] @ weights[2]])
    for product in (grouped_matmul, _ragged):
        found = product(x, weights, jnp.asarray(sizes, jnp.int32))
        np.testing.assert_allclose(found[0, : 3 * BLOCK], first, atol=1e-5)
        np.testing.assert_allclose(found[1, : 3 * BLOCK], x[1, : 3 * BLOCK] @ weights[1], atol=1e-5)
        assert bool(jnp.isfinite(found).all())


def test_what_has_no_place_is_dropped_and_counted():
    config = _with(dispatch="capacity", capacity_factor=0.5, experts_per_token=1)
    layer, params, x = _layer(config)
    places = capacity(config.moe, TOKENS)
    params["params"]["router"] = jnp.zeros_like(params["params"]["router"])  # all to expert 0, in order
    y, statistics = layer.apply(params, x)
    assert places == 8 < TOKENS
    assert float(statistics.dropped) == pytest.approx(1 - places / TOKENS)
    assert bool(jnp.all(y[:, places:] == 0)) and bool(jnp.all(jnp.any(y[:, :places] != 0, axis=-1)))
    np.testing.assert_allclose(statistics.load, [1, 0, 0, 0])


def test_padding_takes_no_place_and_does_not_count():
    config = _with(dispatch="capacity", capacity_factor=0.5, experts_per_token=1)
    layer, params, x = _layer(config)
    params["params"]["router"] = jnp.zeros_like(params["params"]["router"])
    real = jnp.arange(TOKENS) >= 4  # the first four are padding: the eight others have a place each
    y, statistics = layer.apply(params, x, jnp.broadcast_to(real, x.shape[:2]))
    assert float(statistics.dropped) == 0.0
    assert bool(jnp.all(y[:, :4] == 0)) and bool(jnp.all(jnp.any(y[:, 4:] != 0, axis=-1)))


def test_router_losses_are_their_definitions():
    logits = jax.random.normal(jax.random.key(0), (2, 50, 4)) * 2
    _, even = route(jnp.zeros((1, 8, 4)) + jax.nn.one_hot(jnp.arange(8) % 4, 4) * 1e-4, MOE, None)
    assert float(even.balance_loss) == pytest.approx(1.0, abs=1e-3)
    collapsed = jnp.zeros((1, 8, 4)).at[..., 0].set(50.0)
    _, worst = route(collapsed, dataclasses.replace(MOE, experts_per_token=1), None)
    assert float(worst.balance_loss) == pytest.approx(4.0)
    _, statistics = route(logits, MOE, None)
    assert float(statistics.z_loss) == pytest.approx(float(jnp.mean(jax.nn.logsumexp(logits, -1) ** 2)), rel=1e-5)
    assert float(statistics.load.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("scan_layers", [pytest.param(True, marks=pytest.mark.slow), False])
def test_cached_equals_full_with_experts(scan_layers):
    config = dataclasses.replace(CONFIG, scan_layers=scan_layers)
    decoder = Decoder(config, 30)
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 30)
    positions = jnp.broadcast_to(jnp.arange(9), (2, 9))
    packed = PackedCausal(jnp.ones((2, 9), jnp.int32))
    params = nn.unbox(jax.jit(decoder.init)(jax.random.key(0), tokens, positions, packed))
    apply = jax.jit(decoder.apply)
    full, _, router = apply(params, tokens, positions, packed)
    assert router.load.shape == (2, 4)
    cache = KVCache()
    outputs = []
    for start, stop in [(0, 6), (6, 7), (7, 9)]:
        places = jnp.broadcast_to(jnp.arange(start, stop), (2, stop - start))
        mask = jnp.arange(stop) <= places[:, :, None]
        logits, cache, _ = apply(params, tokens[:, start:stop], places, mask, cache)
        outputs.append(logits)
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), full, atol=3e-5)


def test_inference_drops_nothing_even_where_training_does():
    config = _with(dispatch="capacity", capacity_factor=0.25)
    layer, params, x = _layer(config)
    params["params"]["router"] = jnp.zeros_like(params["params"]["router"])  # all to experts 0 and 1
    _, in_training = layer.apply(params, x)
    assert float(in_training.dropped) > 0
    y, _ = layer.apply(params, x, dropless=True)
    np.testing.assert_allclose(y, _every_expert_on_every_token(params, x, config), atol=1e-5)


def test_impossible_experts_are_refused():
    with pytest.raises(ValueError, match="experts_per_token=5 self.num_experts=4"):
        MixtureOfExperts(num_experts=4, experts_per_token=5)
    with pytest.raises(ValueError, match=r"dispatch to be one of \('capacity', 'dropless'\), got 'sorted'"):
        MixtureOfExperts(dispatch="sorted")


def test_dropless_on_eight_devices_equals_one():
    layer, params, _ = _layer(CONFIG)
    x = jax.random.normal(jax.random.key(3), (8, TOKENS, CONFIG.d_model))
    alone, _ = jax.jit(layer.apply)(params, x)
    mesh = jax.make_mesh((4, 2), ("data", "expert"), devices=jax.devices()[:8])
    rules = (("batch", ("data", "expert")), ("expert", "expert"))

    @jax.jit
    def apply(params, x):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
            return layer.apply(params, x)[0]

    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "expert")))
    split = apply(
        jax.device_put(params, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())), jax.device_put(x, rows)
    )
    assert split.sharding.is_equivalent_to(rows, 3)
    np.testing.assert_allclose(split, alone, atol=1e-5)
