"""A Hugging Face `config.json` as a DecoderConfig: what the families differ in, and what is refused.

The other readers (llama2.c, GGUF) bring their headers into the same fields, so that there is one meaning for each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from plum_jax.interop import InteropError
from plum_jax.model.config import DecoderConfig, LinearRope, Llama3Rope, MixtureOfExperts

Fields = Mapping[str, Any]

_gelu_exact = functools.partial(jax.nn.gelu, approximate=False)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "gelu_pytorch_tanh": jax.nn.gelu,
    "gelu_new": jax.nn.gelu,
    "gelu": _gelu_exact,
    "relu": jax.nn.relu,
}

_GEMMA_DEFAULTS = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "tie_word_embeddings": True,
}
# What `transformers` takes where a family's config.json says nothing (Gemma 3's says little).
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 4096, "num_key_value_heads": 8},
    "qwen2": {"max_window_layers": 28, "sliding_window": 4096},
    "qwen3": {"max_window_layers": 28, "sliding_window": 4096, "head_dim": 128},
    "mixtral": {"sliding_window": None, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 128, "num_experts_per_tok": 8, "norm_topk_prob": False, "decoder_sparse_step": 1},
    "gemma2": {
        **_GEMMA_DEFAULTS,
        "vocab_size": 256_000,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **_GEMMA_DEFAULTS,
        "vocab_size": 262_208,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
}
GEMMAS = ("gemma2", "gemma3_text")
# Fields that change the function and must be absent, null, false or 0: the decoder has no such part.
_MUST_BE_OFF = ("attention_bias", "mlp_bias", "use_bidirectional_attention", "quantization_config")


def text_fields(config: Fields) -> dict[str, Any]:
    """The fields of the language model, with its family's defaults: a multimodal Gemma 3 keeps them in `text_config`.

    Raises:
      InteropError: a `model_type` that is not read.
    """
    if config.get("model_type") == "gemma3":
        config = {"model_type": "gemma3_text", **config["text_config"]}
    family = config.get("model_type")
    if family not in DEFAULTS:
        raise InteropError(
            f"config.json: model_type={family!r} is not read; there are {', '.join(DEFAULTS)}, and gemma3's text part "
            "(a BERT writes nothing: encoders of text alone begin with one)"
        )
    return {**DEFAULTS[family], **config}


def decoder_config(fields: Fields, **ours: Any) -> DecoderConfig:
    """The configuration that computes what `transformers` computes from `text_fields`.

    Args:
      fields: of `text_fields`.
      **ours: what no config.json says: `dtype`, `param_dtype`, `scan_layers`.

    Raises:
      InteropError: a field asks for what the decoder does not have, or is missing.
    """
    family = fields["model_type"]
    _refuse_what_we_lack(fields)
    heads, width = whole_number(fields, "num_attention_heads"), whole_number(fields, "hidden_size")
    is_gemma = family in GEMMAS
    windows = _layer_windows(fields)
    theta, local_theta, scaling = _rotary(fields)
    return DecoderConfig(
        num_layers=whole_number(fields, "num_hidden_layers"),
        d_model=width,
        num_heads=heads,
        num_kv_heads=fields.get("num_key_value_heads") or heads,
        head_dim=fields.get("head_dim") or width // heads,
        mlp_dim=whole_number(fields, "intermediate_size"),
        activation=_activation(fields),
        tied_embeddings=bool(fields.get("tie_word_embeddings", False)),
        scale_embeddings=is_gemma,
        rope_theta=theta,
        local_rope_theta=local_theta,
        rope_scaling=scaling,
        norm_epsilon=float(fields.get("rms_norm_eps", 1e-6)),
        qkv_bias=family == "qwen2",
        qk_norm=family in ("qwen3", "qwen3_moe", "gemma3_text"),
        layer_windows=windows,
        attention_softcap=fields.get("attn_logit_softcapping") if family == "gemma2" else None,
        final_softcap=fields.get("final_logit_softcapping") if is_gemma else None,
        query_scale=fields["query_pre_attn_scalar"] ** -0.5 if is_gemma else None,
        post_norms=is_gemma,
        moe=_experts(fields),
        **ours,
    )


def _refuse_what_we_lack(fields: Fields) -> None:
    for name in _MUST_BE_OFF:
        if fields.get(name):
            raise _refusal(fields, name)
    if fields["model_type"] == "gemma3_text" and fields.get("attn_logit_softcapping"):
        raise _refusal(fields, "attn_logit_softcapping")
    if fields["model_type"] == "qwen3_moe" and (fields["decoder_sparse_step"] != 1 or fields.get("mlp_only_layers")):
        raise _refusal(fields, "mlp_only_layers" if fields.get("mlp_only_layers") else "decoder_sparse_step")
    if fields.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise _refusal(fields, "partial_rotary_factor")


def _refusal(fields: Fields, name: str) -> InteropError:
    return InteropError(
        f"config.json: {name}={fields[name]!r} asks for a part that the decoder does not have ({fields['model_type']})"
    )


def whole_number(fields: Fields, name: str) -> int:
    """A size that the file must have."""
    if not isinstance(fields.get(name), int):
        raise InteropError(f"config.json: expected a whole number as {name}, got {fields.get(name)!r}")
    return int(fields[name])


def _activation(fields: Fields) -> Callable[[jax.Array], jax.Array]:
    name = fields.get("hidden_activation") or fields.get("hidden_act", "silu")
    if name not in ACTIVATIONS:
        raise InteropError(f"config.json: activation {name!r} is not read; there are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _experts(fields: Fields) -> MixtureOfExperts | None:
    """Dropless, as `transformers` computes them."""
    if fields["model_type"] == "mixtral":
        return MixtureOfExperts(
            num_experts=whole_number(fields, "num_local_experts"),
            experts_per_token=whole_number(fields, "num_experts_per_tok"),
            mlp_dim=whole_number(fields, "intermediate_size"),
            dispatch="dropless",
        )
    if fields["model_type"] == "qwen3_moe":
        name = "num_local_experts" if "num_local_experts" in fields else "num_experts"  # transformers 5 and 4
        return MixtureOfExperts(
            num_experts=whole_number(fields, name),
            experts_per_token=whole_number(fields, "num_experts_per_tok"),
            mlp_dim=whole_number(fields, "moe_intermediate_size"),
            normalise_weights=bool(fields["norm_topk_prob"]),
            dispatch="dropless",
        )
    return None


def _layer_windows(fields: Fields) -> tuple[int, ...]:
    """One window a layer, 0 for layers that attend to everything; () where no layer has one."""
    family, window, layers = (
        fields["model_type"],
        fields.get("sliding_window"),
        whole_number(fields, "num_hidden_layers"),
    )
    if family == "llama" or not window or (family.startswith("qwen") and not fields.get("use_sliding_window")):
        return ()
    if family in ("mistral", "mixtral"):
        return (window,) * layers
    types = fields.get("layer_types")
    if types is None:
        types = ["sliding_attention" if _slides(fields, layer) else "full_attention" for layer in range(layers)]
    if len(types) != layers or set(types) - {"sliding_attention", "full_attention"}:
        raise InteropError(f"config.json: expected {layers} layer_types, sliding_attention or full_attention: {types}")
    windows = tuple(window if kind == "sliding_attention" else 0 for kind in types)
    return windows if any(windows) else ()


def _slides(fields: Fields, layer: int) -> bool:
    """Whether a layer has a window where the file does not list them."""
    if fields["model_type"].startswith("qwen"):
        return layer >= fields["max_window_layers"]
    every = 2 if fields["model_type"] == "gemma2" else fields["sliding_window_pattern"]
    return bool((layer + 1) % every)


def _rotary(fields: Fields) -> tuple[float, float | None, LinearRope | Llama3Rope | None]:
    """Theta of global layers, theta of windowed layers (None: the same) and the scaling of global layers.

    Files of transformers 4 have `rope_theta`, `rope_scaling` and `rope_local_base_freq`; those of 5 `rope_parameters`,
    for Gemma 3 by kind of layer.
    """
    parameters = fields.get("rope_parameters") or {}
    by_kind = "full_attention" in parameters or "sliding_attention" in parameters
    mixed = {"rope_theta": fields.get("rope_theta"), **(fields.get("rope_scaling") or {})}
    rope = {**mixed, **((parameters.get("full_attention") or {}) if by_kind else parameters)}
    theta, scaling = float(rope.get("rope_theta") or 10_000.0), _rope_scaling(rope)
    if fields["model_type"] != "gemma3_text":
        return theta, None, scaling
    local = {"rope_theta": fields["rope_local_base_freq"], **(parameters.get("sliding_attention") or {})}
    local_theta, local_scaling = float(local["rope_theta"]), _rope_scaling(local)
    if (local_theta, local_scaling) == (theta, scaling):
        return theta, None, scaling
    if local_scaling is not None:
        raise InteropError(f"config.json: rope_parameters.sliding_attention={local!r}: only global layers are scaled")
    return theta, local_theta, scaling


def _rope_scaling(rope: Fields) -> LinearRope | Llama3Rope | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise InteropError(f"config.json: partial_rotary_factor={rope['partial_rotary_factor']!r} is not read")
    if kind not in ("default", "linear", "llama3"):
        raise InteropError(f"config.json: rope type {kind!r} is not read; there are default, linear and llama3")
    try:
        if kind == "linear":
            return LinearRope(float(rope["factor"]))
        if kind == "llama3":
            return Llama3Rope(
                factor=float(rope["factor"]),
                low_freq_factor=float(rope["low_freq_factor"]),
                high_freq_factor=float(rope["high_freq_factor"]),
                original_length=int(rope["original_max_position_embeddings"]),
            )
    except KeyError as error:
        raise InteropError(f"config.json: the rope of type {kind!r} lacks {error}: {dict(rope)}") from None
    return None


def rope_fields(scaling: LinearRope | Llama3Rope | None) -> dict[str, Any] | None:
    """Hugging Face's `rope_scaling` of one of ours; the reverse of what a configuration's is read by."""
    match scaling:
        case LinearRope(factor=factor):
            return {"rope_type": "linear", "factor": factor}
        case Llama3Rope():
            return {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_freq_factor,
                "high_freq_factor": scaling.high_freq_factor,
                "original_max_position_embeddings": scaling.original_length,
            }
    return None
