"""Reads Hugging Face directories: `config.json`, safetensors weights, tokenizer files."""

from __future__ import annotations

import json

from etils import epath

from plum_jax.interop import InteropError
from plum_jax.interop.hugging_face_config import GEMMAS, text_fields
from plum_jax.interop.layout import Tensors
from plum_jax.interop.safetensors_files import open_tensors
from plum_jax.interop.source import Source

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
# Before the text model's own names in multimodal files, by the version of transformers that wrote them.
_TEXT_PREFIXES = {
    "language_model.model.": "model.",
    "model.language_model.": "model.",
    "language_model.lm_head.": "lm_head.",
}
_NOT_TEXT = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")
_BUFFER = ".rotary_emb.inv_freq"  # old Llama files keep the frequencies; ours follow from the configuration


def open_hugging_face(directory: epath.PathLike) -> Source:
    """The language model in a directory; of a multimodal Gemma 3 its text part.

    Raises:
      InteropError: files are missing, or the family is not one of ours.
    """
    directory = epath.Path(directory)
    if not (directory / "config.json").exists():
        raise InteropError(f"expected config.json in {directory}, a directory as Hugging Face's hub has it")
    config = json.loads((directory / "config.json").read_text())
    fields = text_fields(config)
    tensors = open_tensors(directory)
    return Source(
        fields=fields,
        tensors=_text_tensors(tensors) if "text_config" in config else _without_buffers(tensors),
        norm_offset=1.0 if fields["model_type"] in GEMMAS else 0.0,
        tokenizer_files=tokenizer_files_of(directory),
    )


def tokenizer_files_of(directory: epath.Path) -> dict[str, bytes]:
    """What of a tokenizer's files is there, by name."""
    return {name: (directory / name).read_bytes() for name in TOKENIZER_FILES if (directory / name).exists()}


def _without_buffers(tensors: Tensors) -> Tensors:
    return {name: read for name, read in tensors.items() if not name.endswith(_BUFFER)}


def _text_tensors(tensors: Tensors) -> Tensors:
    text = {}
    for name, read in tensors.items():
        if name.startswith(_NOT_TEXT):
            continue
        for prefix, ours in _TEXT_PREFIXES.items():
            if name.startswith(prefix):
                name = ours + name.removeprefix(prefix)
                break
        text[name] = read
    return text
