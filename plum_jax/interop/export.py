"""Writes our decoder as a Hugging Face directory that `transformers` loads with the same logits."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from plum_jax.interop import InteropError
from plum_jax.interop.families import as_family
from plum_jax.interop.hugging_face_config import ACTIVATIONS, GEMMAS, rope_fields
from plum_jax.interop.layout import disassemble, host_params
from plum_jax.interop.safetensors_files import write_tensors
from plum_jax.model.config import DecoderConfig, DType

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}


def export_hugging_face(
    directory: str | pathlib.Path,
    config: DecoderConfig,
    params: Any,
    *,
    max_length: int = 2048,
    dtype: DType = "float32",
    special_ids: Mapping[str, Any] | None = None,
    tokenizer_files: Mapping[str, bytes] | None = None,
    shard_bytes: int = 5_000_000_000,
) -> str:
    """Writes `config.json` (last) and safetensors; the family is the one whose function the configuration is.

    What a family lacks is put into the weights where it can be: a factor on embeddings or logits (the head is then no
    longer tied), and the scale of queries. Dropout is not exported. Experts are computed without dropping.

    Args:
      directory: a local directory that is not there yet, or empty.
      config: of the decoder.
      params: its parameters.
      max_length: `max_position_embeddings`.
      dtype: of the tensors in the file: float32, float16 or bfloat16.
      special_ids: `bos_token_id` and others, for config.json.
      tokenizer_files: written beside the weights.
      shard_bytes: limit of one file.

    Returns:
      The family, as `model_type`.

    Raises:
      InteropError: no family computes what the configuration says, with the reason; or the directory is not empty.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and any(directory.iterdir()):
        raise InteropError(f"expected a directory that is not there or empty, but {directory} has files")
    family, config, params = as_family(config, host_params(params))
    vocab_size = params["embedding"].shape[0]
    fields = {
        **hugging_face_fields(family, config, vocab_size),
        **(special_ids or {}),
        "max_position_embeddings": max_length,
        "torch_dtype": str(jnp.dtype(dtype)),
    }
    tensors = disassemble(params, config, vocab_size, norm_offset=1.0 if family in GEMMAS else 0.0)
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory, tensors, np.dtype(jnp.dtype(dtype)), shard_bytes)
    for name, content in (tokenizer_files or {}).items():
        (directory / name).write_bytes(content)
    (directory / "config.json").write_text(json.dumps(fields, indent=2) + "\n")
    return family


def hugging_face_fields(family: str, config: DecoderConfig, vocab_size: int) -> dict[str, Any]:
    """The fields of `config.json`, in the names that transformers 4 and 5 both read."""
    c = config
    activation = "hidden_activation" if family in GEMMAS else "hidden_act"
    return {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": vocab_size,
        "hidden_size": c.d_model,
        "intermediate_size": c.moe.mlp_dim if c.moe is not None and family == "mixtral" else c.mlp_dim,
        "num_hidden_layers": c.num_layers,
        "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads,
        "head_dim": c.head_dim,
        activation: _activation_name(c),
        "rms_norm_eps": c.norm_epsilon,
        "tie_word_embeddings": c.tied_embeddings,
        "attention_bias": False,
        "rope_theta": c.rope_theta,
        "rope_scaling": rope_fields(c.rope_scaling),
        **_window_fields(family, c),
        **_gemma_fields(family, c),
        **_expert_fields(family, c),
    }


def _activation_name(config: DecoderConfig) -> str:
    """The name of the function, found by its values: a wrapped one has no name."""
    points = jnp.linspace(-4.0, 4.0, 9)
    for name, function in ACTIVATIONS.items():
        if np.array_equal(config.activation(points), function(points)):
            return name
    raise InteropError(
        f"activation {config.activation} has no name in transformers; there are {', '.join(ACTIVATIONS)}"
    )


def _window_fields(family: str, config: DecoderConfig) -> dict[str, Any]:
    types = ["sliding_attention" if is_local else "full_attention" for is_local in config.local_layers]
    if family in ("mistral", "mixtral"):
        return {"sliding_window": config.window or None}
    if family in GEMMAS:
        return {"sliding_window": config.window or 4096, "layer_types": types}
    if family.startswith("qwen") and config.window:
        first = config.local_layers.index(True)
        return {
            "use_sliding_window": True,
            "sliding_window": config.window,
            "max_window_layers": first,
            "layer_types": types,
        }
    return {}


def _gemma_fields(family: str, config: DecoderConfig) -> dict[str, Any]:
    if family not in GEMMAS:
        return {}
    assert config.query_scale is not None, "families.as_family sets it"
    fields: dict[str, Any] = {
        "query_pre_attn_scalar": round(config.query_scale**-2),
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.final_softcap,
    }
    if family == "gemma3_text":
        fields["rope_local_base_freq"] = config.local_rope_theta or config.rope_theta
    return fields


def _expert_fields(family: str, config: DecoderConfig) -> dict[str, Any]:
    if config.moe is None:
        return {}
    fields = {"num_experts_per_tok": config.moe.experts_per_token}
    if family == "mixtral":
        return {**fields, "num_local_experts": config.moe.num_experts}
    return {
        **fields,
        "num_experts": config.moe.num_experts,
        "moe_intermediate_size": config.moe.mlp_dim,
        "norm_topk_prob": config.moe.normalise_weights,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
