"""Oracle: the loss by chunks, on a mesh, gives the sums and gradients of all logits at once on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.cross_entropy import ChunkedCrossEntropy
from plum_jax.objectives.next_token import NextToken, NextTokenLoss
from plum_jax.training.mesh import BATCH_AXES, MeshShape, logical_axes

CONFIG = DecoderConfig(num_layers=1, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=16)


@pytest.mark.parametrize(
    ("config", "vocab_size", "smoothing", "mesh"),
    [
        (CONFIG, 24, 0.0, MeshShape(data=2, fsdp=2, tensor=2)),
        (
            DecoderConfig(**{**vars(CONFIG), "tied_embeddings": False, "final_softcap": 3.0, "logits_scale": 0.5}),
            25,  # not to be split over `tensor`
            0.1,
            MeshShape(data=1, fsdp=2, expert=2, tensor=2),
        ),
    ],
)
def test_by_chunks_equals_all_logits_at_once(config, vocab_size, smoothing, mesh):
    built = mesh.build()
    tokens = jax.random.randint(jax.random.key(0), (8, 6), 0, vocab_size)
    batch = {
        "decoder_input_tokens": jnp.roll(tokens, 1, axis=1),
        "decoder_target_tokens": tokens,
        "decoder_loss_weights": jax.random.uniform(jax.random.key(1), (8, 6)),
        "decoder_segment_ids": jnp.ones((8, 6), jnp.int32),
        "decoder_positions": jnp.tile(jnp.arange(6), (8, 1)),
    }
    decoder = Decoder(config, vocab_size)
    params = jax.jit(decoder.init)(jax.random.key(2), tokens, tokens, jnp.ones((8, 6, 6), bool))["params"]
    params = jax.tree.map(
        lambda x: x.unbox() if hasattr(x, "unbox") else x, params, is_leaf=lambda x: hasattr(x, "unbox")
    )
    chunked = ChunkedCrossEntropy(built, BATCH_AXES, ("fsdp", "expert"), "tensor", chunk=5)

    def run(head):
        def loss(params):
            total, weight, metrics = NextTokenLoss(decoder, NextToken(smoothing), head)(params, batch, None)
            return total / weight, metrics

        with logical_axes(built):
            return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    (expected, expected_metrics), expected_gradients = run(None)
    (got, metrics), gradients = run(chunked)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    for name in ("cross_entropy", "accuracy"):
        np.testing.assert_allclose(metrics[name][0], expected_metrics[name][0], rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients, expected_gradients)
