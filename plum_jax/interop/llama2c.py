"""Reads llama2.c's `.bin` files (github.com/karpathy/llama2.c): the legacy layout (version 0) and version 1."""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from plum_jax.interop import InteropError
from plum_jax.interop.source import Source
from plum_jax.interop.tokenizer_files import sentencepiece_model

_MAGIC = 0x616B3432  # "ak42"
_HEADER_OF_VERSION_1 = 256
_THETA, _EPSILON = 10_000.0, 1e-5  # constants of llama2.c
_NAMES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")


def open_llama2c(path: epath.PathLike) -> Source:
    """The model of one file.

    Raises:
      InteropError: a version that is not read, or a file that is longer or shorter than its header says.
    """
    path = epath.Path(path)
    numbers, start, legacy = _header(path)
    sizes = dict(zip(_NAMES, numbers[:7], strict=True))
    if min(abs(number) for number in sizes.values()) < 1 or sizes["dim"] % sizes["n_heads"]:
        raise InteropError(f"{path} is no llama2.c model: its header reads {sizes}")
    untied = sizes["vocab_size"] < 0 if legacy else not numbers[7]
    sizes["vocab_size"] = abs(sizes["vocab_size"])
    layout = _legacy_layout if legacy else _version_1_layout
    tensors: dict[str, Callable[[], np.ndarray]] = {}
    for name, shape in layout(sizes, untied):
        if name:
            tensors[name] = functools.partial(_read, path, start, shape, _heads(name, sizes))
        start += 4 * math.prod(shape)
    if start != path.stat().length:
        raise InteropError(f"{path}: expected {start} bytes by its header {sizes}, got {path.stat().length}")
    return Source(_fields(sizes, untied), tensors, norm_offset=0.0, tokenizer_files=_tokenizer_files(path, sizes))


def _header(path: epath.Path) -> tuple[tuple[int, ...], int, bool]:
    """The header's numbers, the offset of the weights, and whether the layout is the legacy one."""
    with path.open("rb") as file:
        head = file.read(_HEADER_OF_VERSION_1)
    if len(head) < 28:
        raise InteropError(f"{path} is no llama2.c model: {len(head)} bytes")
    magic, version = struct.unpack_from("<Ii", head)
    if magic != _MAGIC:
        return struct.unpack_from("<7i", head), 28, True
    if version != 1:
        raise InteropError(f"{path}: llama2.c version {version} is not read (0 and 1 are); export it as version 1")
    return struct.unpack_from("<7iB", head, 8), _HEADER_OF_VERSION_1, False


def _fields(sizes: dict[str, int], untied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": sizes["dim"],
        "intermediate_size": sizes["hidden_dim"],
        "num_hidden_layers": sizes["n_layers"],
        "num_attention_heads": sizes["n_heads"],
        "num_key_value_heads": sizes["n_kv_heads"],
        "vocab_size": sizes["vocab_size"],
        "max_position_embeddings": sizes["seq_len"],
        "rope_theta": _THETA,
        "rms_norm_eps": _EPSILON,
        "tie_word_embeddings": not untied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _tokenizer_files(path: epath.Path, sizes: dict[str, int]) -> dict[str, bytes]:
    """The vocabulary beside the model (`tok512.bin`, `tokenizer.bin`) as a SentencePiece model; none if not there."""
    for name in (f"tok{sizes['vocab_size']}.bin", "tokenizer.bin"):
        if (path.parent / name).exists():
            return {"tokenizer.model": _sentencepiece_of((path.parent / name).read_bytes(), sizes["vocab_size"])}
    return {}


def _sentencepiece_of(vocabulary: bytes, size: int) -> bytes:
    """llama2.c's vocabulary: the longest piece's length, then score, length and bytes of each piece."""
    pieces, scores, types = ["<unk>", "<s>", "</s>"], [0.0, 0.0, 0.0], [2, 3, 3]
    at, ids = 4, 0
    while at < len(vocabulary) and ids < size:
        score, length = struct.unpack_from("<fi", vocabulary, at)
        piece = vocabulary[at + 8 : at + 8 + length].decode()
        at, ids = at + 8 + length, ids + 1
        if ids <= 3:
            continue  # it writes <s> and </s> between line breaks
        pieces.append(piece.replace(" ", "▁"))
        scores.append(score)
        types.append(6 if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else 1)
    if ids != size:
        raise InteropError(f"llama2.c vocabulary: expected {size} pieces, got {ids}")
    return sentencepiece_model(pieces, scores, types)


Layout = Iterator[tuple[str, tuple[int, ...]]]  # name ("" for what is not read) and shape, in the file's order


def _legacy_layout(sizes: dict[str, int], untied: bool) -> Layout:
    yield _EMBEDDING, (sizes["vocab_size"], sizes["dim"])
    yield from _layers("input_layernorm", sizes)
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        yield from _layers(name, sizes)
    for name in ("post_attention_layernorm", "mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"):
        yield from _layers(name, sizes)
    yield "model.norm.weight", (sizes["dim"],)
    yield "", (2, sizes["seq_len"], sizes["dim"] // sizes["n_heads"] // 2)  # cosines and sines
    if untied:
        yield "lm_head.weight", (sizes["vocab_size"], sizes["dim"])


def _version_1_layout(sizes: dict[str, int], untied: bool) -> Layout:
    yield from _layers("input_layernorm", sizes)
    yield from _layers("post_attention_layernorm", sizes)
    yield "model.norm.weight", (sizes["dim"],)
    yield _EMBEDDING, (sizes["vocab_size"], sizes["dim"])
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        yield from _layers(name, sizes)
    for name in ("mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"):
        yield from _layers(name, sizes)
    if untied:
        yield "lm_head.weight", (sizes["vocab_size"], sizes["dim"])


_EMBEDDING = "model.embed_tokens.weight"


def _layers(name: str, sizes: dict[str, int]) -> Layout:
    """One kind of tensor of all layers, which stand behind each other."""
    dim, hidden = sizes["dim"], sizes["hidden_dim"]
    kv_dim = dim // sizes["n_heads"] * sizes["n_kv_heads"]
    shape: tuple[int, ...] = {
        "self_attn.q_proj": (dim, dim),
        "self_attn.k_proj": (kv_dim, dim),
        "self_attn.v_proj": (kv_dim, dim),
        "self_attn.o_proj": (dim, dim),
        "mlp.gate_proj": (hidden, dim),
        "mlp.down_proj": (dim, hidden),
        "mlp.up_proj": (hidden, dim),
    }.get(name, (dim,))
    for layer in range(sizes["n_layers"]):
        yield f"model.layers.{layer}.{name}.weight", shape


def _heads(name: str, sizes: dict[str, int]) -> int:
    """Heads whose rows are interleaved pairs; 0 for tensors that are not rotated."""
    if "q_proj" in name:
        return sizes["n_heads"]
    return sizes["n_kv_heads"] if "k_proj" in name else 0


def _read(path: epath.Path, start: int, shape: tuple[int, ...], heads: int) -> np.ndarray:
    with path.open("rb") as file:
        file.seek(start)
        tensor = np.frombuffer(file.read(4 * math.prod(shape)), "<f4").reshape(shape)
    return halves_from_pairs(tensor, heads) if heads else tensor


def halves_from_pairs(projection: np.ndarray, heads: int) -> np.ndarray:
    """A query or key projection `[heads * H, ...]` whose neighbours 2i, 2i + 1 are turned together (Meta's layout, also
    GGUF's for Llama) as one where i and i + H / 2 are (Hugging Face's layout and ours)."""
    pairs = projection.reshape(heads, projection.shape[0] // heads // 2, 2, *projection.shape[1:])
    return pairs.swapaxes(1, 2).reshape(projection.shape)
