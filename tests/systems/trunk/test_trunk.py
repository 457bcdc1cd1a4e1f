"""The trunk: what it reads is what it says, its loss is a plain loop's, cached = full, packed = separate."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_trunk import LOCAL, TRUNK
from two_shops import SMALL, TwoShops

from plum_jax.corpus.event_fields import EventFields
from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.model.masks import PackedCausal
from plum_jax.model.repeats import age_bucket
from plum_jax.objectives.next_items import NextItems
from plum_jax.systems.trunk.known import TrunkFields
from plum_jax.systems.trunk.network import TrunkConfig, TrunkNetwork
from plum_jax.systems.trunk.reading import histories_of
from plum_jax.systems.trunk.system import initial_trunk

MESH = TRUNK.training.mesh.build(jax.devices()[:1])


@functools.partial(jax.jit, static_argnums=0)
def applied(network, params, batch):
    return network.apply({"params": params}, batch, method="outputs")


def outputs(fitted, batch, params=None):
    names = [name for name in batch if not name.startswith(("drawn", "target", "places", "auxiliary"))]
    return applied(fitted.reader.network, params or fitted.params, {name: batch[name] for name in names})


def histories(run, *users):
    offsets = run.corpus.history_offsets
    return [np.arange(offsets[user], offsets[user + 1]) for user in users]


def test_a_request_decides_what_is_recommended(run, fitted):
    """The shop is known before the event, and each shop has its own half of the items."""
    evaluation = run.split.evaluation("test")
    first = fitted.rank(evaluation, 5).lists.items
    assert np.mean(first % 2 == evaluation.target_item[:, None] % 2) > 0.95
    asked = fitted.reader.requests_of(evaluation)
    asked[:, 1] = [fitted.reader.known.request.asked({"shop": "new"})[1]] * len(asked)
    users = fitted.reader.users(fitted.params, histories_of(evaluation), asked)
    assert np.mean(np.argmax(users @ fitted.reader.items(fitted.params).T, axis=1) % 2 == 0) > 0.95
    assert fitted.facts["parameters"] > fitted.facts["non_embedding_parameters"] > 0
    assert sum(fitted.facts["layer_shares"]) == pytest.approx(1, abs=1e-3)


def test_the_loss_is_that_of_a_plain_loop(run, fitted, batch):
    """Over all items that are in training, with what it is worth that they were seen; three tokens and a rating."""
    params = jax.tree.map(np.asarray, fitted.params) | {"repeats": np.linspace(-0.1, 0.1, 8).astype(np.float32)}
    output = jax.tree.map(lambda x: np.asarray(x, np.float64), outputs(fitted, batch, params))
    worth, trained = output.repeat_worth, np.flatnonzero(fitted.reader.known.items.in_training)
    sums, auxiliary, counted = np.zeros(3), 0.0, 0
    segments, read = batch["decoder_segment_ids"], batch["decoder_input_tokens"]
    for row, place in np.argwhere(batch["target_weights"][..., 0] > 0):
        begin = place - batch["decoder_positions"][row, place]
        last = {int(item): place - at for at, item in enumerate(read[row][begin : place + 1], start=begin)}
        for k in range(3):
            if batch["target_weights"][row, place, k]:
                scores = output.vectors @ output.states[row, place, k]
                for item, ago in last.items():
                    scores[item] += worth[int(age_bucket(jnp.int32(ago)))]
                target = batch["target_items"][row, place, k]
                sums[k] += np.log(np.sum(np.exp(scores[trained]))) - scores[target]
        bucket = batch["auxiliary"][row, place, 0]
        if bucket:
            logits = output.auxiliary[0][row, place]
            auxiliary, counted = auxiliary + np.log(np.sum(np.exp(logits))) - logits[bucket], counted + 1
    loss = NextItems(0.5, (0.25,)).on(fitted.reader.network, MESH)
    total, weight, metrics = jax.jit(lambda params, batch: loss(params, batch, None))(params, batch)
    np.testing.assert_allclose(metrics["cross_entropy"][0], sums[0], rtol=1e-4)
    np.testing.assert_allclose(metrics["further_cross_entropy"][0], sums[1:].sum(), rtol=1e-4)
    np.testing.assert_allclose(total, sums[0] + 0.5 * sums[1:].sum() + 0.25 * auxiliary, rtol=1e-4)
    assert int(metrics["auxiliary_cross_entropy_1"][1]) == counted and counted < float(weight)
    assert segments.max() > 1


def test_targets_are_the_next_training_events_also_behind_a_window(run, fitted, batch):
    events = run.split.training_events()
    user, item, row = (events[name].to_numpy() for name in ("user", "item", "event"))
    known = fitted.reader.known
    for place in zip(*np.nonzero(batch["places"]), strict=True):
        at = batch["places"][place] - 1
        assert batch["decoder_input_tokens"][place] == item[at]
        np.testing.assert_array_equal(batch["request"][place], known.request.buckets[row[at + 1]])
        np.testing.assert_array_equal(batch["post"][place], known.post.buckets[row[at]])
        for k in range(3):
            there = at + 1 + k < len(user) and user[at + 1 + k] == user[at]
            assert batch["target_weights"][place][k] == there
            assert not there or batch["target_items"][place][k] == item[at + 1 + k]
    padding = batch["places"] == 0
    assert not batch["target_weights"][padding].any()


def test_packed_histories_are_separate_ones(run, fitted, batch):
    packed, segments = np.asarray(outputs(fitted, batch).states), batch["decoder_segment_ids"]
    names = ("decoder_input_tokens", "post", "request")
    for row, segment in ((0, 1), (0, 2), (1, 1)):
        here = segments[row] == segment
        alone = {name: np.zeros((1, *batch[name].shape[1:]), batch[name].dtype) for name in names}
        length = int(here.sum())
        for name in names:
            alone[name][0, :length] = batch[name][row][here]
        places = np.arange(here.shape[0], dtype=np.int32)[None]
        alone |= {"decoder_positions": places, "decoder_segment_ids": (places < length).astype(np.int32)}
        alone = {name: np.repeat(values, len(segments), axis=0) for name, values in alone.items()}  # one shape
        np.testing.assert_allclose(np.asarray(outputs(fitted, alone).states)[0, :length], packed[row][here], atol=3e-6)


def test_a_cache_that_goes_on_is_the_whole_history_at_once(run, fitted):
    """With local attention in the first layer, and a cache that is gone on from twice."""
    reader, params = fitted.reader, fitted.params
    some = [history[:12] for history in histories(run, *range(60)) if len(history) >= 12][:5]
    whole, lengths = reader.read(some, reader.no_request(len(some)))
    assert (lengths == 12).all()
    whole_rows = whole | {"decoder_segment_ids": np.ones((len(some), 12), np.int32)}
    full = applied(reader.network, params, whole_rows).states[:, :, 0]
    states, cache, _ = reader.begin(params, [history[:6] for history in some], whole["request"][:, 5])
    found, seen = [np.asarray(states)[:, :6]], np.arange(12)[None] < np.full((len(some), 1), 6)
    for start, stop in ((6, 9), (9, 12)):
        new = {name: values[:, start:stop] for name, values in whole.items()}
        states, cache = reader.go_on(params, cache, seen, new)
        found.append(np.asarray(states))
        seen = np.concatenate([seen, np.ones((len(some), stop - start), bool)], axis=1)
    older = {name: values[:, 8:9] for name, values in whole.items()}
    with pytest.raises(
        ValueError, match="row 0: the cache has 12 events, so that position 12 comes next, and .* has 8"
    ):
        reader.go_on(params, cache, seen, older)
    np.testing.assert_allclose(np.concatenate(found, axis=1), full, atol=3e-6)
    np.testing.assert_allclose(reader.users(params, some), np.asarray(full)[:, -1], atol=3e-6)
    assert not reader.users(params, [np.zeros(0, np.int64)]).any()


def test_a_gap_that_tells_of_unseen_events_is_unknown(run, fitted):
    evaluation = run.split.evaluation("test")
    later = dataclasses.replace(evaluation, target_event=evaluation.target_event + 1)
    here, there = fitted.reader.requests_of(evaluation), fitted.reader.requests_of(later)
    assert (here[:, 0] > 0).all() and not there[:, 0].any()
    np.testing.assert_array_equal(there[:, 1], fitted.reader.known.request.buckets[later.target_event][:, 1])


@pytest.mark.parametrize("layers", ["last", "mixture", "concat"])
def test_layers_make_the_user(fitted, batch, layers):
    """By their definition, from the streams that a stack of its own gives."""
    known, config = fitted.reader.known, TrunkConfig(LOCAL, layers=layers, heads="shared", tokens=3)
    network = TrunkNetwork(config, known.items, known.post.sizes, known.request.sizes)
    params = nn.unbox(jax.jit(functools.partial(initial_trunk, network))(jax.random.key(0)))
    if layers == "mixture":
        params["layer_bias"] = jnp.array([0.02, -0.01, 0.05])
    batch = {name: batch[name][:1] for name in batch if not name.startswith("drawn")}

    def of(network, batch):
        vectors = network.vectors()
        user, _ = network.represented(vectors, batch, PackedCausal(batch["decoder_segment_ids"]))
        x = jnp.take(vectors, batch["decoder_input_tokens"], axis=0) + network.post(batch["post"])
        x = (x + network.request(batch["request"])) * jnp.sqrt(16.0)
        mask = PackedCausal(batch["decoder_segment_ids"])
        return user, network.transformer.with_streams(x, batch["decoder_positions"], mask)

    user, (output, streams) = jax.jit(lambda params, batch: network.apply({"params": params}, batch, method=of))(
        params, batch
    )
    streams = [np.asarray(x, np.float64) for x in streams]
    normed = [x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6) for x in streams]
    np.testing.assert_allclose(normed[-1], output.values, atol=1e-5)  # scales are 1 at first
    if layers == "last":
        expected = normed[-1]
    elif layers == "mixture":
        shares = np.exp(16 * np.array([0.02, -0.01, 0.05]))
        expected = sum(share * x for share, x in zip(shares / shares.sum(), normed, strict=True))
    else:
        expected = np.concatenate(normed, axis=-1) @ np.asarray(params["joined"]["kernel"], np.float64)
    np.testing.assert_allclose(user, expected, atol=2e-5)
    assert len([name for name in params if name.startswith("further")]) == 1 and params["offsets"].shape == (2, 16)


def test_bad_choices_and_fields_are_one_clear_error(run):
    with pytest.raises(
        ValueError, match=r"expected layers of the trunk to be one of \('last', 'mixture', 'concat'\), got 'first'"
    ):
        TrunkConfig(layers="first")
    with pytest.raises(ValueError, match="expected heads of the trunk"):
        TrunkConfig(heads="one")
    with pytest.raises(ValueError, match="at least 1 token, got tokens=0"):
        TrunkConfig(tokens=0)
    with pytest.raises(ValueError, match="use_features, or item_mix 'sum'"):
        dataclasses.replace(TRUNK, use_features=False)
    missing = dataclasses.replace(TRUNK, fields=TrunkFields(("gap",), ("rating",)))
    with pytest.raises(
        ValueError, match=r"'rating' is missing in \d+ of .*user 'u0' and item 'i\d+' \(row 0\).*TRUNK_MAY_BE"
    ):
        missing.fit(run, "missing")
    after = dataclasses.replace(TRUNK, fields=TrunkFields(("rating",), may_be_missing=("rating",)))
    with pytest.raises(ValueError, match=r"known before the event: expected names among gap.*shop, got \['rating'\]"):
        after.fit(run, "after")
    with pytest.raises(ValueError, match="layers 'concat' reads every layer's state.*set scan_layers=False"):
        TrunkConfig(dataclasses.replace(SMALL, scan_layers=True), layers="concat")
    with pytest.raises(ValueError, match="the one 3 behind the next is asked for"):
        TRUNK.reader(run.split, TRUNK.known(run)).users(None, [], later=3)


def test_hours_and_days_are_those_of_the_clock(run):
    """Rows are a minute apart from 1970 on, a Thursday."""
    fields = EventFields.of(run.split, ("hour", "weekday"))
    rows = np.arange(run.corpus.num_events)
    words = [
        [field.known[bucket - 1] if bucket else "" for bucket in fields.buckets[:, n]]
        for n, field in enumerate(fields.fields)
    ]
    assert words[0] == [str(row // 60 % 24) for row in rows] and words[1] == [str(4 + row // 1440) for row in rows]
    corpus = dataclasses.replace(TwoShops().read(), clock="relative")
    with pytest.raises(ValueError, match="'hour' needs unix times, and the clock of corpus 'two shops' is 'relative'"):
        EventFields.of(LeaveOneOut().split(corpus), ("hour",))
