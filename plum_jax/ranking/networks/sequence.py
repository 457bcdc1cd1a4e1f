"""Rankers that read a whole history at once, with a logit at every event: HSTU, and SASRec with a candidate."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Transformer
from plum_jax.model.hstu import Hstu
from plum_jax.model.masks import PackedCausal
from plum_jax.model.projections import parameter
from plum_jax.ranking.event_columns import ItemCategories, Sizes
from plum_jax.ranking.networks.embedding import FieldSum, ItemTable, UserVector
from plum_jax.ranking.networks.perceptron import Perceptron

SMALL = DecoderConfig(num_layers=2, d_model=64, num_heads=2, num_kv_heads=2, head_dim=32, scan_layers=False)


class SequenceOutput(NamedTuple):
    """Attributes:
    logits: float32 [B, T], of label 1 of each event.
    auxiliary_loss: None, as `objectives.log_loss` wants to know.
    """

    logits: jax.Array
    auxiliary_loss: None = None


class SequenceConfig(Protocol):
    """A frozen dataclass, bound in gin: `HstuConfig`, `SasRecConfig`. Its module is called with `(batch,
    deterministic)` of a batch with the columns of `sequence_ranker.SequenceColumns` and returns a `SequenceOutput`; a
    logit of an event reads its item, user and request, and everything of the events before it in its segment.
    """

    def module(self, sizes: Sizes, categories: ItemCategories) -> nn.Module:
        """The network."""


@dataclasses.dataclass(frozen=True)
class HstuConfig:
    """HSTU for ranking (arXiv 2402.17152, §2.2): {item, action, item, action, ...}, the action told at each item.

    Attributes:
      layers: sizes (`model.hstu.Hstu`).
      field_dim: of each field of user and request beside the state.
      mlp_dims: widths of the layers before the logit.
    """

    layers: DecoderConfig = SMALL
    field_dim: int = 8
    mlp_dims: tuple[int, ...] = (64,)

    def module(self, sizes: Sizes, categories: ItemCategories) -> nn.Module:
        return HstuRanking(self, sizes, categories)


@dataclasses.dataclass(frozen=True)
class SasRecConfig:
    """SASRec's encoder as a ranker: the state behind the last behaviour times the candidate's vector.

    Attributes:
      layers: sizes.
    """

    layers: DecoderConfig = SMALL

    def module(self, sizes: Sizes, categories: ItemCategories) -> nn.Module:
        return SasRecRanking(self, sizes, categories)


class HstuRanking(nn.Module):
    """`HstuConfig` for these columns."""

    config: HstuConfig
    sizes: Sizes
    categories: ItemCategories

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> SequenceOutput:
        c, width = self.config.layers, self.config.layers.d_model
        items, actions = _events(self.sizes, self.categories, width, batch)
        both = jnp.stack([items, actions], axis=2).reshape(len(items), -1, width).astype(c.dtype)
        x = nn.Dropout(c.dropout_rate)(both * width**0.5, deterministic=deterministic)
        positions, times, segments = (
            jnp.repeat(batch[name], 2, axis=1) for name in ("decoder_positions", "time", "decoder_segment_ids")
        )
        positions = 2 * positions + jnp.tile(jnp.arange(2, dtype=positions.dtype), items.shape[1])
        states = Hstu(c, name="layers")(x, positions, times, PackedCausal(segments), deterministic=deterministic)
        rows = states[:, ::2].reshape(-1, width)
        user = UserVector(self.sizes, 0, self.config.field_dim, name="user")(_flat(batch))
        x = Perceptron(self.config.mlp_dims, c.dropout_rate, name="mlp")(
            jnp.concatenate([rows, user], axis=-1), deterministic
        )
        return SequenceOutput(nn.Dense(1, name="logit")(x).reshape(items.shape[:2]))


class SasRecRanking(nn.Module):
    """`SasRecConfig` for these columns; `attention` is the kernel."""

    config: SasRecConfig
    sizes: Sizes
    categories: ItemCategories
    attention: AttentionFunction = EinsumAttention()

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> SequenceOutput:
        c, width = self.config.layers, self.config.layers.d_model
        items, actions = _events(self.sizes, self.categories, width, batch)
        segments, positions = batch["decoder_segment_ids"], batch["decoder_positions"]
        x = nn.Dropout(c.dropout_rate)((items + actions) * width**0.5, deterministic=deterministic)
        output = Transformer(c, self.attention, name="layers")(
            x.astype(c.dtype), positions, PackedCausal(segments), deterministic=deterministic
        )
        # The state behind the event before; of a first event, one that knows nothing.
        before = jnp.pad(output.values[:, :-1], ((0, 0), (1, 0), (0, 0)))
        before = jnp.where((positions > 0)[..., None], before, 0.0)
        zeros = nn.initializers.zeros_init()
        worth = parameter(self, "item_bias", zeros, ("vocab",), (self.sizes.items,), "float32")
        general = parameter(self, "state_bias", nn.initializers.normal(0.05), ("norm",), (width,), "float32")
        logits = jnp.einsum("BTD,BTD->BT", before + general, items) + jnp.take(worth, batch["item"])
        return SequenceOutput(logits)


def _events(
    sizes: Sizes, categories: ItemCategories, width: int, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Items and what was done of them, [B, T, D] each; inside the `nn.compact` of a network."""
    table = ItemTable(categories, width // 2, width - width // 2, name="items")()
    table = table if table.shape[1] == width else nn.Dense(width, use_bias=False, name="items_projection")(table)
    actions = FieldSum(sizes.behaviour, width, name="fields")(batch["behaviour_fields"])
    return jnp.take(table, batch["item"], axis=0), actions


def _flat(batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Columns of users and requests of all events of all rows."""
    return {"user": batch["user"].reshape(-1), "request": batch["request"].reshape(-1, batch["request"].shape[-1])}
