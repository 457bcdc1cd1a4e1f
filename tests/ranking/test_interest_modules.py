"""Interest modules against loops, and with what fills up their rows changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from plum_jax.ranking.event_columns import Sizes
from plum_jax.ranking.networks.dien import Dien, auxiliary_loss
from plum_jax.ranking.networks.din import Din
from plum_jax.ranking.networks.interest import Extras
from plum_jax.ranking.networks.sim import Sim
from plum_jax.ranking.networks.target_attention import TargetAttention
from plum_jax.ranking.networks.twin import Twin

B, T, D = 5, 9, 6
LENGTHS = np.array([9, 4, 1, 0, 7])
SIZES = Sizes(items=3, users=2, request=(), behaviour=(4, 8))
MODULES = [Din(5), Dien(), Sim(found=3, short=4, heads=2, head_dim=3, hidden=5), Twin(top_k=4, heads=2, head_dim=3)]


def drawn(seed=0):
    random = np.random.default_rng(seed)
    candidate, behaviours, negatives = (random.normal(size=shape) for shape in ((B, D), (B, T, D), (B, T, D)))
    mask = np.arange(T) < LENGTHS[:, None]
    same, fields = random.random((B, T)) < 0.5, random.integers(0, 4, (B, T, 2))
    arrays = candidate, behaviours, mask, Extras(same, fields, negatives)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if x.dtype.kind == "f" else jnp.asarray(x), arrays)


def made(config, arrays, seed=1):
    """The module with random parameters, none of which is zero."""
    module = config.module(SIZES, "interest")
    params = nn.unbox(module.init(jax.random.key(0), *arrays)["params"])
    random = np.random.default_rng(seed)
    return module, jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape) * 0.5, jnp.float32), params)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("config", MODULES, ids=lambda config: type(config).__name__)
def test_what_fills_a_row_up_changes_nothing(config):
    arrays = drawn()
    module, params = made(config, arrays)
    padded = module.apply({"params": params}, *arrays)
    other, mask = drawn(seed=7), arrays[2]
    mixed = tuple(
        jnp.where(mask.reshape(B, T, *[1] * (new.ndim - 2)), old, new)
        for old, new in ((arrays[1], other[1]), *zip(arrays[3], other[3], strict=True))
    )
    changed = module.apply({"params": params}, arrays[0], mixed[0], mask, Extras(*mixed[1:]))
    np.testing.assert_allclose(padded.vector, changed.vector, rtol=1e-5, atol=1e-6)
    for row, length in enumerate(LENGTHS):
        if length == 0:
            continue
        alone = jax.tree.map(lambda x, row=row, n=length: x[row : row + 1, :n], arrays[1:])
        found = module.apply({"params": params}, arrays[0][row : row + 1], *alone)
        np.testing.assert_allclose(padded.vector[row], found.vector[0], rtol=1e-4, atol=1e-5)
    if padded.auxiliary_loss is not None:
        np.testing.assert_allclose(padded.auxiliary_loss, changed.auxiliary_loss, rtol=1e-5)


def test_din_is_the_sum_of_behaviours_weighed_one_by_one():
    arrays = drawn()
    module, params = made(MODULES[0], arrays)
    candidate, behaviours, _, _ = jax.tree.map(np.asarray, arrays)
    unit = jax.tree.map(np.asarray, params["unit"])
    kernel, slope = unit["kernel"].reshape(4 * D, -1), unit["activation"]["negative_scale"]
    expected = np.zeros((B, D))
    for row in range(B):
        for place in range(LENGTHS[row]):
            b, c = behaviours[row, place], candidate[row]
            x = np.concatenate([b, c, b - c, b * c]) @ kernel + unit["bias"]
            x = np.where(x > 0, x, slope * x)
            expected[row] += (x @ unit["out"]["kernel"] + unit["out"]["bias"]) * b
    found = module.apply({"params": params}, *arrays)
    np.testing.assert_allclose(found.vector, expected, rtol=1e-4, atol=1e-5)
    assert found.auxiliary_loss is None


def gru_by_loop(inputs, params, weights):
    """States of one row."""
    n, state, states = D, np.zeros(D), []
    for x, weight in zip(inputs, weights, strict=True):
        of_x, of_h = x @ params["input_kernel"] + params["bias"], state @ params["state_kernel"]
        update, reset = sigmoid(of_x[:n] + of_h[:n]), sigmoid(of_x[n : 2 * n] + of_h[n : 2 * n])
        new = np.tanh(of_x[2 * n :] + reset * of_h[2 * n :])
        state = (1 - weight * update) * state + weight * update * new
        states.append(state)
    return np.array(states)


def test_dien_is_two_recurrences_and_the_loss_of_what_comes_next():
    arrays = drawn()
    module, params = made(MODULES[1], arrays)
    candidate, behaviours, _, extras = jax.tree.map(np.asarray, arrays)
    of = jax.tree.map(np.asarray, params)
    found, loss, count = module.apply({"params": params}, *arrays), 0.0, 0
    for row, length in enumerate(LENGTHS):
        states = gru_by_loop(behaviours[row, :length], of["extraction"], np.ones(length))
        if length == 0:
            continue
        scores = states @ (candidate[row] @ of["attention"]["kernel"])
        weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        evolved = gru_by_loop(states, of["evolution"], weights)
        np.testing.assert_allclose(found.vector[row], evolved[-1], rtol=1e-4, atol=1e-5)
        for place in range(length - 1):
            loss -= np.log(sigmoid(states[place] @ behaviours[row, place + 1]))
            loss -= np.log(1 - sigmoid(states[place] @ extras.drawn[row, place + 1]))
            count += 1
    np.testing.assert_allclose(found.auxiliary_loss, (loss, count), rtol=1e-4)
    without = module.apply({"params": params}, *arrays[:3], arrays[3]._replace(drawn=None))
    assert without.auxiliary_loss is None and (without.vector == found.vector).all()
    zeros = jnp.zeros((B, T, D))
    np.testing.assert_allclose(
        auxiliary_loss(zeros, zeros, zeros, arrays[2]), (2 * np.log(2) * count, count), rtol=1e-5
    )


def attention_by_loop(candidate, behaviours, params, bias, head_dim):
    """One row's attention with keys and values of every behaviour."""
    parts = []
    for head in range(len(params["query"])):
        query = candidate @ params["query"][head]
        keys, values = behaviours @ params["key"][head], behaviours @ params["value"][head]
        scores = keys @ query / np.sqrt(head_dim) + bias[:, head]
        weights = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        parts.append(weights @ values)
    return np.concatenate(parts)


def test_sim_attends_to_what_a_search_by_hand_finds():
    arrays, config = drawn(), MODULES[2]
    module, params = made(config, arrays)
    candidate, behaviours, _, extras = jax.tree.map(np.asarray, arrays)
    exact, found = jax.tree.map(np.asarray, params["exact"]), module.apply({"params": params}, *arrays).vector
    width = config.heads * config.head_dim
    short = Din(config.hidden).module(SIZES, "interest")
    for row, length in enumerate(LENGTHS):
        places = [place for place in range(length) if extras.same_category[row, place]][-config.found :]
        expected = np.zeros(width)
        if places:
            bias = np.zeros((len(places), config.heads))
            expected = attention_by_loop(candidate[row], behaviours[row, places], exact, bias, config.head_dim)
        np.testing.assert_allclose(found[row, :width], expected, rtol=1e-4, atol=1e-5)
        last = jnp.asarray(behaviours[row : row + 1, max(0, length - config.short) : length])
        if length:
            real = jnp.ones(last.shape[:2], bool)
            of_din = short.apply({"params": {"unit": params["unit"]}}, arrays[0][row : row + 1], last, real, None)
            np.testing.assert_allclose(found[row, width:], of_din.vector[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_k", [2, 4, T, T + 3])
def test_twin_attends_to_its_highest_scores_and_to_all_where_they_are_enough(top_k):
    arrays, config = drawn(), Twin(top_k=top_k, heads=2, head_dim=3)
    module, params = made(config, arrays)
    candidate, behaviours, mask, extras = jax.tree.map(np.asarray, arrays)
    of = jax.tree.map(np.asarray, params)
    bias = sum(of["cross"][f"field_{n}_embedding"][extras.fields[..., n]] for n in range(2))
    found = np.asarray(module.apply({"params": params}, *arrays).vector)
    for row, length in enumerate(LENGTHS):
        heads = [
            behaviours[row, :length] @ of["attention"]["key"][h] @ (candidate[row] @ of["attention"]["query"][h])
            for h in range(2)
        ]
        scores = np.mean(np.array(heads) / np.sqrt(3) + bias[row, :length].T, axis=0)
        chosen = np.sort(np.argsort(-scores)[:top_k])
        expected = np.zeros(6)
        if length:
            chosen_bias = bias[row, chosen]
            expected = attention_by_loop(candidate[row], behaviours[row, chosen], of["attention"], chosen_bias, 3)
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-5)
    if top_k >= T:
        plain = TargetAttention(2, 3).apply({"params": params["attention"]}, *arrays[:3], jnp.asarray(bias))
        np.testing.assert_array_equal(found, plain)
