"""What is exported reads back as the same function; what no family computes is refused with the reason."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_families import CASES, our_logits, write_case

from plum_jax.interop.families import family_of
from plum_jax.interop.layout import empty_params
from plum_jax.interop.pretrained import InteropError, export_hugging_face, read_pretrained
from plum_jax.model.config import DecoderConfig, LinearRope, MixtureOfExperts

SMALL = DecoderConfig(num_layers=2, d_model=16, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=20)


def random_params(config):
    """Of a decoder of 29 ids; no norm is one and no bias zero."""
    noise = np.random.default_rng(1)

    def draw(leaf):
        if leaf.ndim <= 2 and leaf.shape[-1] in (config.d_model, config.head_dim) and leaf.shape[0] != 29:
            return (1 + 0.2 * noise.standard_normal(leaf.shape)).astype(np.float32)  # a norm
        return (0.3 * noise.standard_normal(leaf.shape)).astype(np.float32)

    return jax.tree.map(draw, empty_params(config, 29))


@pytest.mark.parametrize("case", CASES)
def test_import_export_import_is_the_same_model(case, tmp_path):
    first = read_pretrained(write_case(case, tmp_path / "in"))
    family = export_hugging_face(
        tmp_path / "out", first.config, first.params, max_length=64, special_ids=first.special_ids
    )
    second = read_pretrained(tmp_path / "out")
    assert family == first.family == second.family
    assert second.config == first.config
    assert (second.special_ids, second.max_length) == (first.special_ids, first.max_length)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), second.params, first.params)


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({}, "llama"),  # our default: tied and scaled embeddings, which no Llama has
        ({"tied_embeddings": False, "logits_scale": 0.5, "query_scale": 0.9}, "llama"),
        ({"query_scale": 0.3, "qkv_bias": True, "scale_embeddings": False, "scan_layers": False}, "qwen2"),
        ({"query_scale": 0.3, "qk_norm": True, "logits_scale": 3.0}, "qwen3"),
        ({"layer_windows": (0, 4), "rope_scaling": LinearRope(2.0)}, "qwen2"),  # with biases of zero
        ({"post_norms": True, "scale_embeddings": False, "query_scale": 0.3, "final_softcap": 3.0}, "gemma2"),
        ({"post_norms": True, "qk_norm": True, "layer_windows": (4, 0), "local_rope_theta": 9.0}, "gemma3_text"),
    ],
)
def test_what_a_family_lacks_goes_into_the_weights(changes, family, tmp_path):
    config = dataclasses.replace(SMALL, **changes)
    params = random_params(config)
    untouched = jax.tree.map(np.copy, params)
    assert export_hugging_face(tmp_path / "out", config, params) == family
    jax.tree.map(np.testing.assert_array_equal, params, untouched)
    read = read_pretrained(tmp_path / "out")
    np.testing.assert_allclose(our_logits(read.config, read.params), our_logits(config, params), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"qkv_bias": True, "qk_norm": True}, "qkv_bias and qk_norm together"),
        ({"branch_gates": True}, "branch_gates"),
        ({"final_softcap": 30.0}, "soft caps without post_norms"),
        ({"layer_windows": (4, 0), "local_rope_theta": 100.0}, "local_rope_theta without post_norms"),
        ({"post_norms": True, "qkv_bias": True}, "post_norms with qkv_bias"),
        ({"post_norms": True, "qk_norm": True, "attention_softcap": 50.0}, "Gemma 2 caps, Gemma 3 normalises"),
        ({"moe": MixtureOfExperts(shared_mlp_dim=8)}, "shared experts"),
        ({"moe": MixtureOfExperts(normalise_weights=False)}, "weights are not normalised"),
        ({"moe": MixtureOfExperts(), "post_norms": True}, "experts with biases, soft caps, post_norms"),
    ],
)
def test_what_no_family_computes_is_refused_with_the_reason(changes, reason):
    with pytest.raises(InteropError, match=f"no Hugging Face family of ours computes this decoder: .*{reason}"):
        family_of(dataclasses.replace(SMALL, **changes))


def test_an_activation_without_a_name_is_refused_and_nothing_is_written(tmp_path):
    config = dataclasses.replace(SMALL, activation=lambda x: jax.nn.silu(x) + 1)
    with pytest.raises(InteropError, match="has no name in transformers; there are silu"):
        export_hugging_face(tmp_path / "out", config, random_params(SMALL))
    assert not (tmp_path / "out").exists()


def test_large_models_are_sharded_and_read_back_in_the_asked_dtype(tmp_path):
    params = random_params(SMALL)
    config = dataclasses.replace(SMALL, scale_embeddings=False)
    tokenizer = {"tokenizer.json": b"{}"}
    export_hugging_face(tmp_path / "out", config, params, dtype="bfloat16", shard_bytes=3000, tokenizer_files=tokenizer)
    files = sorted(path.name for path in (tmp_path / "out").glob("model-*"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert files == sorted(set(index["weight_map"].values())) and len(files) > 2
    assert max((tmp_path / "out" / file).stat().st_size for file in files) < 4000  # with its header
    read = read_pretrained(tmp_path / "out", param_dtype="bfloat16")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(jnp.bfloat16)), read.params, params)
    assert read.tokenizer_files == tokenizer
    with pytest.raises(InteropError, match="expected a directory that is not there or empty"):
        export_hugging_face(tmp_path / "out", config, params)


def test_exported_experts_are_computed_without_dropping(tmp_path):
    moe = MixtureOfExperts(num_experts=4, experts_per_token=2, mlp_dim=8, dispatch="dropless")
    config = dataclasses.replace(SMALL, moe=moe, mlp_dim=8, scale_embeddings=False)
    params = random_params(config)
    export_hugging_face(tmp_path / "out", config, params)
    read = read_pretrained(tmp_path / "out")
    assert read.config == config
    np.testing.assert_allclose(our_logits(read.config, read.params), our_logits(config, params), atol=1e-5)
