"""The trunk on payments: an encoder of mixed fields, a Transformer with local attention, heads for the next payment."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.cache import KVCache
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Transformer
from plum_jax.model.depth_decoder import level_offsets
from plum_jax.model.masks import Mask, PackedCausal
from plum_jax.model.projections import parameter

SMALL = DecoderConfig(
    num_layers=2, d_model=64, num_heads=2, num_kv_heads=2, head_dim=32, mlp_dim=128, dropout_rate=0.1, scan_layers=False
)


@dataclasses.dataclass(frozen=True)
class TrunkNetworkConfig:
    """Sizes of a trunk.

    Attributes:
      layers: of the Transformer; `layer_windows` is set from `window`.
      window: payments that a position sees in each layer, itself included: what a stream keeps of a card.
    """

    layers: DecoderConfig = SMALL
    window: int = 64

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ValueError(f"expected a window of 2 payments or more, got {self.window}")

    @property
    def local(self) -> DecoderConfig:
        """The layers with local attention."""
        return dataclasses.replace(self.layers, layer_windows=(self.window,) * self.layers.num_layers)


class States(NamedTuple):
    """Attributes:
    values: `[B, T, D]`, one dense vector a payment.
    cache: with the new payments' keys and values; None where none was given.
    """

    values: jax.Array
    cache: KVCache | None


class PaymentEncoder(nn.Module):
    """Payments to vectors `[..., D]`: rows of buckets and of the counterparty, and the projected numbers, summed.

    Attributes:
      config: of the Transformer that reads them.
      bucket_sizes: of each field.
      counterparty_rows: of the table of counterparties.
    """

    config: DecoderConfig
    bucket_sizes: tuple[int, ...]
    counterparty_rows: int

    def setup(self) -> None:
        c, init, axes = self.config, nn.initializers.normal(0.3), ("vocab", "embed")
        self.buckets = parameter(
            self, "bucket_embedding", init, axes, (sum(self.bucket_sizes), c.d_model), c.param_dtype
        )
        shape = (self.counterparty_rows, c.d_model)
        self.counterparties = parameter(
            self, "counterparty_embedding", nn.initializers.normal(0.1), axes, shape, c.param_dtype
        )
        self.project = nn.Dense(c.d_model, param_dtype=jnp.dtype(c.param_dtype), name="numbers")

    def __call__(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        places = batch["buckets"] + jnp.asarray(level_offsets(self.bucket_sizes), jnp.int32)
        x = jnp.sum(jnp.take(self.buckets, places, axis=0), axis=-2) + self.project(batch["numbers"])
        return (x + jnp.take(self.counterparties, batch["counterparty"], axis=0)).astype(self.config.dtype)


class PaymentTrunk(nn.Module):
    """`batch -> [B, T, D]`, for rows of payments in order of time.

    Attributes:
      config: sizes.
      bucket_sizes, counterparty_rows: of the fields.
      attention: the kernel.
    """

    config: TrunkNetworkConfig
    bucket_sizes: tuple[int, ...]
    counterparty_rows: int
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        c = self.config.local
        self.encoder = PaymentEncoder(c, self.bucket_sizes, self.counterparty_rows)
        self.transformer = Transformer(c, self.attention)
        self.dropout = nn.Dropout(c.dropout_rate)

    def __call__(
        self,
        batch: Mapping[str, jax.Array],
        mask: Mask,
        cache: KVCache | None = None,
        *,
        deterministic: bool = True,
    ) -> States:
        """Reads payments.

        Args:
          batch: "buckets" int32 `[B, T, 6]`, "numbers" float32 `[B, T, N]`, "counterparty" and "decoder_positions"
            int32 `[B, T]`.
          mask: as `Transformer` takes it.
          cache: of payments before; None: these are all.
          deterministic: no dropout.
        """
        x = self.dropout(self.encoder(batch), deterministic=deterministic)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_activation"))
        output = self.transformer(x, batch["decoder_positions"], mask, cache, deterministic=deterministic)
        return States(output.values, output.cache)

    def counterparty_table(self) -> jax.Array:
        """`[rows, D]`: how a counterparty is read, and what a state is compared with."""
        return self.encoder.counterparties


class NextPayment(nn.Module):
    """A trunk and what it foretells of the next payment: the buckets of some of its fields.

    Attributes:
      trunk: of the same sizes as the one that is kept.
      heads: name of a field -> buckets.
    """

    trunk: PaymentTrunk
    heads: tuple[tuple[str, int], ...]

    @nn.compact
    def __call__(
        self, batch: Mapping[str, jax.Array], deterministic: bool = True
    ) -> tuple[jax.Array, dict[str, jax.Array], jax.Array]:
        """Of packed rows: a query `[B, T, D]` for the counterparty's row, logits `[B, T, buckets]` of each field, and
        the table of counterparties `[rows, D]`.
        """
        mask = PackedCausal(batch["decoder_segment_ids"])
        states = self.trunk(batch, mask, deterministic=deterministic).values
        logits = {name: nn.Dense(size, name=f"{name}_head")(states).astype(jnp.float32) for name, size in self.heads}
        query = nn.Dense(states.shape[-1], name="counterparty_head")(states)
        return query.astype(jnp.float32), logits, self.trunk.counterparty_table()


class FraudOutput(NamedTuple):
    """Attributes:
    logits: float32 `[B, T]`, of fraud.
    vectors: `[B, T, D]`, what the logits were made of.
    cache: as in `States`.
    auxiliary_loss: None, as `objectives.log_loss` wants to know.
    """

    logits: jax.Array
    vectors: jax.Array
    cache: KVCache | None = None
    auxiliary_loss: None = None


class FraudHead(nn.Module):
    """A vector of each payment and what labels are known, to a logit `[B, T]`: two layers."""

    width: int
    dropout: float

    @nn.compact
    def __call__(self, vectors: jax.Array, known: jax.Array, deterministic: bool) -> jax.Array:
        x = jnp.concatenate([vectors, known.astype(vectors.dtype)], axis=-1)
        x = nn.Dropout(self.dropout)(nn.gelu(nn.Dense(self.width, name="hidden")(x)), deterministic=deterministic)
        # Frauds are few: a bias that says so from the start.
        bias = nn.initializers.constant(-4.0)
        return nn.Dense(1, bias_init=bias, name="logit")(x).astype(jnp.float32)[..., 0]


class TrunkClassifier(nn.Module):
    """A fraud head on a trunk, trained together.

    Attributes:
      trunk: what reads payments.
    """

    trunk: PaymentTrunk

    @nn.compact
    def __call__(
        self,
        batch: Mapping[str, jax.Array],
        deterministic: bool = True,
        mask: Mask | None = None,
        cache: KVCache | None = None,
    ) -> FraudOutput:
        """Logits of packed rows, or of those that a mask and a cache are given for; the batch has "known" float32
        `[B, T, 12]` besides the trunk's columns.
        """
        mask = PackedCausal(batch["decoder_segment_ids"]) if mask is None else mask
        states = self.trunk(batch, mask, cache, deterministic=deterministic)
        c = self.trunk.config.layers
        logits = FraudHead(c.d_model, c.dropout_rate, name="fraud")(states.values, batch["known"], deterministic)
        return FraudOutput(logits, states.values, states.cache)


class VectorClassifier(nn.Module):
    """A fraud classifier on sequences of vectors that are finished: a Transformer with local attention and a head.

    Attributes:
      config: sizes.
      attention: the kernel.
    """

    config: TrunkNetworkConfig
    attention: AttentionFunction = EinsumAttention()

    @nn.compact
    def __call__(
        self,
        batch: Mapping[str, jax.Array],
        deterministic: bool = True,
        mask: Mask | None = None,
        cache: KVCache | None = None,
    ) -> FraudOutput:
        """As `TrunkClassifier`, for a batch with "vectors" float `[B, T, n]`, "gap" int32 `[B, T]` (buckets of the time
        since the payment before in this sequence) and "known".
        """
        c = self.config.local
        mask = PackedCausal(batch["decoder_segment_ids"]) if mask is None else mask
        gaps = parameter(
            self, "gap_embedding", nn.initializers.normal(0.3), ("vocab", "embed"), (32, c.d_model), c.param_dtype
        )
        read = nn.Dense(c.d_model, name="read")(batch["vectors"].astype(c.dtype)) + jnp.take(gaps, batch["gap"], axis=0)
        x = nn.Dropout(c.dropout_rate)(read, deterministic=deterministic)
        output = Transformer(c, self.attention, name="layers")(
            x, batch["decoder_positions"], mask, cache, deterministic=deterministic
        )
        logits = FraudHead(c.d_model, c.dropout_rate, name="fraud")(output.values, batch["known"], deterministic)
        return FraudOutput(logits, output.values, output.cache)
