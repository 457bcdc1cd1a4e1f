"""The trunk is a decoder with a prefix mask; split, shared, small, with adapters or exits it is what is said of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_m6 import NANO, answer, logits, network_and_params, rows, tokens_of, writer_of

from plum_jax.model.config import Adapter
from plum_jax.model.decoder import Decoder
from plum_jax.model.int8 import dequantised
from plum_jax.systems.m6rec.late import KeptSegments
from plum_jax.systems.m6rec.losses import ClassLoss, exit_weights
from plum_jax.systems.m6rec.network import Heads
from plum_jax.systems.m6rec.rows import CANDIDATE, USER
from plum_jax.systems.m6rec.serving import Serving
from plum_jax.systems.m6rec.trunk import Form
from plum_jax.systems.m6rec.writer import Text


def of_decoder(params):
    """As `Decoder` has them."""
    table = np.concatenate([params["decoder"]["embedding"], params["decoder"]["special"]])
    return {"embedding": table, "transformer": params["decoder"]["transformer"]}


def test_the_trunk_is_a_decoder_under_a_prefix_mask():
    network, params = network_and_params()
    some = rows()
    length = some.tokens.shape[1]
    mask = np.zeros((len(some.tokens), length, length), bool)
    for row, side in enumerate(some.side):  # by definition, pair by pair
        for query in range(length):
            for key in range(length):
                if side[key] == USER:
                    mask[row, query, key] = side[query] in (USER, CANDIDATE)
                else:
                    mask[row, query, key] = side[query] == side[key] and key <= query
                mask[row, query, key] |= query == key
    decoder = Decoder(NANO, tokens_of().vocab_size + 5)
    places = jnp.broadcast_to(jnp.arange(length), some.tokens.shape)
    states = decoder.apply({"params": of_decoder(params)}, some.tokens, places, mask, method="hidden").values
    ends = (some.side > 0).sum(axis=1) - 1
    expected = states[np.arange(len(ends)), ends] @ params["classes"]["kernel"][0]
    np.testing.assert_allclose(logits(network, params)[:, 0], expected, atol=2e-5)
    told = answer(network, params, dict(some.columns()), "language")
    words = decoder.apply({"params": of_decoder(params)}, states, method="logits")
    np.testing.assert_allclose(told[some.side > 0], words[some.side > 0], atol=2e-4)


def test_split_at_no_layer_is_the_whole_and_kept_segments_are_those_computed_anew():
    whole, params = network_and_params()
    nothing_split, same = network_and_params(Form(late_layers=2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, same))
    np.testing.assert_array_equal(logits(whole, params), logits(nothing_split, params))
    split, more = network_and_params(Form(late_layers=1), Heads(soft_prompts=3, options=True))
    at_once = logits(split, more)[:, 0]
    assert np.abs(at_once - logits(*network_and_params(Form(), Heads(soft_prompts=3, options=True)))[:, 0]).max() > 1e-3
    kept = KeptSegments(split, more)
    found = kept.scores(rows(), 4)
    np.testing.assert_allclose(found, at_once[:, 1] - at_once[:, 0], atol=2e-5)
    states, known = kept.states(rows()), len(kept.known)
    np.testing.assert_array_equal(kept.states(rows()), states)
    assert len(kept.known) == known  # nothing is computed twice
    with pytest.raises(ValueError, match="expected 1 to 2 late_layers"):
        network_and_params(Form(late_layers=3))


def test_a_segment_below_knows_no_other_segment():
    split, params = network_and_params(Form(late_layers=1))
    some = rows()
    states = answer(split, params, dict(some.columns()), "kept")
    row, number = 5, some.segment[5, 20]
    inside = (some.segment[row] == number) & (some.side[row] == some.side[row, 20])
    other = some.tokens.copy()
    other[row, ~inside & (some.side[row] > 0)] = 7
    changed = answer(split, params, dict(some._replace(tokens=other).columns()), "kept")
    np.testing.assert_array_equal(states[row, inside], changed[row, inside])
    assert np.abs(states - changed).max() > 1e-3


def test_the_last_exit_is_the_network_without_exits_and_nobody_leaves_where_nothing_is_sure_enough():
    exits, params = network_and_params(heads=Heads(early_exit=True))
    plain, _ = network_and_params()
    last = {**params, "classes": {"kernel": params["classes"]["kernel"][-1:]}}
    np.testing.assert_allclose(logits(exits, params)[:, -1:], logits(plain, last), atol=1e-6)
    at_once, layers = Serving().scores(exits, params, rows())
    assert layers == 2
    stay, layers = Serving(exit_confidence=1.1).scores(exits, params, rows())
    np.testing.assert_allclose(stay, at_once, atol=2e-5)
    assert layers == 2
    leave, layers = Serving(exit_confidence=0.5).scores(exits, params, rows())
    first = logits(exits, params)[:, 0]
    np.testing.assert_allclose(leave, first[:, 1] - first[:, 0], atol=2e-5)
    assert layers == 1
    # Each row is answered by the first exit that is sure enough.
    of_exits = np.asarray(logits(exits, params))
    of_exits = of_exits[..., 1] - of_exits[..., 0]
    sure = float(np.median(1 / (1 + np.exp(-np.abs(of_exits[:, 0])))))
    expected = [
        next(one for number, one in enumerate(row) if number == 1 or 1 / (1 + np.exp(-abs(one))) >= sure)
        for row in of_exits
    ]
    found, layers = Serving(exit_confidence=sure).scores(exits, params, rows())
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert 1 < layers < 2
    with pytest.raises(ValueError, match="needs a network with early_exit"):
        Serving(exit_confidence=0.9).scores(plain, last, rows())


def test_the_loss_of_exits_is_weighted_by_2k_over_all():
    np.testing.assert_allclose(exit_weights(4), [0.1, 0.2, 0.3, 0.4])
    exits, params = network_and_params(heads=Heads(early_exit=True))
    labels = np.array([0, 1, 1, 0, 1, 0], np.float32)
    batch = {**rows().columns(), "label": labels}
    total, weight, metrics = ClassLoss(exits)(params, batch, None)
    nats = -jax.nn.log_softmax(logits(exits, params))[np.arange(6), :, labels.astype(int)]
    np.testing.assert_allclose(total, (nats * np.array([1, 2]) / 3).sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["log_loss"][0], nats[:, -1].sum(), rtol=1e-5)
    assert weight == 6


def test_shared_layers_are_as_many_layers_with_equal_parameters():
    shared, params = network_and_params(Form(shared=True))
    transformer = params["decoder"]["transformer"]
    assert sorted(transformer) == ["final_norm", "layer_0"]
    layers = {f"layer_{number}": transformer["layer_0"] for number in range(2)}
    unshared = {**params, "decoder": {**params["decoder"], "transformer": {**transformer, **layers}}}
    plain, _ = network_and_params()
    np.testing.assert_allclose(logits(shared, params), logits(plain, unshared), atol=1e-6)


def test_a_small_table_is_the_table_that_it_is_projected_to():
    small, params = network_and_params(Form(embedding_dim=8))
    decoder = {name: value for name, value in params["decoder"].items() if name != "embedding_up"}
    decoder["embedding"] = params["decoder"]["embedding"] @ params["decoder"]["embedding_up"]
    plain, _ = network_and_params()
    np.testing.assert_allclose(logits(small, params), logits(plain, {**params, "decoder": decoder}), atol=1e-4)


def test_an_adapter_of_scale_0_is_no_adapter_and_one_of_scale_1_is_what_it_says():
    plain, params = network_and_params()
    with_adapter = dataclasses.replace(NANO, adapter=Adapter(4, 0.0))
    network, more = network_and_params(config=with_adapter)
    layers = {
        name: {**more["decoder"]["transformer"][name], **layer}
        for name, layer in params["decoder"]["transformer"].items()
    }
    both = {**params, "decoder": {**params["decoder"], "transformer": layers}}
    np.testing.assert_array_equal(logits(network, both), logits(plain, params))
    scaled, _ = network_and_params(config=dataclasses.replace(NANO, adapter=Adapter(4, 1.0)))
    assert np.abs(logits(scaled, both) - logits(plain, params)).max() > 1e-3


def test_options_are_the_last_soft_prompts():
    network, params = network_and_params(heads=Heads(soft_prompts=4, options=True))
    weights, _ = network_and_params(heads=Heads(soft_prompts=4))
    own = {**params, "classes": {"kernel": params["soft_prompts"][-2:].T[None]}}
    np.testing.assert_allclose(logits(network, params), logits(weights, own), atol=1e-6)
    other = {**own, "soft_prompts": own["soft_prompts"].at[0].add(1.0)}
    assert np.abs(logits(weights, other) - logits(weights, own)).max() > 1e-3
    with pytest.raises(ValueError, match="soft_prompts of 2 at least, got 1"):
        Heads(soft_prompts=1, options=True)


def test_vectors_are_of_length_one_and_each_side_has_its_projection():
    network, _ = network_and_params()
    writer, some = writer_of(), tokens_of()
    users = some.rows([Text(writer.user(row), ()) for row in (3, 9)])
    items = some.rows([Text((), (writer.items[item],)) for item in (0, 4)])
    batch = {**users.columns("user_"), **items.columns("item_")}
    params = network.init(jax.random.key(0), batch, method="towers")["params"]
    user, item, scale = network.apply({"params": params}, batch, method="towers")
    assert user.shape == item.shape == (2, 1, 128) and scale == pytest.approx(1 / 0.07)
    np.testing.assert_allclose(jnp.linalg.norm(user, axis=-1), 1, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(item, axis=-1), 1, atol=1e-5)
    assert "classes" not in params


def test_int8_is_near_and_smaller():
    network, params = network_and_params()
    serving = Serving(int8=True)
    kept = serving.params(params)
    off = jax.tree.map(lambda a, b: float(np.abs(a - b).max() / np.abs(a).max()), params, dequantised(kept))
    assert max(jax.tree.leaves(off)) <= 0.5 / 127 + 1e-6
    plain, _ = Serving().scores(network, params, rows())
    found, _ = serving.scores(network, kept, rows())
    assert np.abs(found - plain).max() < 0.1 * np.abs(plain).max() + 0.05
    assert serving.size_in_bytes(params) < 0.35 * Serving().size_in_bytes(params)
    kernel = kept["classes"]["kernel"]
    assert kernel.dtype == np.float32
    halved = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (np.arange(leaf.size).reshape(leaf.shape) % 2) if "mlp" in str(path) else leaf, params
    )
    assert Serving().size_in_bytes(halved) < Serving().size_in_bytes(params)
