"""Which Hugging Face family computes a decoder's function, and the parameters as that family wants them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from plum_jax.interop import InteropError
from plum_jax.interop.hugging_face_config import GEMMAS
from plum_jax.interop.layout import Params
from plum_jax.model.config import DecoderConfig


def as_family(config: DecoderConfig, params: Params) -> tuple[str, DecoderConfig, Params]:
    """The family, and configuration and parameters with the same function in that family's terms.

    Args:
      config: of the decoder.
      params: host arrays; not changed.

    Raises:
      InteropError: no family has that function, with the reason.
    """
    family = family_of(config)
    params = _copied_tree(params)
    config = _without_query_scale(family, config, params)
    config = _with_scales_in_tables(family, config, params)
    if family == "qwen2" and not config.qkv_bias:
        config = _with_zero_biases(config, params)
    return family, config, params


def family_of(config: DecoderConfig) -> str:
    """The `model_type` whose function this is, up to factors that weights can take.

    Raises:
      InteropError: none, with the reason.
    """
    c = config
    softcaps = c.attention_softcap is not None or c.final_softcap is not None
    own_theta = c.local_rope_theta is not None and c.local_rope_theta != c.rope_theta and bool(c.window)
    if c.branch_gates:
        raise _no_family("branch_gates")
    if c.qkv_bias and c.qk_norm:
        raise _no_family("qkv_bias and qk_norm together")
    if c.moe is not None:
        return _expert_family(c, softcaps or own_theta)
    if c.post_norms:
        return _gemma_family(c, own_theta)
    if softcaps:
        raise _no_family("soft caps without post_norms (Gemma 2 has both)")
    if own_theta:
        raise _no_family("local_rope_theta without post_norms and qk_norm (Gemma 3 has all three)")
    if c.qk_norm:
        return "qwen3"
    if c.qkv_bias or c.has_mixed_layers:
        return "qwen2"
    return "mistral" if c.window else "llama"


def _gemma_family(c: DecoderConfig, own_theta: bool) -> str:
    if c.qkv_bias:
        raise _no_family("post_norms with qkv_bias")
    if not c.qk_norm:
        if own_theta:
            raise _no_family("local_rope_theta with post_norms but without qk_norm (Gemma 3 has all three)")
        return "gemma2"
    if c.attention_softcap is not None:
        raise _no_family("attention_softcap with qk_norm (Gemma 2 caps, Gemma 3 normalises)")
    if c.window and c.rope_scaling is not None and c.local_rope_theta is None:
        raise _no_family("rope_scaling of windowed layers (Gemma 3 scales the others; set local_rope_theta)")
    return "gemma3_text"


def _expert_family(c: DecoderConfig, has_gemma_parts: bool) -> str:
    assert c.moe is not None
    if c.moe.shared_mlp_dim:
        raise _no_family("shared experts (Qwen 2 MoE's have a gate of their own, DeepSeek's come with its attention)")
    if has_gemma_parts or c.post_norms or c.qkv_bias or c.has_mixed_layers:
        raise _no_family("experts with biases, soft caps, post_norms or windows in some layers")
    if c.qk_norm:
        if c.window:
            raise _no_family("experts with qk_norm and windows")
        return "qwen3_moe"
    if not c.moe.normalise_weights:
        raise _no_family("experts whose weights are not normalised (Mixtral normalises them)")
    return "mixtral"


def _no_family(reason: str) -> InteropError:
    return InteropError(f"no Hugging Face family of ours computes this decoder: {reason}")


def _copied_tree(tree: Any) -> Any:
    """The same arrays in new dictionaries."""
    return {name: _copied_tree(child) for name, child in tree.items()} if isinstance(tree, dict) else tree


def _without_query_scale(family: str, config: DecoderConfig, params: Params) -> DecoderConfig:
    """Puts into the weights what the family's own scale of queries lacks; Gemma's is a whole number to the -1/2."""
    h = config.head_dim
    scale = h**-0.5 if config.query_scale is None else config.query_scale
    scalar = scale**-2
    own = round(scalar) if family in GEMMAS and round(scalar) > 0 and math.isclose(scalar, round(scalar)) else h
    factor = scale * own**0.5
    if not math.isclose(factor, 1.0, rel_tol=1e-6):
        _multiply_queries(config, params, factor)
    return dataclasses.replace(config, query_scale=own**-0.5 if family in GEMMAS else None)


def _multiply_queries(config: DecoderConfig, params: Params, factor: float) -> None:
    stacks = ["layers"] if config.scan_layers else [f"layer_{layer}" for layer in range(config.num_layers)]
    for stack in stacks:
        attention = params["transformer"][stack]["attention"]
        if config.qk_norm:
            attention["query_norm"] = attention["query_norm"] * np.float32(factor)
            continue
        groups = config.num_heads // config.num_kv_heads
        by_place = np.ones((groups + 2, 1), np.float32)
        by_place[:groups] = factor
        for name in ("qkv", "qkv_bias") if config.qkv_bias else ("qkv",):
            attention[name] = attention[name] * by_place


def _with_scales_in_tables(family: str, config: DecoderConfig, params: Params) -> DecoderConfig:
    """Embeddings and head with the factors that the family does not apply itself; unties them where it must."""
    family_scales = family in GEMMAS
    if config.scale_embeddings == family_scales and config.logits_scale == 1.0:
        return config
    head = params["embedding"] if config.tied_embeddings else params["head"]
    if config.logits_scale != 1.0:
        head = head * np.float32(config.logits_scale)
    if config.scale_embeddings != family_scales:
        root = np.float32(config.d_model**0.5)
        params["embedding"] = params["embedding"] * (1 / root if family_scales else root)
    params["head"] = head
    return dataclasses.replace(config, tied_embeddings=False, scale_embeddings=family_scales, logits_scale=1.0)


def _with_zero_biases(config: DecoderConfig, params: Params) -> DecoderConfig:
    """Qwen 2 is the family with windows in some layers; its biases are zero then."""
    groups = config.num_heads // config.num_kv_heads
    for layer in range(config.num_layers):
        stack = params["transformer"]["layers" if config.scan_layers else f"layer_{layer}"]
        shape = (config.num_kv_heads, groups + 2, config.head_dim)
        stacked = (config.num_layers, *shape) if config.scan_layers else shape
        stack["attention"]["qkv_bias"] = np.zeros(stacked, np.float32)
    return dataclasses.replace(config, qkv_bias=True)
