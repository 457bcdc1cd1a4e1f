"""Where each tensor of a Hugging Face file stands in our parameters: one table, read in both directions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.interop import InteropError
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder

Params = dict[str, Any]
Tensors = Mapping[str, Callable[[], np.ndarray]]  # name -> what reads that tensor

_ALL = slice(None)


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor of a file: `parameter[place] = tensor.reshape(split).transpose(axes) + offset`.

    Attributes:
      name: of the tensor in the file.
      path: of the parameter, in a layer or (outside the layers) in the whole tree.
      place: what of the parameter it is.
      split: the tensor's shape with its axes split into K, G and H.
      axes: order of `split`'s axes in ours.
      merged: the tensor's shape in the file.
      offset: what the file's value lacks: Gemma's norms multiply by 1 + w.
    """

    name: str
    path: tuple[str, ...]
    place: tuple[Any, ...]
    split: tuple[int, ...]
    axes: tuple[int, ...]
    merged: tuple[int, ...]
    offset: float = 0.0

    def into_ours(self, tensor: np.ndarray) -> np.ndarray:
        if tensor.shape != self.merged:
            raise InteropError(f"tensor {self.name}: expected shape {self.merged} by the configuration, {tensor.shape}")
        ours = tensor.reshape(self.split).transpose(self.axes)
        return ours.astype(np.float32) + np.float32(self.offset) if self.offset else ours

    def from_ours(self, parameter: np.ndarray) -> np.ndarray:
        part = parameter[self.place]
        if self.offset:
            part = part.astype(np.float32) - np.float32(self.offset)
        return part.transpose(np.argsort(self.axes)).reshape(self.merged)


def layer_parts(config: DecoderConfig, norm_offset: float = 0.0) -> list[Part]:
    """The tensors of one layer, named as behind `model.layers.<i>.`."""
    c = config
    norm = functools.partial(_vector, size=c.d_model, offset=norm_offset)
    parts = [norm("input_layernorm.weight", ("attention_norm", "scale")), *_attention_parts(c, norm_offset)]
    if c.post_norms:
        parts += [
            norm("post_attention_layernorm.weight", ("attention_post_norm", "scale")),
            norm("pre_feedforward_layernorm.weight", ("mlp_norm", "scale")),
            norm("post_feedforward_layernorm.weight", ("mlp_post_norm", "scale")),
        ]
    else:
        parts.append(norm("post_attention_layernorm.weight", ("mlp_norm", "scale")))
    return parts + (_mlp_parts(c) if c.moe is None else _expert_parts(c))


def _vector(name: str, path: tuple[str, ...], size: int, offset: float = 0.0) -> Part:
    return Part(name, path, (_ALL,), (size,), (0,), (size,), offset)


def _attention_parts(c: DecoderConfig, norm_offset: float) -> list[Part]:
    d, k, h = c.d_model, c.num_kv_heads, c.head_dim
    g = c.num_heads // k
    places = {"q": slice(0, g), "k": g, "v": g + 1}
    parts = []
    for letter, place in places.items():
        split = (k, g, h) if letter == "q" else (k, h)
        width, last = math.prod(split), len(split)
        weight, bias = f"self_attn.{letter}_proj.weight", f"self_attn.{letter}_proj.bias"
        axes = (last, *range(last))
        parts.append(Part(weight, ("attention", "qkv"), (_ALL, _ALL, place), (*split, d), axes, (width, d)))
        if c.qkv_bias:
            parts.append(Part(bias, ("attention", "qkv_bias"), (_ALL, place), split, tuple(range(last)), (width,)))
    parts.append(Part("self_attn.o_proj.weight", ("attention", "out"), (), (d, k, g, h), (1, 2, 3, 0), (d, k * g * h)))
    if c.qk_norm:
        parts += [
            _vector("self_attn.q_norm.weight", ("attention", "query_norm"), h, norm_offset),
            _vector("self_attn.k_norm.weight", ("attention", "key_norm"), h, norm_offset),
        ]
    return parts


def _mlp_parts(c: DecoderConfig) -> list[Part]:
    d, f = c.d_model, c.mlp_dim
    return [
        Part("mlp.gate_proj.weight", ("mlp", "gate_up"), (_ALL, 0), (f, d), (1, 0), (f, d)),
        Part("mlp.up_proj.weight", ("mlp", "gate_up"), (_ALL, 1), (f, d), (1, 0), (f, d)),
        Part("mlp.down_proj.weight", ("mlp", "down"), (), (d, f), (1, 0), (d, f)),
    ]


def _expert_parts(c: DecoderConfig) -> list[Part]:
    """Mixtral's names, or Qwen 3's where queries and keys are normalised."""
    assert c.moe is not None
    d, e, f = c.d_model, c.moe.num_experts, c.moe.mlp_dim
    block, gate, up, down = ("mlp", "gate_proj", "up_proj", "down_proj")
    if not c.qk_norm:
        block, gate, up, down = ("block_sparse_moe", "w1", "w3", "w2")
    parts = [Part(f"{block}.gate.weight", ("moe", "router"), (), (e, d), (1, 0), (e, d))]
    for i in range(e):
        expert = f"{block}.experts.{i}"
        parts += [
            Part(f"{expert}.{gate}.weight", ("moe", "gate_up"), (i, _ALL, 0), (f, d), (1, 0), (f, d)),
            Part(f"{expert}.{up}.weight", ("moe", "gate_up"), (i, _ALL, 1), (f, d), (1, 0), (f, d)),
            Part(f"{expert}.{down}.weight", ("moe", "down"), (i,), (d, f), (1, 0), (d, f)),
        ]
    return parts


def outer_parts(config: DecoderConfig, vocab_size: int, norm_offset: float = 0.0) -> list[Part]:
    """The tensors outside the layers: embedding, head and final norm."""
    v, d = vocab_size, config.d_model
    parts = [Part("model.embed_tokens.weight", ("embedding",), (), (v, d), (0, 1), (v, d))]
    if not config.tied_embeddings:
        parts.append(Part("lm_head.weight", ("head",), (), (v, d), (0, 1), (v, d)))
    return [*parts, _vector("model.norm.weight", ("transformer", "final_norm", "scale"), d, norm_offset)]


def _all_parts(config: DecoderConfig, vocab_size: int, norm_offset: float) -> list[tuple[Part, int | None]]:
    """Every tensor of a file with its layer (None: outside the layers); the names are the file's."""
    parts: list[tuple[Part, int | None]] = [(part, None) for part in outer_parts(config, vocab_size, norm_offset)]
    for layer in range(config.num_layers):
        for part in layer_parts(config, norm_offset):
            parts.append((dataclasses.replace(part, name=f"model.layers.{layer}.{part.name}"), layer))
    return parts


def assemble(tensors: Tensors, config: DecoderConfig, vocab_size: int, norm_offset: float = 0.0) -> Params:
    """Our parameters (host arrays of `param_dtype`) of a file's tensors, each read once; one tensor at a time besides.

    Raises:
      InteropError: a tensor is missing, has another shape, or belongs to nothing of ours.
    """
    parts = _all_parts(config, vocab_size, norm_offset)
    if config.tied_embeddings and {"lm_head.weight", parts[0][0].name} <= {*tensors}:
        _check_tied(tensors)
        tensors = {name: read for name, read in tensors.items() if name != "lm_head.weight"}
    params = empty_params(config, vocab_size)
    fill(params, [(part, parameter(params, config, part.path, layer)) for part, layer in parts], tensors)
    return params


def fill(params: Params, parts: Sequence[tuple[Part, np.ndarray]], tensors: Tensors) -> None:
    """Reads each tensor of a file once into the parameter that it is a part of.

    Args:
      params: uninitialised.
      parts: all that they consist of, each with its parameter, a view into `params`.
      tensors: of the file.

    Raises:
      InteropError: a tensor is missing, has another shape, or belongs to nothing of ours.
    """
    missing = [part.name for part, _ in parts if part.name not in tensors]
    if missing:
        raise InteropError(f"the file lacks {_list(missing)}, which the configuration asks for")
    unused = sorted(set(tensors) - {part.name for part, _ in parts})
    if unused:
        raise InteropError(f"the file has {_list(unused)}, which nothing in the model takes: another architecture?")
    for part, into in parts:
        into[part.place] = part.into_ours(tensors[part.name]())
    filled, size = sum(math.prod(part.merged) for part, _ in parts), sum(leaf.size for leaf in jax.tree.leaves(params))
    assert filled == size, f"the table fills {filled} of {size} parameters: it lacks a parameter of the model"


def disassemble(
    params: Params, config: DecoderConfig, vocab_size: int, norm_offset: float = 0.0
) -> dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]]:
    """The tensors of a file, by name: shape, and what makes the array of our parameters."""
    return {
        part.name: (part.merged, functools.partial(part.from_ours, parameter(params, config, part.path, layer)))
        for part, layer in _all_parts(config, vocab_size, norm_offset)
    }


def parameter(params: Params, config: DecoderConfig, path: tuple[str, ...], layer: int | None) -> np.ndarray:
    """The parameter at `path`, of one layer (a view, whether layers are stacked or not) or outside the layers."""
    if layer is None:
        return at(params, path)
    if config.scan_layers:
        return at(params, ("transformer", "layers", *path))[layer]
    return at(params, ("transformer", f"layer_{layer}", *path))


def at(params: Params, path: tuple[str, ...]) -> np.ndarray:
    """The parameter at a path of names."""
    tree: Any = params
    for name in path:
        tree = tree[name]
    return tree


def empty_params(config: DecoderConfig, vocab_size: int) -> Params:
    """The decoder's tree of uninitialised host arrays."""
    one = jnp.zeros((1, 1), jnp.int32)
    return empty_tree(Decoder(config, vocab_size), one, one, jnp.ones((1, 1, 1), bool))


def empty_tree(module: nn.Module, *arguments: Any) -> Params:
    """A module's tree of uninitialised host arrays, by what it is called with."""
    shapes = jax.eval_shape(lambda key: module.init(key, *arguments), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), nn.meta.unbox(shapes["params"]))


def host_params(params: Any) -> Params:
    """Parameters as host arrays without logical axes."""
    return jax.tree.map(np.asarray, nn.meta.unbox(params))


def _check_tied(tensors: Tensors) -> None:
    if not np.array_equal(tensors["lm_head.weight"](), tensors["model.embed_tokens.weight"]()):
        raise InteropError(
            "config.json has tie_word_embeddings=true, but lm_head.weight differs from model.embed_tokens.weight: "
            "set it to false to read both"
        )


def _list(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
