"""A ranker's network: user, candidate, interest and knowledge side by side, layers over them, one logit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.model.projections import parameter
from plum_jax.ranking.event_columns import NO_CATEGORY, ItemCategories, Sizes
from plum_jax.ranking.networks.din import Din
from plum_jax.ranking.networks.embedding import STD, FieldSum, FieldVectors, ItemTable, UserVector
from plum_jax.ranking.networks.interest import Extras, InterestConfig, SumAndWeight
from plum_jax.ranking.networks.knowledge_inputs import KnowledgeInputs
from plum_jax.ranking.networks.perceptron import Perceptron

Use = Literal["direct", "matching", "both"]
USES = ("direct", "matching", "both")


@dataclasses.dataclass(frozen=True)
class RankingNetworkConfig:
    """Sizes of a ranker's network.

    Attributes:
      interest: what becomes of the behaviours: `Din`, `Dien`, `Sim`, `Twin`.
      item_dim, category_dim: of an item's embedding and its categories'.
      user_dim: of the user's own embedding; 0: none.
      field_dim: of each field of user and request.
      mlp_dims: widths of the layers before the logit.
      dropout: of these layers.
      use: of knowledge, where there is any: "direct", its vectors as inputs; "matching", the products of its queries
        with the candidate; "both" (LUM's).
      knowledge_dim: what its vectors are projected to.
    """

    interest: InterestConfig = Din()
    item_dim: int = 16
    category_dim: int = 16
    user_dim: int = 16
    field_dim: int = 8
    mlp_dims: tuple[int, ...] = (128, 64)
    dropout: float = 0.1
    use: Use = "both"
    knowledge_dim: int = 32

    def __post_init__(self) -> None:
        object.__setattr__(self, "mlp_dims", tuple(self.mlp_dims))
        if self.use not in USES:
            raise ValueError(f"expected use of knowledge to be one of {USES}, got {self.use!r}")


class RankingOutput(NamedTuple):
    """Attributes:
    logits: float32 [B], of label 1.
    auxiliary_loss: sum and weight of the interest's own loss; None: it has none, or nothing is learnt.
    """

    logits: jax.Array
    auxiliary_loss: SumAndWeight | None


class RankingNetwork(nn.Module):
    """One logit for each event of a batch with the columns of `EventColumns.of`.

    A user without behaviours has a learnt interest. Vectors of behaviours are those of their items plus an embedding of
    each of their fields, so that they and the candidate are of one space.

    Attributes:
      config: sizes.
      sizes: of the columns.
      categories: of the items.
    """

    config: RankingNetworkConfig
    sizes: Sizes
    categories: ItemCategories

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> RankingOutput:
        c = self.config
        items = ItemTable(self.categories, c.item_dim, c.category_dim, name="items")()
        candidate = jnp.take(items, batch["item"], axis=0)
        behaviours = jnp.take(items, batch["behaviour_items"], axis=0)
        behaviours = behaviours + FieldSum(self.sizes.behaviour, items.shape[1], name="fields")(
            batch["behaviour_fields"]
        )
        mask = jnp.arange(behaviours.shape[1]) < batch["lengths"][:, None]
        drawn = jnp.take(items, batch["drawn_items"], axis=0) if "drawn_items" in batch else None
        extras = Extras(self._same_category(batch), batch["behaviour_fields"], drawn)
        interest = c.interest.module(self.sizes, "interest")(candidate, behaviours, mask, extras)
        parts = [
            UserVector(self.sizes, c.user_dim, c.field_dim, name="user")(batch),
            candidate,
            self._or_none(interest.vector, batch["lengths"]),
        ]
        if self.sizes.conditions:
            parts.append(KnowledgeInputs(c.use, c.knowledge_dim, name="knowledge")(batch))
        if self.sizes.statistics:  # last: a ranker without them may hand its parameters on (`initial.warm_started`)
            parts.append(FieldVectors(self.sizes.statistics, c.field_dim, name="statistics")(batch["statistics"]))
        x = Perceptron(c.mlp_dims, c.dropout, name="mlp")(jnp.concatenate(parts, axis=-1), deterministic)
        return RankingOutput(nn.Dense(1, name="logit")(x)[:, 0], interest.auxiliary_loss)

    def _or_none(self, vector: jax.Array, lengths: jax.Array) -> jax.Array:
        """The interest, or the one of those who did nothing."""
        init = nn.initializers.normal(STD)
        nothing = parameter(self, "no_history_bias", init, ("width",), vector.shape[-1:], "float32")
        return jnp.where(lengths[:, None] > 0, vector, nothing)

    def _same_category(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        first = jnp.asarray(np.ascontiguousarray(self.categories.of_item[:, 0]))
        of_candidate = first[batch["item"]][:, None]
        return (first[batch["behaviour_items"]] == of_candidate) & (of_candidate != NO_CATEGORY)
