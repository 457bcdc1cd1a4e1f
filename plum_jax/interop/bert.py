"""Reads a Hugging Face directory of `model_type` "bert": the encoder, without pooler and heads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax.interop import InteropError
from plum_jax.interop.hugging_face import tokenizer_files_of
from plum_jax.interop.hugging_face_config import Fields, whole_number
from plum_jax.interop.layout import Params, Part, Tensors, at, empty_tree, fill
from plum_jax.interop.safetensors_files import open_tensors
from plum_jax.model.bert import Bert, BertConfig

FAMILY = "bert"
# What one choice alone is read of. Files of before transformers 4 lack some.
_ONLY = {"position_embedding_type": "absolute", "hidden_act": "gelu", "is_decoder": False, "add_cross_attention": False}
_NOT_OF_THE_ENCODER = ("pooler.", "cls.", "classifier.", "embeddings.position_ids")
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


@dataclasses.dataclass(frozen=True)
class PretrainedBert:
    """A BERT of another program as ours.

    Attributes:
      config: of the encoder that gives the same states.
      vocab_size: V, rows of the embedding.
      params: `Bert(config, vocab_size).apply({"params": params}, ...)`, host arrays.
      special_ids: "pad_token_id", where the file names it.
      tokenizer_files: file name -> content.
    """

    config: BertConfig
    vocab_size: int
    params: Params
    special_ids: Mapping[str, Any]
    tokenizer_files: Mapping[str, bytes]


def is_bert(path: epath.PathLike) -> bool:
    """Whether this is a directory of a BERT."""
    config = epath.Path(path) / "config.json"
    return config.exists() and json.loads(config.read_text()).get("model_type") == FAMILY


def read_bert(path: epath.PathLike) -> PretrainedBert:
    """Reads an encoder: BERT's own checkpoints, sentence-transformers' or cross-encoders', whose names differ.

    Args:
      path: a directory with config.json, safetensors, and tokenizer.json.

    Raises:
      InteropError: a field that asks for another function, a tensor that is missing, superfluous or of another shape.
    """
    directory = epath.Path(path)
    fields = json.loads((directory / "config.json").read_text())
    config, vocab_size = bert_config(fields), whole_number(fields, "vocab_size")
    one = jnp.ones((1, 1), jnp.int32)
    params = empty_tree(Bert(config, vocab_size), one, one[0])
    parts = [(part, at(params, part.path)) for part in _parts(config, vocab_size)]
    fill(params, parts, _encoder(open_tensors(directory)))
    return PretrainedBert(
        config=config,
        vocab_size=vocab_size,
        params=params,
        special_ids={name: fields[name] for name in ("pad_token_id",) if fields.get(name) is not None},
        tokenizer_files=tokenizer_files_of(directory),
    )


def bert_config(fields: Fields) -> BertConfig:
    """The configuration that computes what `transformers` computes from a `config.json`.

    Raises:
      InteropError: a field asks for another function, or is missing.
    """
    for name, only in _ONLY.items():
        if fields.get(name, only) not in (only, None):
            raise InteropError(f"config.json: {name}={fields[name]!r} is not read of a BERT: expected {only!r}")
    try:
        return BertConfig(
            num_layers=whole_number(fields, "num_hidden_layers"),
            d_model=whole_number(fields, "hidden_size"),
            num_heads=whole_number(fields, "num_attention_heads"),
            mlp_dim=whole_number(fields, "intermediate_size"),
            max_length=whole_number(fields, "max_position_embeddings"),
            num_types=whole_number(fields, "type_vocab_size"),
            norm_epsilon=float(fields.get("layer_norm_eps", 1e-12)),
        )
    except ValueError as error:
        raise InteropError(f"{error}, from config.json") from None


def _encoder(tensors: Tensors) -> dict[str, Callable[[], np.ndarray]]:
    """The encoder's tensors by the names that sentence-transformers gives them."""
    found = {}
    for name, read in tensors.items():
        name = name.removeprefix("bert.")
        for old, new in _OLD_NAMES.items():
            name = name.replace(old, new)
        if not name.startswith(_NOT_OF_THE_ENCODER):
            found[name] = read
    return found


def _parts(config: BertConfig, vocab_size: int) -> list[Part]:
    d = config.d_model
    rows = {"word": vocab_size, "position": config.max_length, "token_type": config.num_types}
    tables = {"word": "embedding", "position": "position_embedding", "token_type": "type_embedding"}
    parts = [
        Part(f"embeddings.{name}_embeddings.weight", (tables[name],), (), (count, d), (0, 1), (count, d))
        for name, count in rows.items()
    ]
    parts += _norm("embeddings.LayerNorm", ("embedding_norm",), d)
    for number in range(config.num_layers):
        parts += _layer_parts(config, f"encoder.layer.{number}", ("transformer", f"layer_{number}"))
    return parts


def _layer_parts(c: BertConfig, name: str, path: tuple[str, ...]) -> list[Part]:
    d, n, h, f, everything = c.d_model, c.num_heads, c.head_dim, c.mlp_dim, slice(None)
    attention, mlp = (*path, "attention"), (*path, "mlp")
    parts = []
    for place, which in enumerate(("query", "key", "value")):
        weight, bias = (f"{name}.attention.self.{which}.{kind}" for kind in ("weight", "bias"))
        of_all = (everything, everything, place)
        parts.append(Part(weight, (*attention, "qkv"), of_all, (n, h, d), (2, 0, 1), (d, d)))
        parts.append(Part(bias, (*attention, "qkv_bias"), of_all[1:], (n, h), (0, 1), (d,)))
    return [
        *parts,
        Part(f"{name}.attention.output.dense.weight", (*attention, "out"), (), (d, n, 1, h), (1, 2, 3, 0), (d, d)),
        _vector(f"{name}.attention.output.dense.bias", (*attention, "out_bias"), d),
        *_norm(f"{name}.attention.output.LayerNorm", (*path, "attention_norm"), d),
        Part(f"{name}.intermediate.dense.weight", (*mlp, "up"), (), (f, d), (1, 0), (f, d)),
        _vector(f"{name}.intermediate.dense.bias", (*mlp, "up_bias"), f),
        Part(f"{name}.output.dense.weight", (*mlp, "down"), (), (d, f), (1, 0), (d, f)),
        _vector(f"{name}.output.dense.bias", (*mlp, "down_bias"), d),
        *_norm(f"{name}.output.LayerNorm", (*path, "mlp_norm"), d),
    ]


def _norm(name: str, path: tuple[str, ...], size: int) -> list[Part]:
    return [_vector(f"{name}.weight", (*path, "scale"), size), _vector(f"{name}.bias", (*path, "bias"), size)]


def _vector(name: str, path: tuple[str, ...], size: int) -> Part:
    return Part(name, path, (), (size,), (0,), (size,))
