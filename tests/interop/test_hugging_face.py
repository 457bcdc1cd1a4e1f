"""Directories of every Hugging Face family give the logits of `transformers`, and what we lack is refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_families import CASES, case_tensors, expected, our_logits, write_case
from safetensors.numpy import save_file

from plum_jax.interop.hugging_face import open_hugging_face
from plum_jax.interop.hugging_face_config import decoder_config
from plum_jax.interop.pretrained import InteropError, read_pretrained


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case, tmp_path):
    read = read_pretrained(write_case(case, tmp_path))
    np.testing.assert_allclose(our_logits(read.config, read.params), expected(case)["logits"], atol=1e-4, rtol=1e-5)
    assert read.vocab_size == 29 and read.max_length == 64
    assert read.special_ids == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def test_layers_that_are_not_stacked_hold_the_same(tmp_path):
    directory = write_case("gemma3", tmp_path)
    stacked = read_pretrained(directory).params["transformer"]
    apart = read_pretrained(directory, scan_layers=False)
    for layer in range(apart.config.num_layers):
        one = jax.tree.map(lambda a, i=layer: a[i], stacked["layers"])
        jax.tree.map(np.testing.assert_array_equal, apart.params["transformer"][f"layer_{layer}"], one)
    np.testing.assert_allclose(our_logits(apart.config, apart.params), expected("gemma3")["logits"], atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_are_read_exactly_and_in_the_asked_dtype(dtype, tmp_path):
    half = {name: tensor.astype(jnp.dtype(dtype)) for name, tensor in case_tensors("llama").items()}
    directory = write_case("llama", tmp_path, half)
    name = "model.layers.1.mlp.down_proj.weight"
    in_float32 = read_pretrained(directory).params["transformer"]["layers"]["mlp"]["down"][1]
    assert in_float32.dtype == np.float32
    np.testing.assert_array_equal(in_float32, half[name].T.astype(np.float32))
    kept = read_pretrained(directory, param_dtype=dtype).params["transformer"]["layers"]["mlp"]["down"][1]
    assert kept.dtype == half[name].dtype
    np.testing.assert_array_equal(kept, half[name].T)


def test_shards_are_one_model(tmp_path):
    whole = read_pretrained(write_case("qwen2", tmp_path / "whole"))
    directory = write_case("qwen2", tmp_path / "sharded")
    (directory / "model.safetensors").unlink()
    tensors = case_tensors("qwen2")
    names = sorted(tensors)
    files = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, held in files.items():
        save_file({name: tensors[name] for name in held}, directory / file)
    index = {"weight_map": {name: file for file, held in files.items() for name in held}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    jax.tree.map(np.testing.assert_array_equal, read_pretrained(directory).params, whole.params)

    index["weight_map"]["model.extra.weight"] = "model-00002-of-00002.safetensors"
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InteropError, match="its shards differ in model.extra.weight"):
        read_pretrained(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InteropError, match="model-00002-of-00002.safetensors, which is not in"):
        read_pretrained(directory)


@pytest.mark.parametrize(
    ("before", "text", "vision"),
    [
        ("language_model.model.", "language_model.model.", "vision_tower.encoder.weight"),
        ("model.", "model.language_model.", "model.multi_modal_projector.mm_input_projection_weight"),
    ],
)
def test_the_text_part_of_a_multimodal_gemma_is_read_and_its_vision_left(before, text, vision, tmp_path):
    text_config = expected("gemma3")["config"]
    tensors = {name.replace("model.", text, 1): tensor for name, tensor in case_tensors("gemma3").items()}
    tensors[vision] = np.ones(3, np.float32)
    write_case("gemma3", tmp_path / "both", tensors)
    (tmp_path / "both" / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text_config}))
    alone = read_pretrained(write_case("gemma3", tmp_path / "alone"))
    both = read_pretrained(tmp_path / "both")
    assert both.config == alone.config and both.family == "gemma3_text"
    jax.tree.map(np.testing.assert_array_equal, both.params, alone.params)


def test_fields_of_transformers_4_mean_the_same(tmp_path):
    new = read_pretrained(write_case("gemma3", tmp_path))
    config = {k: v for k, v in expected("gemma3")["config"].items() if k not in ("rope_parameters", "layer_types")}
    old = {"rope_theta": 50.0, "rope_local_base_freq": 10.0, "rope_scaling": {"type": "linear", "factor": 3.0}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **old, "sliding_window_pattern": 6}))
    assert read_pretrained(tmp_path).config == new.config
    new = read_pretrained(write_case("llama3", tmp_path / "llama"))
    scaling = dict(expected("llama3")["config"]["rope_parameters"])
    theta = scaling.pop("rope_theta")
    write_case("llama3", tmp_path / "llama", rope_parameters=None, rope_theta=theta, rope_scaling=scaling)
    assert read_pretrained(tmp_path / "llama").config == new.config


def test_what_a_short_config_leaves_out_is_what_transformers_takes(tmp_path):
    config = {"hidden_size": 16, "num_hidden_layers": 3, "sliding_window": 8, "vocab_size": 29, "intermediate_size": 8}
    tensors = {"model.embed_tokens.weight": np.ones((29, 16), np.float32)}
    write_case("gemma3", tmp_path, tensors)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": config}))

    decoder = decoder_config(open_hugging_face(tmp_path).fields)
    assert (decoder.num_heads, decoder.num_kv_heads, decoder.head_dim) == (8, 4, 256)
    assert (decoder.rope_theta, decoder.local_rope_theta) == (1_000_000.0, 10_000.0)
    assert decoder.layer_windows == (8, 8, 8) and decoder.tied_embeddings and decoder.query_scale == 1 / 16


@pytest.mark.parametrize(
    ("case", "fields", "message"),
    [
        ("llama", {"attention_bias": True}, "attention_bias=True asks for a part"),
        ("llama", {"mlp_bias": True}, "mlp_bias=True"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config="),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope type 'yarn' is not read"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "rope of type 'linear' lacks 'factor'"),
        ("llama", {"vocab_size": None}, "expected a whole number as vocab_size, got None"),
        ("llama", {"hidden_act": "mish"}, "activation 'mish' is not read; there are silu"),
        ("llama", {"model_type": "gpt2"}, "model_type='gpt2' is not read; there are llama"),
        ("llama", {"hidden_size": None}, "expected a whole number as hidden_size, got None"),
        ("qwen3_moe", {"mlp_only_layers": [0]}, r"mlp_only_layers=\[0\]"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ("gemma3", {"layer_types": ["chunked_attention"] * 6}, "expected 6 layer_types, sliding_attention or full"),
    ],
)
def test_what_the_decoder_lacks_is_refused_by_name(case, fields, message, tmp_path):
    with pytest.raises(InteropError, match=message):
        read_pretrained(write_case(case, tmp_path, **fields))


def test_every_tensor_is_used_and_every_parameter_set(tmp_path):
    tensors = case_tensors("llama")
    bias = {"model.layers.0.self_attn.o_proj.bias": np.zeros(16, np.float32)}
    with pytest.raises(InteropError, match="self_attn.o_proj.bias, which nothing in the model takes"):
        read_pretrained(write_case("llama", tmp_path, {**tensors, **bias}))
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(2, np.float32)}
    read_pretrained(write_case("llama", tmp_path, {**tensors, **buffer}))
    without = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp.up" not in name}
    with pytest.raises(InteropError, match="lacks model.layers.1.mlp.up_proj.weight"):
        read_pretrained(write_case("llama", tmp_path, without))
    with pytest.raises(InteropError, match=r"embed_tokens.weight: expected shape \(30, 16\) by the config.*\(29, 16\)"):
        read_pretrained(write_case("llama", tmp_path, vocab_size=30))


def test_a_head_beside_tied_embeddings_must_be_the_embeddings(tmp_path):
    tensors = case_tensors("llama3")
    head = tensors["model.embed_tokens.weight"]
    read_pretrained(write_case("llama3", tmp_path, {**tensors, "lm_head.weight": head}))
    with pytest.raises(InteropError, match="tie_word_embeddings=true, but lm_head.weight differs"):
        read_pretrained(write_case("llama3", tmp_path, {**tensors, "lm_head.weight": head + 1}))


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(InteropError, match="nothing there"):
        read_pretrained(tmp_path / "nowhere")
    with pytest.raises(InteropError, match="expected config.json in"):
        read_pretrained(tmp_path)
    directory = write_case("llama", tmp_path)
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InteropError, match="model.safetensors is not a complete safetensors file"):
        read_pretrained(directory)
    weights.unlink()
    with pytest.raises(InteropError, match="expected model.safetensors or model.safetensors.index.json"):
        read_pretrained(directory)


def test_tokenizer_files_come_along(tmp_path):
    directory = write_case("llama", tmp_path)
    shutil.copy(directory / "config.json", directory / "tokenizer.json")
    (directory / "README.md").write_text("not a tokenizer")
    assert read_pretrained(directory).tokenizer_files == {"tokenizer.json": (directory / "config.json").read_bytes()}
