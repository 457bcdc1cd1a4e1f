"""The door for language models of other programs: in from Hugging Face, llama2.c and GGUF, out to Hugging Face."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from plum_jax.interop import InteropError
from plum_jax.interop.export import export_hugging_face
from plum_jax.interop.gguf_files import open_gguf
from plum_jax.interop.hugging_face import open_hugging_face
from plum_jax.interop.hugging_face_config import decoder_config, whole_number
from plum_jax.interop.layout import Params, assemble
from plum_jax.interop.llama2c import open_llama2c
from plum_jax.interop.source import Source
from plum_jax.model.config import DecoderConfig, DType

__all__ = ["InteropError", "Pretrained", "export_hugging_face", "read_decoder_config", "read_pretrained"]

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A language model of another program as ours.

    Attributes:
      config: of the decoder that computes the same logits.
      vocab_size: V, rows of the embedding.
      params: the decoder's parameters, host arrays: `Decoder(config, vocab_size).apply({"params": params}, ...)`.
      family: Hugging Face's `model_type`.
      special_ids: those of `bos_token_id`, `eos_token_id`, `pad_token_id`, `unk_token_id` that the file names (an id,
        or a list of them).
      max_length: tokens that the model was made for; None: not said.
      tokenizer_files: file name -> content: `tokenizer.json` (Hugging Face's tokenizers) or `tokenizer.model`
        (SentencePiece), and what stands beside them.
    """

    config: DecoderConfig
    vocab_size: int
    params: Params
    family: str
    special_ids: Mapping[str, Any]
    max_length: int | None
    tokenizer_files: Mapping[str, bytes]


def read_pretrained(
    path: epath.PathLike,
    *,
    scan_layers: bool = True,
    dtype: DType = "float32",
    param_dtype: DType = "float32",
) -> Pretrained:
    """Reads a language model; memory stays near one copy of the parameters.

    Args:
      path: a Hugging Face directory (config.json and safetensors), a `.gguf` file, or a llama2.c `.bin` file, which may
        have its tokenizer (`tok*.bin`) beside it.
      scan_layers, dtype, param_dtype: as in DecoderConfig. The rest of the configuration follows from the file; dropout
        and remat can be set on it afterwards.

    Raises:
      InteropError: an unknown family or field value, a tensor that is missing, superfluous or of another shape.
    """
    source = _open(epath.Path(path))
    config = decoder_config(source.fields, scan_layers=scan_layers, dtype=dtype, param_dtype=param_dtype)
    vocab_size = whole_number(source.fields, "vocab_size")
    return Pretrained(
        config=config,
        vocab_size=vocab_size,
        params=assemble(source.tensors, config, vocab_size, source.norm_offset),
        family=source.fields["model_type"],
        special_ids={name: source.fields[name] for name in SPECIAL_IDS if source.fields.get(name) is not None},
        max_length=source.fields.get("max_position_embeddings"),
        tokenizer_files=source.tokenizer_files,
    )


def read_decoder_config(path: epath.PathLike) -> DecoderConfig:
    """The configuration that `read_pretrained` has, without reading a weight."""
    return decoder_config(_open(epath.Path(path)).fields)


def _open(path: epath.Path) -> Source:
    if path.is_dir():
        return open_hugging_face(path)
    if not path.exists():
        raise InteropError(
            f"expected a Hugging Face directory, a .gguf or a llama2.c .bin file at {path}: nothing there"
        )
    if path.suffix == ".gguf":
        return open_gguf(path)
    if path.suffix == ".bin":
        return open_llama2c(path)
    raise InteropError(f"{path}: expected a Hugging Face directory, a .gguf or a llama2.c .bin file")
