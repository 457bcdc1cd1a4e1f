"""Oracles of the decoder: cached = full, packed = separate, scanned = unrolled, counts = shapes."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.model.attention import DenseMasks, EinsumAttention
from plum_jax.model.beam_attention import BeamAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token, parameter_counts, train_step_flops
from plum_jax.model.decoder import Decoder
from plum_jax.model.layers import DecoderLayer, LayerContext
from plum_jax.model.masks import BeamMasks, PackedCausal, packed_causal_mask, prompt_mask
from plum_jax.model.rotary import rotary_tables
from plum_jax.model.unrolled import unrolled

CONFIG = DecoderConfig(num_layers=3, d_model=32, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=48)
VOCAB = 50


def _positions(batch: int, length: int) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(length), (batch, length))


def _model(config: DecoderConfig = CONFIG):
    decoder = Decoder(config, VOCAB)
    tokens = jnp.zeros((1, 2), jnp.int32)
    variables = decoder.init(jax.random.key(0), tokens, _positions(1, 2), jnp.ones((1, 2, 2), bool))
    return decoder, nn.unbox(variables)


@functools.partial(jax.jit, static_argnums=0)
def _apply(decoder, *arguments):
    return decoder.apply(*arguments)


def _full(decoder, variables, tokens):
    batch, length = tokens.shape
    mask = packed_causal_mask(jnp.ones((batch, length), jnp.int32))
    return _apply(decoder, variables, tokens, _positions(batch, length), mask)[0]


@pytest.mark.parametrize("changes", [{}, {"scan_layers": False}, {"branch_gates": True}], ids=str)
def test_cached_equals_full(changes):
    decoder, variables = _model(dataclasses.replace(CONFIG, **changes))
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, VOCAB)
    full = _full(decoder, variables, tokens)
    cache = KVCache()
    outputs = []
    for start, stop in [(0, 5), (5, 6), (6, 9)]:  # a prefill, one token, several tokens
        queries = jnp.arange(start, stop)
        mask = jnp.broadcast_to(jnp.arange(stop)[None, :] <= queries[:, None], (2, stop - start, stop))
        positions = jnp.broadcast_to(queries, (2, stop - start))
        logits, cache, _ = _apply(decoder, variables, tokens[:, start:stop], positions, mask, cache)
        outputs.append(logits)
    assert [piece.shape[1] for piece in cache.positions] == [5, 1, 3]
    np.testing.assert_allclose(jnp.concatenate(outputs, axis=1), full, atol=2e-5)


def test_scanned_equals_unrolled():
    decoder, variables = _model()
    flat, params = unrolled(decoder, variables["params"])
    assert not flat.config.scan_layers and unrolled(flat, params) == (flat, params)
    tokens = jax.random.randint(jax.random.key(1), (2, 7), 0, VOCAB)
    np.testing.assert_allclose(_full(flat, {"params": params}, tokens), _full(decoder, variables, tokens), atol=2e-5)


def test_packed_equals_separate():
    decoder, variables = _model()
    first = jax.random.randint(jax.random.key(1), (1, 5), 0, VOCAB)
    second = jax.random.randint(jax.random.key(2), (1, 3), 0, VOCAB)
    tokens = jnp.concatenate([first, second, jnp.zeros((1, 2), jnp.int32)], axis=1)
    segments = jnp.array([[1] * 5 + [2] * 3 + [0] * 2])
    positions = jnp.array([[0, 1, 2, 3, 4, 0, 1, 2, 0, 0]])
    packed, *_ = _apply(decoder, variables, tokens, positions, packed_causal_mask(segments))
    np.testing.assert_allclose(packed[:, :5], _full(decoder, variables, first), atol=2e-5)
    np.testing.assert_allclose(packed[:, 5:8], _full(decoder, variables, second), atol=2e-5)
    assert bool(jnp.isfinite(packed).all())


def test_the_future_is_not_seen():
    decoder, variables = _model()
    tokens = jax.random.randint(jax.random.key(1), (1, 8), 0, VOCAB)
    changed = tokens.at[0, 5].set((tokens[0, 5] + 1) % VOCAB)
    before, after = _full(decoder, variables, tokens), _full(decoder, variables, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert float(jnp.abs(before[:, 5:] - after[:, 5:]).max()) > 1e-3


def test_prompt_padding_changes_nothing():
    decoder, variables = _model()
    tokens = jax.random.randint(jax.random.key(1), (1, 4), 0, VOCAB)
    padded = jnp.concatenate([tokens, jnp.zeros((1, 3), jnp.int32)], axis=1)
    logits, *_ = _apply(decoder, variables, padded, _positions(1, 7), prompt_mask(jnp.array([4]), 7))
    np.testing.assert_allclose(logits[:, :4], _full(decoder, variables, tokens), atol=2e-5)


def test_bfloat16_computes_near_float32_and_keeps_float32_parameters():
    decoder, variables = _model()
    half = Decoder(dataclasses.replace(CONFIG, dtype="bfloat16"), VOCAB)
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, VOCAB)
    full, rounded = _full(decoder, variables, tokens), _full(half, variables, tokens)
    assert rounded.dtype == jnp.float32
    error = float(jnp.abs(full - rounded).max() / jnp.abs(full).max())
    assert 1e-5 < error < 0.03  # really computed in bfloat16 (8 bits), and no worse than that
    shapes = jax.eval_shape(half.init, jax.random.key(0), tokens, tokens, jnp.ones((2, 9, 9), bool))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("changes", [{}, {"tied_embeddings": False}, {"branch_gates": True}], ids=str)
def test_counts_are_the_shapes(changes):
    config = dataclasses.replace(CONFIG, **changes)
    _, variables = _model(config)
    counts = parameter_counts(config, VOCAB)
    assert counts["total"] == sum(x.size for x in jax.tree.leaves(variables))
    assert counts["total"] == counts["embedding"] + counts["head"] + counts["non_embedding"]


def test_a_gate_reads_the_stream_that_its_branch_is_added_to():
    """LiGR's layer in NumPy from the ungated branches: the gate is of the stream before the norm."""
    config = dataclasses.replace(CONFIG, num_layers=1, scan_layers=False, branch_gates=True)
    _, variables = _model(config)
    layer = variables["params"]["transformer"]["layer_0"]
    x = jax.random.normal(jax.random.key(3), (1, 5, config.d_model)) * 3
    positions, mask = _positions(1, 5), jnp.tri(5, dtype=bool)[None]
    context = LayerContext(DenseMasks(mask, None), rotary_tables(positions, config), None, None)

    def run(changes, params, x):
        module = DecoderLayer(dataclasses.replace(config, **changes), EinsumAttention(), True)
        return module.apply({"params": params}, x, None, False, context)[0]

    def without(*names):
        return {
            name: jax.tree.map(jnp.zeros_like, value) if name in names else value
            for name, value in layer.items()
            if not name.endswith("_gate")
        }

    def gate(name, x):
        return jax.nn.sigmoid(x @ layer[name]["gate"] + layer[name]["bias"])

    attended = run({"branch_gates": False}, without("mlp"), x) - x
    middle = x + attended * gate("attention_gate", x)
    mixed = run({"branch_gates": False}, without("attention"), middle) - middle
    np.testing.assert_allclose(run({}, layer, x), middle + mixed * gate("mlp_gate", middle), atol=2e-5)


@pytest.mark.parametrize("gates", [False, True])
def test_flops_match_the_compiler(gates):
    sizes = {"num_layers": 2, "d_model": 64, "mlp_dim": 128, "head_dim": 16, "branch_gates": gates}
    config = dataclasses.replace(CONFIG, scan_layers=False, **sizes)
    decoder, variables = _model(config)
    tokens = jnp.zeros((4, 32), jnp.int32)
    compiled = jax.jit(lambda v, t: _full(decoder, v, t)).lower(variables, tokens).compile()
    analysis = compiled.cost_analysis()
    counted = 4 * 32 * forward_flops_per_token(config, VOCAB, 32)
    # XLA also counts the element-wise work (norms, softmax, rotary), so it is a little above ours.
    assert 0.8 * analysis["flops"] < counted < 1.02 * analysis["flops"]
    assert train_step_flops(config, VOCAB, 4, 32) == 3 * counted


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="num_heads=4 self.num_kv_heads=3"):
        DecoderConfig(num_heads=4, num_kv_heads=3)
    with pytest.raises(ValueError, match="even head_dim"):
        DecoderConfig(head_dim=7)


@pytest.mark.parametrize("scan_layers", [True, False])
def test_windows_and_their_own_rotary_base_are_those_of_single_layers(scan_layers):
    """A mixed stack equals the same layers run one after the other, each with the mask and base of its own."""
    windows = (4, 0, 4)
    mixed = dataclasses.replace(CONFIG, layer_windows=windows, local_rope_theta=100.0, scan_layers=False)
    decoder, variables = _model(mixed)
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, VOCAB)
    positions = _positions(2, 9)
    segments = PackedCausal(jnp.ones((2, 9), jnp.int32))
    params = variables["params"]["transformer"]
    x = decoder.apply(variables, tokens, method=lambda d, t: jnp.take(d.embedding, t, axis=0) * 32**0.5)
    causal, near = segments.dense(), positions[:, :, None] - positions[:, None, :] < 4
    for i, window in enumerate(windows):
        theta = 100.0 if window else CONFIG.rope_theta
        alone = dataclasses.replace(CONFIG, num_layers=1, rope_theta=theta, scan_layers=False)
        mask = causal & near if window else causal
        context = LayerContext(DenseMasks(mask, None), rotary_tables(positions, alone), None, None)
        layer = DecoderLayer(CONFIG, EinsumAttention(), True)
        x, _ = layer.apply({"params": params[f"layer_{i}"]}, x, None, False, context)
    if scan_layers:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[f"layer_{i}"] for i in range(3)))
        params = {"layers": stacked, "final_norm": params["final_norm"]}
        decoder = Decoder(dataclasses.replace(mixed, scan_layers=True), VOCAB)
        variables = {"params": {**variables["params"], "transformer": params}}
    found = decoder.apply(variables, tokens, positions, segments, method="hidden").values
    expected = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + CONFIG.norm_epsilon)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_windows": (3,) * 3},
        {"layer_windows": (2, 0, 2), "local_rope_theta": 100.0, "scan_layers": False},
        {"layer_windows": (2, 0, 2), "attention_softcap": 2.0},
    ],
)
def test_beams_see_the_prompt_and_their_own_ancestors(changes):
    """Three beams of two tokens after a prompt of five: each gives what it gives alone, and as by one dense mask."""
    config = dataclasses.replace(CONFIG, **changes)
    decoder, variables = _model(config)
    of_beams = decoder.clone(attention=BeamAttention())
    prompt = jax.random.randint(jax.random.key(1), (1, 5), 0, VOCAB)
    mask = jnp.broadcast_to(jnp.tril(jnp.ones((5, 5), bool)), (1, 5, 5))
    _, cache, _ = _apply(decoder, variables, prompt, _positions(1, 5), mask, KVCache())
    first, second, parent = jnp.array([[7, 9]]), jnp.array([[3, 4, 3]]), jnp.array([[1, 0, 0]])
    everything, own = jnp.ones((1, 1, 5), bool), jnp.arange(2)[None, :, None]
    _, cache, _ = _apply(of_beams, variables, first, jnp.full((1, 2), 5), BeamMasks(everything, own), cache)
    ancestors = jnp.stack([parent, jnp.arange(3)[None]], axis=2)
    logits, *_ = _apply(of_beams, variables, second, jnp.full((1, 3), 6), BeamMasks(everything, ancestors), cache)
    dense = [jnp.ones((1, 3, 5), bool), parent[:, :, None] == jnp.arange(2), jnp.eye(3, dtype=bool)[None]]
    by_mask, *_ = _apply(decoder, variables, second, jnp.full((1, 3), 6), jnp.concatenate(dense, axis=2), cache)
    np.testing.assert_allclose(logits, by_mask, atol=2e-5)
    for beam in range(3):
        alone = jnp.concatenate([prompt, first[:, parent[0, beam], None], second[:, beam : beam + 1]], axis=1)
        np.testing.assert_allclose(logits[:, beam], _full(decoder, variables, alone)[:, -1], atol=2e-5)


@pytest.mark.parametrize("changes", [{}, {"scan_layers": False}, {"layer_windows": (0, 0, 2), "scan_layers": False}])
def test_the_last_token_alone_has_the_state_that_it_has_among_all(changes):
    config = dataclasses.replace(CONFIG, **changes)
    decoder, variables = _model(config)
    tokens, last = jax.random.randint(jax.random.key(1), (2, 7), 0, VOCAB), jnp.array([6, 3])
    segments = PackedCausal((jnp.arange(7) <= last[:, None]).astype(jnp.int32))
    arguments = (variables, tokens, _positions(2, 7), segments, KVCache())
    every, cache, _ = decoder.apply(*arguments, method="hidden")
    alone, same_cache, _ = decoder.apply(*arguments, method="hidden", last=last)
    np.testing.assert_allclose(alone[:, 0], every[jnp.arange(2), last], atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), same_cache, cache)


@pytest.mark.parametrize("remat", ["full", "save_dots", "save_attention"])
def test_what_is_recomputed_gives_the_same_gradients(remat):
    decoder, variables = _model()
    tokens = jax.random.randint(jax.random.key(1), (2, 7), 0, VOCAB)
    other = Decoder(dataclasses.replace(CONFIG, remat=remat), VOCAB)
    kept, computed = (
        jax.jit(jax.grad(lambda v, d=d: jnp.sum(_full(d, v, tokens) ** 2)))(variables) for d in (decoder, other)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), kept, computed)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected layer_windows to be empty or 3 numbers"):
        dataclasses.replace(CONFIG, layer_windows=(4, 0))
    with pytest.raises(ValueError, match="each 0 or one window, got \\(4, 8, 0\\)"):
        dataclasses.replace(CONFIG, layer_windows=(4, 8, 0))
    with pytest.raises(ValueError, match="remat to be one of"):
        dataclasses.replace(CONFIG, remat="some")
