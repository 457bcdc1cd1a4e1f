"""What a mesh's devices compute attention and the loss with."""

from __future__ import annotations

from typing import Any

from jax.sharding import Mesh

from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.blockwise_attention import BlockwiseAttention
from plum_jax.model.gpu_attention import FusedAttention
from plum_jax.objectives.cross_entropy import ChunkedCrossEntropy
from plum_jax.training.mesh import BATCH_AXES, is_tpu


def attention_on(mesh: Mesh) -> AttentionFunction:
    """JAX's Pallas kernel on TPU, cuDNN's on GPU, blocks of queries on CPU, products over whole rows elsewhere."""
    platform = mesh.devices.flat[0].platform
    if platform == "cpu":
        return BlockwiseAttention()
    if platform == "gpu":
        return FusedAttention()
    if not is_tpu(mesh):
        return EinsumAttention()
    from plum_jax.model.splash_attention import SplashAttention  # Pallas takes a second to import

    return SplashAttention(mesh, BATCH_AXES, "tensor")


def with_attention_on(network: Any, mesh: Mesh) -> Any:
    """A Linen module with the kernel of the mesh's devices, where it has attention at all."""
    return network.clone(attention=attention_on(mesh)) if hasattr(network, "attention") else network


def loss_on(mesh: Mesh) -> ChunkedCrossEntropy | None:
    """By chunks on TPU; elsewhere all logits at once, which a CPU's few rows allow."""
    return ChunkedCrossEntropy(mesh, BATCH_AXES, ("fsdp", "expert"), "tensor") if is_tpu(mesh) else None
