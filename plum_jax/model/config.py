"""Sizes and choices of a decoder, and the letters that name dimensions everywhere in plum_jax.

B batch, T query length, S key length, D model width, N heads, K key-value heads, G = N / K heads that share a
key-value head, H head width, F MLP width, V vocabulary, L Semantic-ID levels, W codebook size, M beams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

DType = jnp.dtype | str


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A Llama-like decoder: pre-norm RMSNorm, rotary positions, grouped-query attention, gated MLP.

    Attributes:
      num_layers, d_model, num_heads, num_kv_heads, head_dim, mlp_dim: the sizes; N is a multiple of K.
      dropout_rate: on embeddings and on both residual branches (not on attention weights).
      activation: of the MLP's gate.
      tied_embeddings: the output head is the input table.
      scale_embeddings: multiply input embeddings by sqrt(D), so that a table that is a good output head (rows of
        norm 1) is a good input too (as Gemma does); off for Llama-like imported weights.
      rope_theta: base of the rotary frequencies.
      norm_epsilon: of RMSNorm.
      dtype: of activations and matrix products; softmax, norms and logits are float32 whatever it is.
      param_dtype: of the parameters.
      scan_layers: one compiled layer scanned over stacked parameters (compile time independent of depth).
      remat: recompute each layer in the backward pass instead of keeping its activations.
    """

    num_layers: int = 4
    d_model: int = 128
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32
    mlp_dim: int = 352
    dropout_rate: float = 0.0
    activation: Callable[[jax.Array], jax.Array] = jax.nn.silu
    tied_embeddings: bool = True
    scale_embeddings: bool = True
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    scan_layers: bool = True
    remat: bool = False

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"expected num_heads to be a multiple of num_kv_heads, got {self.num_heads=} {self.num_kv_heads=}"
            )
        if self.head_dim % 2:
            raise ValueError(f"expected an even head_dim (rotary positions turn pairs), got {self.head_dim=}")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ValueError(f"expected 0 <= dropout_rate < 1, got {self.dropout_rate=}")
