"""Attention on TPU: JAX's own Pallas kernel, which never forms the weights `[B, N, T, S]` and skips masked blocks."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas.ops.tpu import splash_attention as splash
from jax.sharding import Mesh, PartitionSpec

from plum_jax.model.attention import DenseMasks, EinsumAttention, Pieces
from plum_jax.model.config import DecoderConfig
from plum_jax.model.masks import Mask, PackedCausal

_LANES = 128  # a block's edge is a multiple of this
_LARGEST_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class SplashAttention:
    """`jax.experimental.pallas.ops.tpu.splash_attention` for packed causal rows; other masks go the way of products.

    Those others are of beam search, whose queries are few. Each device computes its own rows and heads.

    Attributes:
      mesh: of the step.
      batch_axes: mesh axes that the batch is split over.
      head_axis: mesh axis that key-value heads are split over.
      interpret: run the kernel's own Python instead of compiling it, for tests on CPU.
    """

    mesh: Mesh
    batch_axes: tuple[str, ...]
    head_axis: str
    interpret: bool = False

    def prepare(
        self, mask: Mask, positions: jax.Array, key_positions: jax.Array, config: DecoderConfig
    ) -> PackedCausal | DenseMasks:
        if isinstance(mask, PackedCausal):
            return mask
        return EinsumAttention().prepare(mask, positions, key_positions, config)

    def __call__(
        self,
        query: jax.Array,
        keys: Pieces,
        values: Pieces,
        prepared: PackedCausal | DenseMasks,
        is_local: bool | jax.Array,
        config: DecoderConfig,
    ) -> jax.Array:
        if isinstance(prepared, DenseMasks):
            return EinsumAttention()(query, keys, values, prepared, is_local, config)
        (key,), (value,) = keys, values  # packed rows are read in one call
        if not config.has_mixed_layers:
            is_local = config.local_layers[0]  # static, where the scan over layers made an array of it
        batch, length, kv_heads, groups, width = query.shape
        by_head = query.reshape(batch, length, kv_heads * groups, width).transpose(0, 2, 1, 3)
        arguments: tuple[jax.Array, ...] = (
            by_head,
            key.transpose(0, 2, 1, 3),
            value.transpose(0, 2, 1, 3),
            prepared.segment_ids,
        )
        rows, heads = PartitionSpec(self.batch_axes), PartitionSpec(self.batch_axes, self.head_axis)
        specs: tuple[PartitionSpec, ...] = (heads, heads, heads, rows)
        if isinstance(is_local, bool):
            attend = functools.partial(self._on_one_device, is_local=is_local, config=config)
        else:
            attend = functools.partial(self._chosen, config=config)
            arguments, specs = (*arguments, is_local), (*specs, PartitionSpec())
        attended = jax.shard_map(attend, mesh=self.mesh, in_specs=specs, out_specs=heads, check_vma=False)(*arguments)
        return attended.transpose(0, 2, 1, 3).reshape(query.shape)

    def _chosen(
        self, query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array, is_local: jax.Array, config: Any
    ) -> jax.Array:
        """Where layers are scanned and differ: both kernels are compiled, and each layer runs its own."""
        near, far = (functools.partial(self._on_one_device, is_local=local, config=config) for local in (True, False))
        return lax.cond(is_local, near, far, query, key, value, segments)

    def _on_one_device(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        segments: jax.Array,
        is_local: bool,
        config: DecoderConfig,
    ) -> jax.Array:
        """`[B, N, T, H]` of queries `[B, N, T, H]`, keys and values `[B, K, T, H]`, segments `[B, T]`."""
        length = query.shape[2]
        padding = -length % _LANES
        if padding:  # behind the row, in the segment of padding: causal queries never see it
            query, key, value = (jnp.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0))) for x in (query, key, value))
            segments = jnp.pad(segments, ((0, 0), (0, padding)))
        kernel = _kernel(query.shape[1], length + padding, config.window if is_local else 0, config, self.interpret)

        def row(query: jax.Array, key: jax.Array, value: jax.Array, segments: jax.Array) -> jax.Array:
            return kernel(query, key, value, segment_ids=splash.SegmentIds(q=segments, kv=segments))

        return jax.vmap(row)(query, key, value, segments)[:, :, :length]


def _kernel(num_heads: int, length: int, window: int, config: DecoderConfig, interpret: bool) -> Any:
    """The kernel of `num_heads` heads over rows of `length`; window 0: a token sees all that came before it."""
    edge = block_edge(length)
    shape = (length, length)
    mask = splash.LocalMask(shape, (window - 1, 0), 0) if window else splash.CausalMask(shape)
    return splash.make_splash_mha(
        splash.MultiHeadMask([mask] * num_heads),
        head_shards=1,
        q_seq_shards=1,
        block_sizes=splash.BlockSizes(
            block_q=edge,
            block_kv=edge,
            block_kv_compute=edge,
            block_q_dkv=edge,
            block_kv_dkv=edge,
            block_kv_dkv_compute=edge,
            use_fused_bwd_kernel=True,  # five products in the backward pass; two kernels would need seven
        ),
        attn_logits_soft_cap=config.attention_softcap,
        residual_checkpoint_name="attended",  # a remat policy that keeps it keeps the kernel's residuals too
        interpret=interpret,
    )


def block_edge(length: int) -> int:
    """The largest multiple of 128 up to 512 that divides the row (a multiple of 128 itself)."""
    return next(edge for edge in range(_LARGEST_BLOCK, 0, -_LANES) if length % edge == 0)


def computed_share(length: int, window: int) -> float:
    """Share of the scores `[T, T]` that the kernel computes: whole blocks, of which a part may be masked."""
    padded = length + -length % _LANES
    edge = block_edge(padded)
    blocks = padded // edge
    seen = sum(
        1 for q in range(blocks) for k in range(q + 1) if not window or (k + 1) * edge - 1 >= q * edge - (window - 1)
    )
    return seen * edge * edge / (length * length)
