"""Vectors of items, users and fields, shared by candidates and behaviours."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.projections import parameter
from plum_jax.ranking.event_columns import NO_CATEGORY, ItemCategories, Sizes

STD = 0.05  # of a first embedding
JOINT_BUCKETS = 4096  # combinations of fields that have a table of their own


class ItemTable(nn.Module):
    """Vectors of all items [I, D]: an embedding of the item, and beside it the mean of its categories'.

    Attributes:
      categories: of the items.
      item_dim, category_dim: widths; D is their sum, or `item_dim` where no item has a category.
    """

    categories: ItemCategories
    item_dim: int
    category_dim: int

    @nn.compact
    def __call__(self) -> jax.Array:
        own = embedding(self, "embedding", len(self.categories.of_item), self.item_dim, "vocab")
        if self.categories.size == 1:
            return own
        of_category = embedding(self, "category_embedding", self.categories.size, self.category_dim)
        # A product with a constant: a gather of each item's categories would need a scatter backwards.
        return jnp.concatenate([own, jnp.asarray(shares(self.categories)) @ of_category], axis=-1)


class FieldSum(nn.Module):
    """The sum of an embedding for each field: buckets int32 [..., F] to [..., width].

    Attributes:
      sizes: buckets of each field.
      width: of the sum.
    """

    sizes: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, buckets: jax.Array) -> jax.Array:
        tables = [
            embedding(self, f"field_{number}_embedding", size, self.width) for number, size in enumerate(self.sizes)
        ]
        if not 0 < math.prod(self.sizes) <= JOINT_BUCKETS:
            total = jnp.zeros((*buckets.shape[:-1], self.width))
            for number, table in enumerate(tables):
                total = total + jnp.take(table, buckets[..., number], axis=0)
            return total
        # One look-up, and one scatter backwards, in a table of all combinations: they are what a step's time goes to.
        joint, place = jnp.zeros((1, self.width)), jnp.zeros(buckets.shape[:-1], jnp.int32)
        for number, (size, table) in enumerate(zip(self.sizes, tables, strict=True)):
            joint = (joint[:, None] + table).reshape(-1, self.width)
            place = place * size + buckets[..., number]
        return jnp.take(joint, place, axis=0)


class FieldVectors(nn.Module):
    """An embedding for each field, side by side: buckets int32 [B, F] to [B, F * width].

    Attributes:
      sizes: buckets of each field.
      width: of each.
    """

    sizes: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, buckets: jax.Array) -> jax.Array:
        tables = (embedding(self, f"field_{n}_embedding", size, self.width) for n, size in enumerate(self.sizes))
        return jnp.concatenate([jnp.take(t, buckets[:, n], axis=0) for n, t in enumerate(tables)], axis=-1)


class UserVector(nn.Module):
    """[B, ...]: an embedding of the user, and one for each field of user and request, side by side.

    Attributes:
      sizes: of the batch's columns.
      user_dim: width of the user's own embedding; 0: none, users are told apart by what they do.
      field_dim: width of a field's.
    """

    sizes: Sizes
    user_dim: int
    field_dim: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        parts = [jnp.zeros((len(batch["user"]), 0))]
        if self.user_dim:
            own = embedding(self, "embedding", self.sizes.users, self.user_dim, "vocab")
            parts.append(jnp.take(own, batch["user"], axis=0))
        for number, size in enumerate(self.sizes.request):
            table = embedding(self, f"field_{number}_embedding", size, self.field_dim)
            parts.append(jnp.take(table, batch["request"][:, number], axis=0))
        return jnp.concatenate(parts, axis=-1)


def embedding(module: nn.Module, name: str, rows: int, width: int, rows_axis: str = "bucket") -> jax.Array:
    """A table float32 [rows, width]."""
    return parameter(module, name, nn.initializers.normal(STD), (rows_axis, "width"), (rows, width), "float32")


@functools.lru_cache(maxsize=4)
def shares(categories: ItemCategories) -> np.ndarray:
    """float32 [I, categories]: rows that sum to 1, or are 0 where an item has none."""
    table, of_item = np.zeros((len(categories.of_item), categories.size), np.float32), categories.of_item
    items, places = np.nonzero(of_item != NO_CATEGORY)
    np.add.at(table, (items, of_item[items, places]), 1.0)
    return table / np.maximum(table.sum(axis=1, keepdims=True), 1.0)
