"""HSTU by a loop over its equations, and packed histories as separate ones."""

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.config import DecoderConfig
from plum_jax.model.hstu import Hstu, time_buckets
from plum_jax.model.masks import PackedCausal

CONFIG = DecoderConfig(num_layers=2, d_model=8, num_heads=2, num_kv_heads=2, head_dim=4, scan_layers=False)


def made(length=7):
    random = np.random.default_rng(0)
    x = random.normal(size=(1, length, 8)).astype(np.float32)
    times = np.cumsum(random.integers(0, 5000, (1, length)), axis=1).astype(np.int32)
    positions = np.arange(length, dtype=np.int32)[None]
    mask = PackedCausal(jnp.ones((1, length), jnp.int32))
    params = Hstu(CONFIG).init(jax.random.key(0), x, positions, times, mask)["params"]
    params = jax.tree.map(
        lambda v: v.unbox() if hasattr(v, "unbox") else v, params, is_leaf=lambda v: hasattr(v, "unbox")
    )
    # Biases that are not zero, or they would not be tested.
    for number in range(2):
        for name in ("position_bias", "time_bias"):
            values = params[f"layer_{number}"][name]
            params[f"layer_{number}"][name] = jnp.asarray(random.normal(size=values.shape), jnp.float32)
    return x, positions, times, params


def silu(x):
    return x / (1 + np.exp(-x))


def normed(x, scale):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + CONFIG.norm_epsilon) * scale


def test_it_is_its_equations():
    x, positions, times, params = made()
    found = Hstu(CONFIG).apply({"params": params}, x, positions, times, PackedCausal(jnp.ones((1, 7), jnp.int32)))
    state = np.asarray(x[0], np.float64)
    for number in range(2):
        layer = jax.tree.map(lambda v: np.asarray(v, np.float64), params[f"layer_{number}"])
        projected = silu(np.einsum("td,dpnh->ptnh", normed(state, layer["norm"]["scale"]), layer["uvqk"]))
        u, v, q, k = projected
        attended = np.zeros((7, 2, 4))
        for t in range(7):
            for s in range(t + 1):
                gap = int(time_buckets(jnp.int32(times[0, t] - times[0, s])))
                bias = layer["position_bias"][t - s] + layer["time_bias"][gap]
                attended[t] += silu(np.sum(q[t] * k[s], axis=-1) + bias)[:, None] * v[s] / (t + 1)
        gated = normed(attended.reshape(7, -1), layer["attended_norm"]) * u.reshape(7, -1)
        state = state + gated @ layer["out"]
    expected = normed(state, np.asarray(params["final_norm"]["scale"]))
    np.testing.assert_allclose(found[0], expected, atol=2e-5)


def test_packed_histories_are_separate_ones():
    x, positions, times, params = made()
    segments = np.array([[1, 1, 1, 2, 2, 2, 2]], np.int32)
    places = np.array([[0, 1, 2, 0, 1, 2, 3]], np.int32)
    packed = Hstu(CONFIG).apply({"params": params}, x, places, times, PackedCausal(jnp.asarray(segments)))
    for part in (slice(0, 3), slice(3, 7)):
        mask = PackedCausal(jnp.ones((1, part.stop - part.start), jnp.int32))
        alone = Hstu(CONFIG).apply({"params": params}, x[:, part], places[:, part], times[:, part], mask)
        np.testing.assert_allclose(packed[:, part], alone, atol=1e-5)
