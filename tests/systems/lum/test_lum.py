"""LUM: packed = separate, a group of queries = each by itself, sharded = single, and a condition means what it says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_shops import LUM, NUM_ITEMS, SMALL, TRAINING, stages

from plum_jax.objectives.info_nce import InfoNce
from plum_jax.systems.lum.asking import latest_events, moments
from plum_jax.systems.lum.network import LumConfig
from plum_jax.systems.lum.system import initial_lum
from plum_jax.training.mesh import MeshShape, batch_sharding
from plum_jax.training.step import initial_state, make_train_step


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def fitted(run):
    return LUM.fit(run, "lum")


@pytest.fixture(scope="module")
def batch(run, fitted):
    return next(LUM.feed(run.split, fitted.asker.known).make_iterator())


def histories(run, *users):
    offsets = run.corpus.history_offsets
    return [np.arange(offsets[user], offsets[user + 1]) for user in users]


def towers(fitted, events, segments, positions):
    """o and e of rows of events, by the network that trains."""
    known, item = fitted.asker.known, fitted.asker.item[events]
    columns = {name: values[item] for name, (_, values) in known.columns("target", "").items()}
    batch = columns | {
        "decoder_target_tokens": item,
        "decoder_segment_ids": segments,
        "decoder_positions": positions,
        "conditions": known.events.buckets[events],
    }
    return fitted.asker.network.apply({"params": fitted.params}, batch, method="towers")


def test_what_is_asked_for_is_what_is_recommended(run, fitted):
    """Items of the old shop alone, where that is the condition; of the new one, where that is."""
    evaluation = run.split.evaluation("test")
    other = dataclasses.replace(fitted, asked=fitted.asker.conditions([{"shop": "new"}]))
    for answering, parity in ((fitted, 1), (other, 0)):
        first = answering.rank(evaluation, 5).lists.items
        assert np.mean(first % 2 == parity) > 0.95
    assert fitted.facts["parameters"] > fitted.facts["non_embedding_parameters"] > 0
    assert fitted.facts["train_flops"] > 0


def test_a_rating_that_is_asked_for_tells_what_is_liked(run, fitted):
    """Between the answers to "rated 5" and "rated 1" lies which half of the catalogue is liked."""
    liked, disliked = fitted.asker.conditions([{"rating": 5}, {"rating": 1}])
    answers = fitted.asker.answers(fitted.params, histories(run, *range(60)), np.stack([liked, disliked]))
    scores = (answers[:, 0] - answers[:, 1]) @ fitted.asker.items(fitted.params)[: NUM_ITEMS - 1].T
    assert np.mean((scores > 0) == (np.arange(NUM_ITEMS - 1) < NUM_ITEMS // 2)) > 0.9


def test_a_group_of_queries_is_each_query_by_itself(run, fitted):
    """Also for a user without history, for one longer than what is read, and for the training network's own states."""
    asked = [{"shop": "old"}, {}, {"rating": 5}, {"shop": "new", "rating": 1}]
    some = [*histories(run, 0, 1, 2, 3), np.zeros(0, np.int64)]
    conditions = fitted.asker.conditions(asked)
    together = fitted.asker.answers(fitted.params, some, conditions)
    assert together.shape == (5, 4, 16)
    for number in range(len(asked)):
        alone = fitted.asker.answers(fitted.params, some, conditions[number : number + 1])
        np.testing.assert_allclose(together[:, number : number + 1], alone, atol=2e-6)
    # One more event behind the history whose condition is the question: what its item is plays no part.
    events, segments, positions = latest_events([history[-12:] for history in some], 13)
    lengths = segments.sum(axis=1)
    rows = np.arange(len(some))
    segments[rows, lengths] = 1
    known = fitted.asker.known
    for number, condition in enumerate(conditions):
        buckets = known.events.buckets[events]
        buckets[rows, lengths] = condition
        item = fitted.asker.item[events]
        columns = {name: values[item] for name, (_, values) in known.columns("target", "").items()}
        columns |= {"decoder_target_tokens": item, "conditions": buckets}
        columns |= {"decoder_segment_ids": segments, "decoder_positions": positions}
        states = fitted.asker.network.apply({"params": fitted.params}, columns, method="towers")[0]
        np.testing.assert_allclose(together[:, number], np.asarray(states)[rows, lengths], atol=2e-6)


def test_packed_histories_are_separate_ones(run, fitted, batch):
    """Each segment of a packed row has the states that its events have in a row of their own."""
    packed = fitted.asker.network.apply({"params": fitted.params}, batch, method="towers")[0]
    segments = batch["decoder_segment_ids"]
    assert segments.max() > 1
    for row in range(len(segments)):
        for segment in range(1, segments[row].max() + 1):
            here = segments[row] == segment
            events, length = batch["events"][row][here], here.sum()
            places = np.arange(length, dtype=np.int32)[None]
            alone = towers(fitted, events[None], np.ones_like(places), places)[0]
            np.testing.assert_allclose(np.asarray(packed)[row][here], alone[0], atol=2e-6)


def test_answers_before_every_event_are_those_of_its_history(run, fitted, batch):
    conditions = fitted.asker.conditions([{"shop": "old"}, {"rating": 1}])
    segments, positions = batch["decoder_segment_ids"], batch["decoder_positions"]
    found = moments(
        fitted.asker.network, fitted.params, *fitted.asker.read(batch["events"]), segments, positions, conditions
    )
    for row, place in ((0, 0), (0, 7), (1, 13), (2, 23)):
        if segments[row, place]:
            before = batch["events"][row, place - positions[row, place] : place].astype(np.int64)
            expected = fitted.asker.answers(fitted.params, [before], conditions)[0]
            np.testing.assert_allclose(np.asarray(found)[:, row, place], expected, atol=2e-6)


def test_what_the_same_history_took_is_no_negative_where_that_is_asked(run, fitted, batch):
    """The loss by its definition, over the items of other histories."""
    users, items, scale = fitted.asker.network.apply({"params": fitted.params}, batch, method="towers")
    users, items = (np.asarray(x, np.float64).reshape(-1, 16) for x in (users, items))
    segments = batch["decoder_segment_ids"]
    history = (segments + 1000 * np.arange(len(segments))[:, None]).reshape(-1)
    target, log_q = (batch[name].reshape(-1) for name in ("decoder_target_tokens", "target_log_q"))
    real, expected = np.flatnonzero(segments.reshape(-1)), 0.0
    for place in real:
        others = [p for p in real if history[p] != history[place] and target[p] != target[place]]
        scores = np.array([float(scale) * users[place] @ items[p] - log_q[p] for p in (place, *others)])
        expected += np.log(np.sum(np.exp(scores))) - scores[0]
    loss = InfoNce(mask_own=True).on(fitted.asker.network, TRAINING.mesh.build(jax.devices()[:1]))
    total, weight, _ = loss(fitted.params, jax.tree.map(jnp.asarray, batch), None)
    np.testing.assert_allclose(total, expected, rtol=1e-4)
    assert float(weight) == len(real)


def test_negatives_cross_devices(fitted, batch):
    """A step on eight devices is a step on one."""
    network, steps = fitted.asker.network, []
    for shape, devices in ((MeshShape(), jax.devices()[:1]), (MeshShape(data=4, fsdp=2), jax.devices())):
        mesh, key = shape.build(devices), jax.random.key(0)
        optimizer = TRAINING.optimizer.build(60)
        state = initial_state(lambda key: initial_lum(network, key), optimizer, key, mesh)
        step = make_train_step(InfoNce(mask_own=True).on(network, mesh), optimizer, 1, key, mesh, state)
        state, sums = step(state, jax.device_put(batch, batch_sharding(mesh)))
        steps.append((jax.device_get(state.params), jax.device_get(sums["loss"])))
    np.testing.assert_allclose(steps[0][1], steps[1][1], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5), steps[0][0], steps[1][0])


def test_every_training_event_is_trained_on_once_a_pass(run, fitted):
    rows = LUM.feed(run.split, fitted.asker.known).rows.arrays
    real = rows["decoder_loss_weights"] > 0
    assert sorted(rows["events"][real]) == np.flatnonzero(run.split.fold == 0).tolist()
    assert (real == (rows["decoder_segment_ids"] > 0)).all()


@pytest.mark.slow
def test_without_conditions_it_is_next_item_prediction(run):
    bare = dataclasses.replace(LUM, conditions=(), asked={}, network=LumConfig(SMALL, temperature=0.1))
    fitted = dataclasses.replace(bare, training=dataclasses.replace(TRAINING, steps=2)).fit(run, "bare")
    assert "fields" not in fitted.params and "log_scale" not in fitted.params
    assert fitted.rank(run.split.evaluation("test"), 3).lists.items.shape[1] == 3


def test_bad_conditions_and_batches_are_refused(run, fitted, capsys):
    LUM.fit(run, "lum")
    rows = len(range(0, run.corpus.num_events, 9))
    assert f"read as unknown: {{'rating': {rows}}}" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"expected values of fields among \['shop', 'rating'\], got \['price'\]"):
        fitted.asker.conditions([{"price": 3}])
    with pytest.raises(ValueError, match=r"field 'shop': expected one of \['new', 'old'\], got 'closed'"):
        fitted.asker.conditions([{"shop": "closed"}])
    with pytest.raises(ValueError, match="field 'rating': expected a number, got 'good'"):
        fitted.asker.conditions([{"rating": "good"}])
    with pytest.raises(ValueError, match="has no field 'weather' of events; it has gap, hour, weekday, rating, shop"):
        dataclasses.replace(LUM, conditions=("weather",)).fit(run, "other")
    with pytest.raises(ValueError, match="expected microbatches=1, got 2"):
        dataclasses.replace(LUM, training=dataclasses.replace(TRAINING, microbatches=2))
    with pytest.raises(ValueError, match="expected history_length of at most row_length 24, got 30"):
        dataclasses.replace(LUM, history_length=30)
