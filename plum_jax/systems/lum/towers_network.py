"""Two towers that may read what a user model knows: the user's its answers, the item's its vector of the item."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.projections import parameter
from plum_jax.objectives.info_nce import MOST_SCALE, unit
from plum_jax.ranking.event_columns import ItemCategories, Sizes
from plum_jax.ranking.networks.embedding import FieldSum, ItemTable, UserVector
from plum_jax.ranking.networks.perceptron import Perceptron


@dataclasses.dataclass(frozen=True)
class TowersConfig:
    """Sizes.

    Attributes:
      item_dim, category_dim, user_dim, field_dim: of embeddings (`ranking.networks.network.RankingNetworkConfig`).
      knowledge_dim: what the user model's vectors are projected to.
      mlp_dims: widths of the layers of each tower; the last is D, of what is compared.
    """

    item_dim: int = 32
    category_dim: int = 16
    user_dim: int = 16
    field_dim: int = 8
    knowledge_dim: int = 64
    mlp_dims: tuple[int, ...] = (128, 64)


class Towers(nn.Module):
    """UEnc(u, behaviours, o_q1..o_qN) and IEnc(i, e_i), unit vectors; behaviours are pooled by their mean, as in
    embedding-based retrieval (Huang et al., arXiv 2006.11632), but weighed by 1 / (1 + events since): what came last
    says most of what comes next.
    """

    config: TowersConfig
    sizes: Sizes
    categories: ItemCategories

    def setup(self) -> None:
        c = self.config
        self.table = ItemTable(self.categories, c.item_dim, c.category_dim)
        width = c.item_dim + (c.category_dim if self.categories.size > 1 else 0)
        self.fields = FieldSum(self.sizes.behaviour, width)
        self.user = UserVector(self.sizes, c.user_dim, c.field_dim)
        self.user_tower, self.item_tower = (Perceptron(c.mlp_dims[:-1]) for _ in range(2))
        self.user_out, self.item_out = (nn.Dense(c.mlp_dims[-1]) for _ in range(2))
        if self.sizes.conditions:
            self.queries, self.item_knowledge = nn.Dense(c.knowledge_dim), nn.Dense(c.knowledge_dim)
        self.log_scale = parameter(self, "log_scale", nn.initializers.constant(jnp.log(20.0)), (), (), "float32")

    def users(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """float32 [B, D] before the events of a batch of `EventColumns`."""
        items = jnp.take(self.table(), batch["behaviour_items"], axis=0)
        behaviours = items + self.fields(batch["behaviour_fields"])
        places = jnp.arange(behaviours.shape[1])
        age = batch["lengths"][:, None] - 1 - places
        weights = jnp.where(age >= 0, 1.0 / (1.0 + age), 0.0)
        pooled = jnp.einsum("BT,BTD->BD", weights, behaviours) / jnp.maximum(jnp.sum(weights, axis=1)[:, None], 1e-6)
        parts = [self.user(batch), pooled]
        if self.sizes.conditions:
            queries = batch["knowledge_queries"]
            parts.append(self.queries(queries.reshape(len(queries), -1)))
        return unit(self.user_out(self.user_tower(jnp.concatenate(parts, axis=-1))))

    def items(self, items: jax.Array, knowledge: jax.Array) -> jax.Array:
        """float32 [B, D] of items int32 [B] with e_i `knowledge` [B, D'] (not read without knowledge)."""
        parts = [jnp.take(self.table(), items, axis=0)]
        if self.sizes.conditions:
            parts.append(self.item_knowledge(knowledge))
        return unit(self.item_out(self.item_tower(jnp.concatenate(parts, axis=-1))))

    def towers(
        self, batch: Mapping[str, jax.Array], deterministic: bool = True
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """For `objectives.info_nce`: vectors [B, 1, D] of users and of what they took, and the inverse temperature."""
        items = self.items(batch["item"], batch["knowledge_item"] if self.sizes.conditions else batch["item"])
        return self.users(batch)[:, None], items[:, None], jnp.minimum(jnp.exp(self.log_scale), MOST_SCALE)
