"""Two-stage Interest Network (Chang et al., arXiv 2302.02352): the search scores as the attention does."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from plum_jax.ranking.event_columns import Sizes
from plum_jax.ranking.networks.embedding import FieldSum
from plum_jax.ranking.networks.interest import Extras, Interest
from plum_jax.ranking.networks.target_attention import TargetAttention


@dataclasses.dataclass(frozen=True)
class Twin:
    """Target attention over the whole history, of which the behaviours with the highest scores are read.

    The general search unit and the exact one share their parameters: one set of scores chooses and weighs. What a user
    did with an item (cross features: the gap, the rating) is a bias of the scores (section 4.2). Deviation: all heads
    read one choice, by their mean score.

    Attributes:
      top_k: behaviours that are read; the paper's 100 of 10,000 and more.
      heads, head_dim: of the attention; the paper has 4 heads.
    """

    top_k: int = 50
    heads: int = 4
    head_dim: int = 16
    needs_drawn = False
    needs_categories = False

    def module(self, sizes: Sizes, name: str) -> TwinInterest:
        return TwinInterest(self, sizes.behaviour, name=name)


class TwinInterest(nn.Module):
    """`Twin` for behaviours whose fields have so many buckets."""

    config: Twin
    field_sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, candidate: jax.Array, behaviours: jax.Array, mask: jax.Array, extras: Extras) -> Interest:
        c = self.config
        bias = FieldSum(self.field_sizes, c.heads, name="cross")(extras.fields)
        attention = TargetAttention(c.heads, c.head_dim, c.top_k, name="attention")
        return Interest(attention(candidate, behaviours, mask, bias))
