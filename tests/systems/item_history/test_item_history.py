"""One position an item: beams are brute force, packed rows are separate ones, the search has the trained model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_item_history import DEPTH, SMALL, SYSTEM

from plum_jax.evaluation.judge import evaluated
from plum_jax.model.masks import PackedCausal
from plum_jax.model.repeats import AGES, SCALE
from plum_jax.objectives.next_item import NextItem, items_of
from plum_jax.systems.item_history import ItemHistory
from plum_jax.systems.item_history.counts import item_history_counts
from plum_jax.systems.known import Known
from plum_jax.systems.popularity import Popularity
from plum_jax.training.mesh import MeshShape
from tasks.retrieval import Reward


def with_share(fitted, share: float):
    return dataclasses.replace(fitted, ranker=dataclasses.replace(fitted.ranker, dense_share=share))


def all_scores(fitted, history, events) -> tuple[np.ndarray, np.ndarray]:
    """log p of every item by its codes, and by the dense head, after a history: one item at a time, without search.

    `history` are items, `events` their rows in the corpus.
    """
    ranker = fitted.ranker
    read, events = (np.asarray(numbers[-ranker.history_length :], np.int32) for numbers in (history, events))
    length = len(read)
    # All of one shape: another would compile again. What is behind the last item is not seen.
    read, events = (np.pad(numbers, (0, ranker.history_length - length))[None] for numbers in (read, events))
    fields = ranker.known.events.buckets[events]
    everything = ranker.known.items(np.arange(ranker.network.num_items, dtype=np.int32))
    found = scores_of(ranker.network, fitted.params, ranker.known.items(read), fields, length, everything)
    total, scores = (np.asarray(x, np.float64) for x in found)
    scores = scores + repeats_by_hand(fitted.params, history, len(scores))
    return total, scores - np.log(np.exp(scores).sum())


def repeats_by_hand(params, history, num_items: int) -> np.ndarray:
    """What each item's score gains for its last occurrence in a whole history, item by item."""
    gained, worth = np.zeros(num_items), SCALE * np.asarray(params["repeats"], np.float64)
    for ago, item in reversed(list(enumerate(reversed(history)))):
        gained[item] = worth[min(int(np.log2(ago + 1)), AGES - 1)]
    return gained


def history_of(evaluation, row) -> tuple[np.ndarray, np.ndarray]:
    """Items and events before a target."""
    offsets = evaluation.history_offsets
    return evaluation.history(row), evaluation.history_events[offsets[row] : offsets[row + 1]]


@functools.partial(jax.jit, static_argnums=0)
def scores_of(network, params, history, fields, length, everything):
    apply = functools.partial(network.apply, {"params": params})
    positions = jnp.arange(history.ids.shape[1], dtype=jnp.int32)[None]
    causal = jnp.tri(history.ids.shape[1], dtype=bool)[None]
    state = apply(history, fields, positions, causal, method="states")[:, length - 1][:, None]
    hidden = apply(jnp.repeat(state, len(everything.ids), axis=1), everything.codes[None], method="depth_states")
    total = 0.0
    for level in range(everything.codes.shape[1]):
        log_probs = jax.nn.log_softmax(apply(hidden[:, level], level, method="code_logits"))
        total += jnp.take_along_axis(log_probs, everything.codes[:, level, None], axis=1)[:, 0]
    return total, apply(everything, method="vectors") @ state[0, 0]


def test_it_beats_popularity_by_either_score_and_by_both(stages, fitted):
    evaluation = stages.split.evaluation("test")
    systems = [with_share(fitted, share) for share in (0.0, 0.5, 1.0)] + [Popularity().fit(stages, "")]
    hits = [
        np.mean((s.rank(evaluation, 10).lists.items == evaluation.target_item[:, None]).any(axis=1)) for s in systems
    ]
    assert min(hits[:3]) > hits[3] + 0.05, hits


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_lists_are_those_of_all_items_scored_one_by_one(stages, fitted, share):
    evaluation = stages.split.evaluation("test")
    ranking = with_share(fitted, share).rank(evaluation, 7)
    for row in range(0, len(evaluation), 41):
        total, dense = all_scores(fitted, *history_of(evaluation, row))
        scores = (1 - share) * total + share * dense
        scores[evaluation.history(row)] = -np.inf
        best = np.argsort(-scores, kind="stable")[:7]
        assert ranking.lists.unseen[row].tolist() == best.tolist()
        shift = ranking.scores[row][0] - scores[best][0] if share == 1 else 0.0  # products, not yet normalised
        np.testing.assert_allclose(ranking.scores[row] - shift, scores[best], rtol=1e-4, atol=1e-4)


def test_a_beam_finds_what_brute_force_finds_and_a_narrow_one_is_its_beginning(stages, fitted):
    evaluation = stages.split.evaluation("test").take(np.arange(20))
    narrow = dataclasses.replace(with_share(fitted, 0.0).ranker, num_beams=4)
    narrow_lists = narrow.rank(fitted.params, evaluation, 1).lists.items
    wide = with_share(fitted, 0.0).rank(evaluation, 48)
    for row in range(20):
        total, _ = all_scores(fitted, *history_of(evaluation, row))
        assert wide.lists.items[row].tolist() == np.argsort(-total, kind="stable").tolist()
    assert np.mean(narrow_lists[:, 0] == wide.lists.items[:, 0]) > 0.7


def test_packed_histories_are_separate_ones(stages, fitted):
    split, known = stages.split, fitted.ranker.known
    batch = {name: jnp.asarray(values) for name, values in next(SYSTEM.feed(split, known).make_iterator()).items()}
    network, params = fitted.ranker.network, {"params": fitted.params}
    packed = network.apply(
        params,
        items_of(batch, "input"),
        batch["input_fields"],
        batch["decoder_positions"],
        PackedCausal(batch["decoder_segment_ids"]),
        method="states",
    )
    row = int(np.argmax(np.max(batch["decoder_segment_ids"], axis=1)))
    for segment in range(1, int(batch["decoder_segment_ids"][row].max()) + 1):
        place = np.flatnonzero(batch["decoder_segment_ids"][row] == segment)
        items = known.items(np.asarray(batch["decoder_input_tokens"])[row, place][None])
        causal = jnp.tri(len(place), dtype=bool)[None]
        fields = batch["input_fields"][row, place][None]
        alone = network.apply(params, items, fields, jnp.arange(len(place))[None], causal, method="states")
        np.testing.assert_allclose(alone[0], packed[row, place], rtol=1e-4, atol=1e-5)


def test_losses_are_their_definitions(stages, fitted):
    split, known = stages.split, fitted.ranker.known
    # Every item is drawn once: the softmax over draws is then the one over all items.
    batch = dict(next(SYSTEM.feed(split, known).make_iterator()))
    ids = np.arange(48, dtype=np.int32).reshape(8, 6)
    drawn = {"known": known.in_training, "codes": known.codes, "features": known.features}
    batch |= {"drawn_items": ids, **{f"drawn_{name}": values[ids] for name, values in drawn.items()}}
    batch["drawn_log_q"] = np.full(ids.shape, -np.log(48), np.float32)
    mesh = SYSTEM.training.mesh.build(jax.devices()[:1])
    loss, weight, metrics = NextItem(2.0, 0.5).on(fitted.ranker.network, mesh)(fitted.params, batch, None)
    real = np.argwhere(batch["decoder_loss_weights"] > 0)
    nats = []
    for row, place in real:
        segment = batch["decoder_segment_ids"][row] == batch["decoder_segment_ids"][row, place]
        history = batch["decoder_input_tokens"][row][: place + 1][segment[: place + 1]]
        total, dense = all_scores(fitted, history, batch["input_events"][row][: place + 1][segment[: place + 1]])
        target = batch["decoder_target_tokens"][row, place]
        nats.append((-total[target], -dense[target]))
    generative, dense = np.sum(nats, axis=0)
    assert float(weight) == len(real)
    assert float(metrics["cross_entropy"][0]) == pytest.approx(generative, rel=1e-4)
    assert float(metrics["dense_cross_entropy"][0]) == pytest.approx(dense, rel=1e-4)
    assert float(loss) == pytest.approx(2 * generative + 0.5 * dense, rel=1e-4)


def test_some_positions_stand_for_all(stages, fitted):
    """The mean over draws is the loss over all positions; without a generator nothing is drawn."""
    still = dataclasses.replace(SMALL, dropout_rate=0.0)
    config = dataclasses.replace(SYSTEM.network, transformer=still, depth=DEPTH, id_dropout=0.0)
    network = dataclasses.replace(SYSTEM, network=config).network_of(fitted.ranker.known.sizes)
    batch = next(SYSTEM.feed(stages.split, fitted.ranker.known).make_iterator())
    of = {s: NextItem(generative_share=s, dense_weight=0.0).on(network, MeshShape().build()) for s in (1.0, 0.3)}
    whole = float(of[1.0](fitted.params, batch, jax.random.key(0))[0])
    assert float(of[0.3](fitted.params, batch, None)[0]) == pytest.approx(whole, rel=1e-5)
    draw = jax.jit(lambda key: of[0.3](fitted.params, batch, key)[0])
    drawn = np.array([float(draw(key)) for key in jax.random.split(jax.random.key(1), 200)])
    assert drawn.std() > 0.001 * whole
    assert abs(drawn.mean() - whole) < 4 * drawn.std() / 200**0.5 + 0.002 * whole


def test_items_of_the_history_stand_beside_the_drawn_ones(stages, fitted):
    """Where not all items are drawn: those of the history are scored too, with what it is worth that they were seen."""
    known, network = fitted.ranker.known, fitted.ranker.network
    batch = next(SYSTEM.feed(stages.split, known).make_iterator())
    mesh = SYSTEM.training.mesh.build(jax.devices()[:1])
    loss = NextItem(generative_weight=0.0).on(network, mesh)
    found = float(loss(fitted.params, batch, None)[0])
    vectors, drawn = np.asarray(fitted.ranker.vectors(fitted.params), np.float64), batch["drawn_items"].ravel()
    states = network.apply(
        {"params": fitted.params},
        items_of(batch, "input"),
        batch["input_fields"],
        batch["decoder_positions"],
        PackedCausal(batch["decoder_segment_ids"]),
        method="states",
    )
    total = 0.0
    for row, place in np.argwhere(batch["decoder_loss_weights"] > 0):
        segment = batch["decoder_segment_ids"][row] == batch["decoder_segment_ids"][row, place]
        history = batch["decoder_input_tokens"][row][: place + 1][segment[: place + 1]].tolist()
        target, scores = (
            batch["decoder_target_tokens"][row, place],
            vectors @ np.asarray(states[row, place], np.float64),
        )
        gained = repeats_by_hand(fitted.params, history, 48)
        against = [scores[item] + np.log(48 / len(drawn)) for item in drawn if item != target]
        against += [scores[item] + gained[item] for item in {*history} - {target}]
        own = scores[target] + gained[target]
        total += np.log(np.exp([*against, own]).sum()) - own
    assert found == pytest.approx(total, rel=1e-4)


def test_an_item_that_was_not_in_training_is_known_by_its_codes_and_features(fitted):
    ranker, ids = fitted.ranker, np.arange(5, dtype=np.int32)
    items = dataclasses.replace(ranker.known.items(ids), known=jnp.zeros(5, bool))
    vectors = ranker.network.apply({"params": fitted.params}, items, method="vectors")
    other = dict(fitted.params) | {"items": dict(fitted.params["items"]) | {"ids": jnp.full((48, 16), 7.0)}}
    same = ranker.network.apply({"params": other}, items, method="vectors")
    np.testing.assert_array_equal(vectors, same)


def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(stages, fitted, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    calls = []

    def evaluate(params):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return {"recall@10": 0.0}

    monkeypatch.setattr(ItemHistory, "_curve", lambda self, ranker, split: evaluate)
    watched = dataclasses.replace(SYSTEM, training=dataclasses.replace(SYSTEM.training, evaluation_period=20))
    whole = dataclasses.replace(stages, directory=stages.directory / "other")
    with pytest.raises(Killed):
        watched.fit(whole, "item_history")
    assert watched.fit(whole, "item_history").fingerprint == fitted.fingerprint


def test_parameters_and_flops_are_those_counted_by_hand(fitted):
    sizes = fitted.ranker.known.sizes
    counts = item_history_counts(SYSTEM.network, sizes)
    params = fitted.params
    assert counts["total"] == sum(np.size(leaf) for leaf in jax.tree.leaves(params))
    rows = [params["items"]["codes"], params["items"]["ids"], params["fields"]["table"], params["depth"]["embedding"]]
    assert counts["embedding"] == sum(np.size(table) for table in [*rows, params["repeats"]])
    assert counts["head"] == np.size(params["depth"]["head"])
    parts = SYSTEM.flops_parts(sizes)
    codes, drawn, positions = sizes.num_codes, 32, 8 * 24
    # Backward is twice forward, 2 a multiply-add. Scores of 32 negatives, the target, 24 items of the row; every code
    # of each level.
    assert parts["head"] == 6 * ((33 + 24) * 16 + codes * 8)
    trunk, depth = 16 * 16 * 4 + 3 * 16 * 32, 8 * 8 * 4 + 3 * 8 * 16
    vectors = (2 + drawn / positions) * 4 * 16  # features of inputs, targets and negatives
    assert parts["projections"] == pytest.approx(6 * (trunk + 3 * depth + 16 * 8 + vectors))
    assert parts["scores"] == pytest.approx(6 * 2 * (16 * 12.5 + 3 * 8 * 2))


def test_its_row_says_what_other_rows_say(stages, fitted):
    row = evaluated(stages, "item_history", SYSTEM, (1, 5))
    assert row["parameters"] == sum(np.size(leaf) for leaf in jax.tree.leaves(fitted.params))
    assert 0 <= row["recall@5"] <= 1 and 0 <= row["sid_recall@5"] <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense_share": 1.5}, "expected a dense_share of 0 to 1, got 1.5"),
        ({"objective": NextItem(dense_weight=0.0)}, "dense_share is 0.5, but the dense head is not trained"),
        ({"objective": NextItem(generative_weight=0.0)}, "dense_share is 0.5, but the codes are not trained"),
    ],
)
def test_a_ranking_by_what_is_not_trained_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SYSTEM, **changes)


def test_a_batch_with_room_for_all_items_draws_each_once(stages, fitted):
    """The softmax over the draws is the one over all items that were in training."""
    everything = dataclasses.replace(SYSTEM, num_drawn=1000)
    batch = next(everything.feed(stages.split, fitted.ranker.known).make_iterator())
    items, weights = batch["drawn_items"].ravel(), np.exp(-batch["drawn_log_q"].astype(np.float64)).ravel()
    assert sorted(items[weights > 0]) == np.flatnonzero(fitted.ranker.known.in_training).tolist()
    np.testing.assert_allclose(weights[weights > 0] / len(items), 1, rtol=1e-6)


def test_a_field_changes_what_is_recommended(stages, fitted):
    """Another time between the same items, another ranking: the search reads what training read."""
    known, evaluation = fitted.ranker.known, stages.split.evaluation("test")
    other = dataclasses.replace(known.events, buckets=np.where(known.events.buckets > 0, 3, 0).astype(np.int32))
    ranker = dataclasses.replace(fitted.ranker, known=dataclasses.replace(known, events=other))
    lists = [r.rank(fitted.params, evaluation, 5).lists.items for r in (fitted.ranker, ranker)]
    assert 0.05 < np.mean(lists[0] != lists[1]) < 1


def test_without_features_items_are_their_codes_and_rows(stages):
    known = Known.of(stages, use_features=False)
    assert known.features.shape == (48, 0)
    assert SYSTEM.network_of(known.sizes).feature_dim == 0


def test_features_that_the_run_has_not_are_asked_for_in_vain(stages):
    bare = dataclasses.replace(stages, data=dataclasses.replace(stages.data, feature_builders=()))
    with pytest.raises(ValueError, match="the run has none: set FEATURES, or ITEM_FEATURES = False"):
        Known.of(bare, use_features=True)


def test_what_an_event_is_worth_weighs_its_loss(stages):
    """Every event but a user's first, once, with its reward; a loop over the users says it too."""
    system = dataclasses.replace(SYSTEM, reward=Reward("watch_ratio", scale=2.0, minimum=0.1))
    rows = system.feed(stages.split, Known.of(stages, use_features=True, fields=("gap",))).rows.arrays
    found = zip(rows["decoder_target_tokens"].ravel(), rows["decoder_loss_weights"].ravel(), strict=True)
    expected, before = [], None
    for event in stages.split.training_events().iter_rows(named=True):
        if event["user"] == before:
            expected.append((event["item"], max(2.0 * event["watch_ratio"], 0.1)))
        before = event["user"]
    np.testing.assert_allclose(sorted(pair for pair in found if pair[1] > 0), sorted(expected), rtol=1e-6)
    assert len({weight for _, weight in expected}) > 100
