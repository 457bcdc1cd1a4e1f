"""Reads GGUF files (llama.cpp's), quantised or not: the architectures llama, qwen2, qwen3 and gemma2."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from etils import epath

from plum_jax.interop import InteropError
from plum_jax.interop.hugging_face_config import rope_fields
from plum_jax.interop.layout import Tensors
from plum_jax.interop.llama2c import halves_from_pairs
from plum_jax.interop.source import Source
from plum_jax.interop.tokenizer_files import byte_level_tokenizer, sentencepiece_model
from plum_jax.model.config import DecoderConfig, Llama3Rope
from plum_jax.model.rotary import rotary_frequencies

_ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2")
# Behind "<architecture>." in the file -> field of config.json.
_FIELDS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "context_length": "max_position_embeddings",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
# Behind "blk.<i>." in the file -> behind "model.layers.<i>.".
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GEMMA_LAYER = {
    **_LAYER,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GEMMA2_27B_LAYERS = 46  # the one Gemma 2 whose queries are not scaled by H^-1/2; llama.cpp knows it by its depth
# Llama 3.1 and 3.2: the published scalings, of which the file has only the factor of each frequency.
_LLAMA3_SCALINGS = (Llama3Rope(8.0, 1.0, 4.0, 8192), Llama3Rope(32.0, 1.0, 4.0, 8192))


def open_gguf(path: epath.PathLike) -> Source:
    """The model and the tokenizer of one file; each tensor is dequantised when it is read.

    Raises:
      InteropError: the package `gguf` is missing, an architecture or rope scaling that is not read.
    """
    try:
        import gguf
    except ImportError:
        raise InteropError("reading GGUF needs the package gguf: pip install 'plum_jax[gguf]'") from None
    reader = gguf.GGUFReader(str(path))
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    architecture = metadata["general.architecture"]
    if architecture not in _ARCHITECTURES:
        raise InteropError(f"{path}: architecture {architecture!r} is not read; there are {', '.join(_ARCHITECTURES)}")
    readers = {
        tensor.name: functools.partial(_dequantised, gguf.quants.dequantize, tensor) for tensor in reader.tensors
    }
    fields = _fields(metadata, architecture, readers)
    rope_factors = readers.pop("rope_freqs.weight", None)
    if rope_factors is not None:
        fields["rope_scaling"] = _llama3_scaling(rope_factors(), fields)
    return Source(
        fields=fields,
        tensors=_renamed(readers, architecture, fields),
        norm_offset=0.0,  # llama.cpp's converter has added Gemma's 1
        tokenizer_files=_tokenizer_files(metadata),
    )


def _dequantised(dequantize: Callable[..., np.ndarray], tensor: Any) -> np.ndarray:
    return dequantize(tensor.data, tensor.tensor_type).reshape([int(size) for size in reversed(tensor.shape)])


def _fields(metadata: dict[str, Any], architecture: str, tensors: Tensors) -> dict[str, Any]:
    """The file's metadata as fields of a config.json."""
    fields: dict[str, Any] = {"model_type": architecture, "tie_word_embeddings": "output.weight" not in tensors}
    for theirs, ours in _FIELDS.items():
        if f"{architecture}.{theirs}" in metadata:
            fields[ours] = metadata[f"{architecture}.{theirs}"]
    if architecture == "llama" and fields.get("sliding_window"):
        fields["model_type"] = "mistral"
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none":
        fields["rope_scaling"] = {
            "rope_type": scaling,
            "factor": metadata.get(f"{architecture}.rope.scaling.factor", 1.0),
        }
    if architecture == "gemma2":
        fields["hidden_activation"] = "gelu_pytorch_tanh"
        is_27b = fields["num_hidden_layers"] == _GEMMA2_27B_LAYERS
        per_head = fields["hidden_size"] // fields["num_attention_heads"]
        fields["query_pre_attn_scalar"] = per_head if is_27b else fields["head_dim"]
    for theirs, ours in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "unk")):
        fields[f"{ours}_token_id"] = metadata.get(f"tokenizer.ggml.{theirs}_token_id")
    fields["vocab_size"] = len(metadata["tokenizer.ggml.tokens"])
    return fields


def _renamed(tensors: Tensors, architecture: str, fields: dict[str, Any]) -> Tensors:
    """Hugging Face's names, and its order of the rows of queries and keys; other names stay and are refused later."""
    layer_names = _GEMMA_LAYER if architecture == "gemma2" else _LAYER
    heads = {"attn_q": fields["num_attention_heads"], "attn_k": fields.get("num_key_value_heads")}
    renamed = {}
    for name, read in tensors.items():
        if name in _OUTER:
            name = _OUTER[name]
        elif name.startswith("blk."):
            _, layer, kind, last = name.split(".", 3)
            if architecture == "llama" and kind in heads:
                read = functools.partial(_unpaired, read, heads[kind] or fields["num_attention_heads"])
            name = f"model.layers.{layer}.{layer_names.get(kind, kind)}.{last}"
        renamed[name] = read
    return renamed


def _unpaired(read: Callable[[], np.ndarray], heads: int) -> np.ndarray:
    return halves_from_pairs(read(), heads)


def _llama3_scaling(factors: np.ndarray, fields: dict[str, Any]) -> dict[str, Any] | None:
    """The published scaling that divides the frequencies by these factors."""
    head_dim = fields.get("head_dim") or fields["hidden_size"] // fields["num_attention_heads"]
    plain = DecoderConfig(head_dim=head_dim, rope_theta=fields.get("rope_theta", 10_000.0))
    for rope in _LLAMA3_SCALINGS:
        scaled = DecoderConfig(head_dim=head_dim, rope_theta=plain.rope_theta, rope_scaling=rope)
        if np.allclose(rotary_frequencies(plain) / rotary_frequencies(scaled), factors, rtol=1e-4):
            return rope_fields(rope)
    raise InteropError(f"rope_freqs.weight is not the scaling of Llama 3.1 or 3.2: {factors}")


def _tokenizer_files(metadata: dict[str, Any]) -> dict[str, bytes]:
    """The tokenizer as a file of its own kind; none where the kind is not known."""
    kind, pieces = metadata.get("tokenizer.ggml.model"), metadata["tokenizer.ggml.tokens"]
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(pieces)
    if kind == "gpt2":
        made = byte_level_tokenizer(
            pieces, metadata["tokenizer.ggml.merges"], types, metadata.get("tokenizer.ggml.pre", "default")
        )
        return {} if made is None else {"tokenizer.json": made}
    if kind == "llama":
        return {
            "tokenizer.model": sentencepiece_model(
                pieces, metadata["tokenizer.ggml.scores"], types, metadata.get("tokenizer.ggml.add_space_prefix", True)
            )
        }
    return {}
