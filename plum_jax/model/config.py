"""Sizes and choices of a decoder, and the letters that name dimensions everywhere in plum_jax.

B batch, T query length, S key length, D model width, N heads, K key-value heads, G = N / K heads that share a
key-value head, H head width, F MLP width, E experts, C capacity of an expert, V vocabulary, L Semantic-ID levels,
W codebook size, M beams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp

DType = jnp.dtype | str
RematPolicy = Literal["none", "full", "save_dots", "save_attention"]
Dispatch = Literal["capacity", "dropless"]


@dataclasses.dataclass(frozen=True)
class LinearRope:
    """Positions divided by `factor` (position interpolation, arXiv 2306.15595; Gemma 3's global layers)."""

    factor: float


@dataclasses.dataclass(frozen=True)
class Llama3Rope:
    """Llama 3.1's rotary scaling: slow frequencies are divided by `factor`, fast ones kept, those between mixed.

    Attributes:
      factor: of the slow frequencies.
      low_freq_factor, high_freq_factor: a wave longer than original_length / low is slow, shorter than
        original_length / high is fast.
      original_length: context of the pre-training, in tokens.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int


@dataclasses.dataclass(frozen=True)
class MixtureOfExperts:
    """Experts in place of every layer's MLP (Switch, arXiv 2101.03961; GShard, arXiv 2006.16668).

    Attributes:
      num_experts: E.
      experts_per_token: experts that a token is sent to, the best by the router's softmax.
      mlp_dim: F of one expert.
      shared_mlp_dim: F of an expert that every token goes through besides (DeepSeekMoE, arXiv 2401.06066); 0: none.
      dispatch: "capacity" gives each expert a fixed number of places in each sequence, and what comes above is dropped
        (it goes on by the residual stream alone); "dropless" computes everything. Inference is always dropless.
      capacity_factor: places of an expert, as a multiple of those in an even distribution; only for "capacity".
      normalise_weights: divide the chosen experts' probabilities by their sum (Mixtral), or use them as they are
        (Switch, DeepSeekMoE).
    """

    num_experts: int = 8
    experts_per_token: int = 2
    mlp_dim: int = 352
    shared_mlp_dim: int = 0
    dispatch: Dispatch = "capacity"
    capacity_factor: float = 1.25
    normalise_weights: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.experts_per_token <= self.num_experts:
            raise ValueError(
                f"expected 1 <= experts_per_token <= num_experts, got {self.experts_per_token=} {self.num_experts=}"
            )
        if self.dispatch not in get_args(Dispatch):
            raise ValueError(f"expected dispatch to be one of {get_args(Dispatch)}, got {self.dispatch!r}")
        if self.capacity_factor <= 0:
            raise ValueError(f"expected a positive capacity_factor, got {self.capacity_factor=}")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A small branch beside every layer's MLP, scale * [activation(Z W1 + b1) W2 + b2], for tuning it alone (the
    option-adapter of M6-Rec, arXiv 2205.08084). W2 and b2 begin at 0: at first the layer is what it was.

    Attributes:
      rank: r, width of the branch.
      scale: the paper's lambda; fixed.
    """

    rank: int = 16
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"expected an adapter's rank of at least 1, got {self.rank}")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and a gated MLP or experts.

    The defaults are Llama's; the other fields are what Mistral, Qwen 2 and 3, Gemma 2 and 3 differ in.

    Attributes:
      num_layers, d_model, num_heads, num_kv_heads, head_dim, mlp_dim: the sizes; N is a multiple of K. `mlp_dim` is not
        used where there are experts.
      dropout_rate: on embeddings and on both residual branches (not on attention weights).
      activation: of the MLP's gate.
      tied_embeddings: the output head is the input table.
      embedding_std: of the first rows of table and head; None: D^-1/2, rows of norm 1. Where tokens are items, many of
        them rare, a smaller one (.02) keeps rows that are seldom trained from being noise.
      scale_embeddings: multiply input embeddings by sqrt(D), so that a table that is a good output head (rows of
        norm 1) is a good input too (as Gemma does); off for Llama-like imported weights.
      rope_theta: base of the rotary frequencies.
      norm_epsilon: of RMSNorm.
      dtype: of activations and matrix products; softmax, norms, routing and logits are float32 whatever it is.
      param_dtype: of the parameters.
      scan_layers: one compiled layer scanned over stacked parameters (compile time independent of depth).
      remat: what the backward pass finds kept of a layer: "none" recomputes nothing, "full" everything (only the
        layer's input is kept), "save_dots" keeps the projections' outputs, "save_attention" those of attention alone.
      qkv_bias: biases of queries, keys and values (Qwen 2).
      qk_norm: RMSNorm over H of queries and keys before the rotation (Qwen 3, Gemma 3).
      layer_windows: () or one number a layer: how many tokens its queries see, themselves included; 0: all. All windows
        that are not 0 are equal (Mistral; Gemma 2 and 3 alternate).
      local_rope_theta: base of the rotary frequencies in layers with a window, which no scaling touches (Gemma 3);
        None: as in the others.
      rope_scaling: of the frequencies for longer contexts.
      attention_softcap, final_softcap: cap * tanh(x / cap) of attention scores and logits (Gemma 2).
      query_scale: multiplier of queries; None: H^-1/2.
      post_norms: RMSNorm also after attention and after the MLP (Gemma 2 and 3).
      branch_gates: each branch is multiplied by sigmoid(W x + b) of the stream x that it is added to (LiGR, arXiv
        2502.03417, section 4.3; eSASRec's layers).
      logits_scale: multiplier of the logits (muP's output multiplier, arXiv 2203.03466).
      moe: experts in place of the MLP.
      adapter: beside the MLP or the experts; None: none.
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
    embedding_std: float | None = None
    scale_embeddings: bool = True
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    dtype: DType = "float32"
    param_dtype: DType = "float32"
    scan_layers: bool = True
    remat: RematPolicy = "none"
    qkv_bias: bool = False
    qk_norm: bool = False
    layer_windows: tuple[int, ...] = ()
    local_rope_theta: float | None = None
    rope_scaling: LinearRope | Llama3Rope | None = None
    attention_softcap: float | None = None
    final_softcap: float | None = None
    query_scale: float | None = None
    post_norms: bool = False
    branch_gates: bool = False
    logits_scale: float = 1.0
    moe: MixtureOfExperts | None = None
    adapter: Adapter | None = None

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"expected num_heads to be a multiple of num_kv_heads, got {self.num_heads=} {self.num_kv_heads=}"
            )
        if self.head_dim % 2:
            raise ValueError(f"expected an even head_dim (rotary positions turn pairs), got {self.head_dim=}")
        if not 0.0 <= self.dropout_rate < 1.0:
            raise ValueError(f"expected 0 <= dropout_rate < 1, got {self.dropout_rate=}")
        if self.remat not in get_args(RematPolicy):
            raise ValueError(f"expected remat to be one of {get_args(RematPolicy)}, got {self.remat!r}")
        windows = self.layer_windows
        if windows and (len(windows) != self.num_layers or min(windows) < 0 or len({*windows} - {0}) > 1):
            raise ValueError(
                f"expected layer_windows to be empty or {self.num_layers} numbers, each 0 or one window, got {windows}"
            )

    @property
    def window(self) -> int:
        """Tokens that the layers with a window see; 0 where no layer has one."""
        return max(self.layer_windows, default=0)

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """Which layers have a window."""
        return tuple(bool(window) for window in self.layer_windows or (0,) * self.num_layers)

    @property
    def has_mixed_layers(self) -> bool:
        """Whether some layers have a window and others see everything."""
        return len(set(self.local_layers)) > 1
