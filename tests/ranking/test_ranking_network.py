"""Embeddings of fields and items against look-ups by hand; a user without a history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from plum_jax.ranking.event_columns import ItemCategories, Sizes
from plum_jax.ranking.networks import embedding
from plum_jax.ranking.networks.network import RankingNetwork, RankingNetworkConfig


@pytest.mark.parametrize("joint", [4096, 0])
def test_fields_are_looked_up_one_by_one(joint, monkeypatch):
    monkeypatch.setattr(embedding, "JOINT_BUCKETS", joint)
    sizes, random = (3, 5, 2), np.random.default_rng(0)
    buckets = np.stack([random.integers(0, size, (4, 6)) for size in sizes], axis=-1)
    module = embedding.FieldSum(sizes, 7)
    params = nn.unbox(module.init(jax.random.key(0), buckets)["params"])
    expected = sum(np.asarray(params[f"field_{n}_embedding"])[buckets[..., n]] for n in range(3))
    np.testing.assert_allclose(module.apply({"params": params}, buckets), expected, rtol=1e-6, atol=1e-7)
    none = embedding.FieldSum((), 7)
    assert none.apply({"params": {}}, buckets[..., :0]).shape == (4, 6, 7)


def test_an_item_is_its_embedding_and_the_mean_of_its_categories():
    categories = ItemCategories(np.array([[1, 2], [3, 0], [0, 0]], np.int32), 4)
    module = embedding.ItemTable(categories, 2, 3)
    params = nn.unbox(module.init(jax.random.key(0))["params"])
    table, of_category = module.apply({"params": params}), params["category_embedding"]
    np.testing.assert_array_equal(table[:, :2], params["embedding"])
    expected = [(of_category[1] + of_category[2]) / 2, of_category[3], jnp.zeros(3)]
    np.testing.assert_allclose(table[:, 2:], expected, rtol=1e-6)


def test_who_did_nothing_has_a_learnt_interest():
    sizes = Sizes(items=3, users=2, request=(), behaviour=(4,))
    network = RankingNetwork(RankingNetworkConfig(dropout=0.0), sizes, ItemCategories(np.zeros((3, 1), np.int32), 1))
    batch = {
        "item": jnp.array([1, 1]),
        "user": jnp.array([0, 0]),
        "request": jnp.zeros((2, 0), jnp.int32),
        "behaviour_items": jnp.array([[2, 0], [0, 0]]),
        "behaviour_fields": jnp.zeros((2, 2, 1), jnp.int32),
        "lengths": jnp.array([1, 0]),
    }
    params = nn.unbox(network.init(jax.random.key(0), batch)["params"])
    moved = params | {"no_history_bias": params["no_history_bias"] + 1}
    before, after = (network.apply({"params": some}, batch).logits for some in (params, moved))
    assert before[0] == after[0] and before[1] != after[1]
