"""Parameters of T5X's `examples/decoder_only`, where our decoder computes the same.

That decoder has a relative position bias and no rotary positions. Softmax does not see what is added to all keys alike,
so a table whose rows are constant says nothing of positions, as zeros do; ours is then a decoder whose positions are
all divided by a number so large that nothing turns. A table that tells distances apart is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from plum_jax.interop.layout import assemble
from plum_jax.interop.t5x.installed import T5xError
from plum_jax.model.config import DecoderConfig, LinearRope

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "relu": jax.nn.relu,
}
_NOWHERE = 1e30  # positions are divided by it
_BIAS = "decoder/relpos_bias/rel_embedding"
# Theirs -> Hugging Face's name, in a layer; kernels are [in, out].
_OF_LAYER = {
    "pre_self_attention_layer_norm/scale": "input_layernorm.weight",
    "self_attention/query/kernel": "self_attn.q_proj.weight",
    "self_attention/key/kernel": "self_attn.k_proj.weight",
    "self_attention/value/kernel": "self_attn.v_proj.weight",
    "self_attention/out/kernel": "self_attn.o_proj.weight",
    "pre_mlp_layer_norm/scale": "post_attention_layernorm.weight",
    "mlp/wi_0/kernel": "mlp.gate_proj.weight",
    "mlp/wi_1/kernel": "mlp.up_proj.weight",
    "mlp/wo/kernel": "mlp.down_proj.weight",
}


def from_decoder_only(
    params: Any, activation: str = "gelu", num_heads: int | None = None, scan_layers: bool = True
) -> tuple[DecoderConfig, int, dict[str, Any]]:
    """Configuration, rows of the table and parameters (host arrays) of ours.

    Args:
      params: `read_checkpoint(path).params`.
      activation: of the MLP's gate, the first of `mlp_activations`, which the parameters do not tell.
      num_heads: N, which only the bias tells; None: its rows.
      scan_layers: as in `DecoderConfig`.

    Raises:
      T5xError: names what our decoder has not, or what is missing.
    """
    if activation not in ACTIVATIONS:
        raise T5xError(f"expected activation to be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    flat = {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep="/").items()}
    layers = {name.split("/")[1] for name in flat if name.startswith("decoder/layers_")}
    if not layers or "decoder/token_embedder/embedding" not in flat:
        raise T5xError(
            "expected parameters decoder/layers_<i> and decoder/token_embedder as examples/decoder_only has them, got "
            f"{', '.join(sorted(flat)[:4])}"
        )
    _refuse(flat, len(layers))
    first = "decoder/layers_0/"
    d_model, width = flat[f"{first}self_attention/query/kernel"].shape
    heads = num_heads or (flat[_BIAS].shape[0] if _BIAS in flat else None)
    if heads is None or width % heads:
        raise T5xError(f"expected num_heads, a divisor of {width}, for a checkpoint without relpos_bias, got {heads}")
    tied = "decoder/logits_dense/kernel" not in flat
    config = DecoderConfig(
        num_layers=len(layers),
        d_model=d_model,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        mlp_dim=flat[f"{first}mlp/wo/kernel"].shape[0],
        activation=ACTIVATIONS[activation],
        tied_embeddings=tied,
        scale_embeddings=False,
        rope_scaling=LinearRope(_NOWHERE),
        query_scale=1.0,
        logits_scale=d_model**-0.5 if tied else 1.0,
        scan_layers=scan_layers,
    )
    vocab_size = flat["decoder/token_embedder/embedding"].shape[0]
    return config, vocab_size, assemble(_tensors(flat, len(layers)), config, vocab_size)


def _refuse(flat: Mapping[str, np.ndarray], num_layers: int) -> None:
    """What our decoder has not."""
    bias = flat.get(_BIAS)
    if bias is not None and not np.all(bias == bias[:, :1]):
        raise T5xError(
            "the checkpoint has a relative position bias (decoder/relpos_bias) that depends on the distance; our "
            "decoder has rotary positions and no bias, so it cannot compute the same"
        )
    known = {f"decoder/layers_{i}/{name}" for i in range(num_layers) for name in _OF_LAYER}
    known |= {_BIAS, "decoder/token_embedder/embedding", "decoder/decoder_norm/scale", "decoder/logits_dense/kernel"}
    other = sorted({*flat} - known)
    for name in other:
        if "/mlp/wi/" in name or name.endswith("/mlp/wi"):
            raise T5xError(f"the checkpoint has an MLP without a gate ({name.removesuffix('/kernel')}); ours is gated")
    if other:
        raise T5xError(f"our decoder has nothing for {', '.join(other[:4])}: another architecture?")


def _tensors(flat: Mapping[str, np.ndarray], num_layers: int) -> dict[str, Callable[[], np.ndarray]]:
    """Under Hugging Face's names, as `interop.layout` reads them: [out, in]."""
    named = {
        "model.embed_tokens.weight": flat["decoder/token_embedder/embedding"],
        "model.norm.weight": flat.get("decoder/decoder_norm/scale"),
    }
    if "decoder/logits_dense/kernel" in flat:
        named["lm_head.weight"] = flat["decoder/logits_dense/kernel"].T
    for i in range(num_layers):
        for theirs, name in _OF_LAYER.items():
            tensor = flat.get(f"decoder/layers_{i}/{theirs}")
            named[f"model.layers.{i}.{name}"] = None if tensor is None else tensor.T
    return {name: functools.partial(np.asarray, tensor) for name, tensor in named.items() if tensor is not None}
