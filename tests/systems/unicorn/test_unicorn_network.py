"""The network against NumPy, all items against some, and logits that have no trace of how negatives are drawn."""

import flax.linen as nn
import jax
import numpy as np
import planted_shop
import pytest

from plum_jax.systems.unicorn.examples import SIMILAR, TASKS, joined, training_examples
from plum_jax.systems.unicorn.feed import ExampleFeed, Negatives
from plum_jax.systems.unicorn.ranking import best_items, logits_of
from plum_jax.systems.unicorn.system import initial_params

FULL = {"personalisation": "full", "vectors": planted_shop.Tastes(), "fields": ("country",)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Data, a batch, the network with random parameters."""
    stages = planted_shop.stages(tmp_path_factory.mktemp("network"))
    model = planted_shop.unicorn(**FULL)
    data = model.data(stages)
    examples = joined([training_examples(stages.split, data.queries, task) for task in TASKS])
    popularity = stages.split.item_popularity
    feed = ExampleFeed.of(examples, data.inputs, Negatives(3, 0.5), popularity, 16, seed=1)
    batch = next(feed.make_iterator())
    network = data.network(model.network)
    init = jax.jit(lambda key: nn.unbox(initial_params(network, batch, key)))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 0.1, init(jax.random.key(0)))
    return data, feed, batch, network, params


def plain(params, data, batch, row, target):
    """The logit of one context and one item, by hand."""

    def dense(name, x):
        p = params
        for part in name.split("/"):
            p = p[part]
        return x @ p["kernel"] + p.get("bias", 0.0)

    items = data.items

    def item(number):
        return dense("features", items.features[number]) + params["item_embedding"][number]

    words = [word for word in batch["query_words"][row] if word]
    vector = batch["query_vector"][row]
    query = params["no_query_bias"]
    if words or vector.any():
        mean = np.mean([params["word_embedding"][word] for word in words], axis=0) if words else 0.0
        query = mean + dense("query_features", vector)
    source = batch["source"][row]
    known = batch["known"][row]
    context = [
        params["task_embedding"][batch["task"][row]],
        query,
        item(source) if source >= 0 else params["no_source_bias"],
        params["fields"]["field_0_embedding"][batch["fields"][row, 0]],
        dense("user_features", batch["vector"][row]) if known else params["no_user_bias"],
    ]
    of_text = set(items.words[target].tolist()) - {0}
    frequency = {
        word: np.log(len(items) / (items.words == word).sum()) if (items.words == word).any() else np.log(len(items))
        for word in words
    }
    found = sum(frequency[word] for word in words if word in of_text)
    total = sum(frequency.values())
    matches = [vector @ items.text[target], found / max(total, 1e-6)]
    matches.append(items.text[source] @ items.text[target] if source >= 0 else 0.0)
    x0 = np.concatenate([*context, item(target), np.array(matches) * params["match_scale"]])
    p, x = params["crosses"], None
    width = len(np.concatenate(context))
    low = x0[:width] @ p["context_down"]["kernel"] + x0[width:] @ p["target_down"]["kernel"]
    x = x0 * dense("crosses/up_0", low) + x0
    x = x0 * dense("crosses/up_1", x @ p["down_1"]["kernel"]) + x
    relu = lambda values: np.maximum(values, 0.0)  # noqa: E731
    deep = dense("into", x)
    deep = deep + dense("blocks_0_1", relu(dense("blocks_0_0", relu(deep))))
    return float((dense("of_crosses", x) + dense("of_layers", relu(deep)))[0])


def test_logits_are_those_of_a_plain_loop_and_less_log_q_in_training(made):
    data, _, batch, network, params = made
    logits = np.asarray(jax.jit(network.apply)({"params": params}, batch).logits)
    assert {*batch["task"].tolist()} == {0, 1, 2}
    for row in range(8):
        for place in range(3):
            wanted = plain(params, data, batch, row, batch["targets"][row, place]) - batch["log_q"][row, place]
            assert logits[row, place] == pytest.approx(wanted, rel=2e-4, abs=2e-4)


def test_all_items_have_the_logits_that_some_have_and_the_best_are_theirs(made):
    data, feed, _, network, params = made
    rows = np.array([0, 50, 300, 700, 900, 1000])
    contexts = data.inputs.of(feed.examples, rows)
    everything = np.tile(np.arange(planted_shop.ITEMS), (len(rows), 1))
    logits = logits_of(network, params, contexts, everything)
    seen = [np.array([3, 5, 5]), np.arange(planted_shop.ITEMS), *[np.zeros(0, int)] * 4]
    lists, values = best_items(network, params, contexts, seen, 50)
    for row in range(len(rows)):
        order = np.argsort(-logits[row], kind="stable")
        assert lists.items[row, :40].tolist() == order.tolist() and (lists.items[row, 40:] == -1).all()
        np.testing.assert_allclose(values[row, :40], logits[row][order], rtol=1e-4, atol=1e-4)
        left = [item for item in order if item not in seen[row]]
        assert lists.unseen[row].tolist() == left + [-1] * (50 - len(left))


def test_negatives_are_drawn_from_q_and_a_draw_that_is_the_target_does_not_count(made):
    data, feed, _, _, _ = made
    popularity, negatives = feed.popularity, Negatives(50, 0.5)
    q = negatives.probabilities(popularity)
    np.testing.assert_allclose(q, 0.5 / len(popularity) + 0.5 * popularity / popularity.sum())
    many = ExampleFeed.of(feed.examples, data.inputs, negatives, popularity, 500, seed=3)
    batch = next(many.make_iterator())
    drawn, target = batch["targets"][:, 1:], batch["targets"][:, :1]
    share = np.bincount(drawn.ravel(), minlength=len(q)) / drawn.size
    assert np.abs(share - q).max() < 5 * np.sqrt(q.max() / drawn.size)
    assert (batch["label_weights"][:, 1:] == (drawn != target)).all() and batch["label_weights"][:, 0].all()
    assert (batch["label"][:, 0] == 1).all() and not batch["label"][:, 1:].any()
    np.testing.assert_allclose(batch["log_q"], np.log(q * len(q))[batch["targets"]], rtol=1e-5)
    uniform = ExampleFeed.of(feed.examples, data.inputs, Negatives(2), popularity, 8, seed=3)
    assert not np.abs(next(uniform.make_iterator())["log_q"]).max() > 1e-6
    with pytest.raises(ValueError, match=r"at least one negative and a share popular in \[0, 1\]"):
        Negatives(0)


def test_an_iterator_goes_on_where_it_was(made):
    _, feed, _, _, _ = made
    whole = feed.make_iterator()
    [next(whole) for _ in range(70)]
    again = feed.make_iterator()
    again.set_state(whole.get_state())
    one, other = next(whole), next(again)
    assert all((one[name] == other[name]).all() for name in one)


def test_contexts_say_what_is_missing(made):
    data, feed, _, _, _ = made
    rows = np.arange(len(feed.examples))
    contexts = data.inputs.of(feed.examples, rows)
    task = contexts["task"]
    assert (contexts["source"][task != TASKS.index(SIMILAR)] == -1).all()
    assert not contexts["query_words"][task == 2].any() and not contexts["query_vector"][task == 2].any()
    assert contexts["query_words"][task != 2].any(axis=1).all() and contexts["known"].all()
