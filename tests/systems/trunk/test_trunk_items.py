"""Items by their age, and rows of new titles."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_trunk import DATA, TRUNK
from two_shops import NUM_ITEMS, SMALL

from plum_jax.corpus.splits import LeaveOneOut
from plum_jax.systems.trunk.inheriting import Inherited, inherited_rows, weighted_mean
from plum_jax.systems.trunk.items import ItemVectors, TrunkItems, item_ages
from plum_jax.systems.trunk.warm import WarmRows

RANDOM = np.random.default_rng(0)


def test_ages_are_powers_of_two_of_events_or_days(run):
    split = run.split
    count, events = split.item_popularity, split.training_events()
    first = {item: events.filter(events["item"] == item)["time"].min() for item in range(NUM_ITEMS)}
    for item, (by_events, by_days) in enumerate(zip(item_ages(split, "events"), item_ages(split, "days"), strict=True)):
        assert by_events == (1 + int(np.log2(count[item])) if count[item] else 0)
        days = 0 if first[item] is None else max(1, (events["time"].max() - first[item]) // 86_400)
        assert by_days == (1 + int(np.log2(days)) if days else 0)
    assert item_ages(split, "events")[-1] == 0  # nobody takes the last
    with pytest.raises(ValueError, match="'hours'"):
        item_ages(split, "hours")
    relative = dataclasses.replace(split.corpus, clock="relative")
    with pytest.raises(ValueError, match="in days needs unix times, and the clock of corpus 'two shops' is 'relative'"):
        item_ages(LeaveOneOut().split(relative), "days")


@pytest.mark.parametrize("mix", ["age", "sum"])
def test_an_item_is_its_own_row_and_its_features_by_its_age(mix):
    items = TrunkItems(RANDOM.normal(size=(5, 3)).astype(np.float32), np.array([0, 1, 3, 3, 15], np.int32))
    module = ItemVectors(SMALL, items, mix, id_dropout=0.5)
    params = jax.tree.map(
        lambda x: jnp.asarray(RANDOM.normal(size=x.unbox().shape if hasattr(x, "unbox") else x.shape), jnp.float32),
        module.init(jax.random.key(0))["params"],
        is_leaf=lambda x: hasattr(x, "unbox"),
    )
    if mix == "age":
        params["age_bias"] = jnp.linspace(-0.1, 0.1, 16)
    found = np.asarray(module.apply({"params": params}), np.float64)
    own, content = np.asarray(params["ids"]), items.features @ np.asarray(params["features"]["kernel"])
    for item, age in enumerate(items.ages):
        if mix == "sum":
            expected = content[item] + (own[item] if age else 0)
        else:
            share = 1 / (1 + np.exp(-16 * float(params["age_bias"][age]))) if age else 0.0
            expected = share * own[item] + (1 - share) * content[item]
        np.testing.assert_allclose(found[item], expected, rtol=1e-4, atol=1e-5)
    as_new = np.asarray(module.apply({"params": params}, False, rngs={"dropout": jax.random.key(1)}))
    is_content = np.isclose(as_new, content, atol=1e-5).all(axis=1)
    assert is_content[0] and 1 < is_content.sum() < 5


def test_rows_of_new_titles():
    old, features = RANDOM.normal(size=(6, 4)).astype(np.float32), RANDOM.normal(size=(5, 3)).astype(np.float32)
    old_rows = np.array([4, -1, 0, 5, -1])  # of the six old titles three are gone
    kept = inherited_rows(old, old_rows, features, "mean", 0.0, 0)
    np.testing.assert_array_equal(kept[[0, 2, 3]], old[[4, 0, 5]])
    np.testing.assert_allclose(kept[[1, 4]], np.tile(old[[4, 0, 5]].mean(axis=0), (2, 1)), rtol=1e-5)
    noisy = inherited_rows(old, old_rows, features, "mean", 0.5, 0)
    assert np.abs(noisy[[1, 4]] - kept[[1, 4]]).min() > 0
    np.testing.assert_array_equal(noisy, inherited_rows(old, old_rows, features, "mean", 0.5, 0))
    by_metadata = inherited_rows(old, old_rows, features, "metadata", 0.0, 0)
    for new in (1, 4):
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        weights = np.maximum(unit[[0, 2, 3]] @ unit[new], 0) + 1e-9
        expected = (weights[:, None] * old[[4, 0, 5]]).sum(axis=0) / weights.sum()
        np.testing.assert_allclose(by_metadata[new], expected, rtol=1e-4, atol=1e-6)
    twin = weighted_mean(old, np.eye(6)[:, :6], np.eye(6)[[2]])  # only one is like it
    np.testing.assert_allclose(twin[0], old[2], atol=1e-6)
    with pytest.raises(ValueError, match="none of the items is in the catalogue"):
        inherited_rows(old, np.full(2, -1), features[:2], "mean", 0.0, 0)
    with pytest.raises(ValueError, match="new rows by 'metadata' need features"):
        inherited_rows(old, old_rows, features[:, :0], "metadata", 0.0, 0)
    with pytest.raises(ValueError, match=r"new_rows to be one of \('mean', 'metadata'\), got 'median'"):
        Inherited(new_rows="median")
    with pytest.raises(ValueError, match="there is no trained trunk 'none' to begin with in .*train it first"):
        Inherited("none").initialiser(lambda key: key, DATA.stages("/nowhere"), TRUNK.known)


def test_warm_rows_are_of_new_items_alone_and_are_read(run, fitted):
    warm = WarmRows(dataclasses.replace(TRUNK, training=fitted.system.training)).fit(run, "warm")
    known = fitted.reader.known.items
    assert (~known.in_training).sum() == 1 and not known.in_training[-1]
    before, after = fitted.reader.items(fitted.params), warm.reader.items(warm.params)
    np.testing.assert_array_equal(before[:-1], after[:-1])
    own = fitted.params["item_vectors"]["ids"]
    row = weighted_mean(own[:-1], known.features[:-1], known.features[-1:])[0]
    share = float(fitted.reader.network.apply({"params": fitted.params}, method="age_shares")[1])
    np.testing.assert_allclose(after[-1], share * row + (1 - share) * before[-1], rtol=1e-4, atol=1e-6)
    assert warm.fingerprint != fitted.fingerprint
