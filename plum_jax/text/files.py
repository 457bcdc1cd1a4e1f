"""The text side from files: a SentencePiece model or a `tokenizer.json`, one's own or a pre-trained model's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.text.sentence_piece import SentencePieceText
from plum_jax.text.special_ids import SpecialIds, VocabularyError
from plum_jax.text.tokenizer_json import TokenizerJsonText, parse, token_names, unknown_id

SENTENCEPIECE_FILES = (SentencePieceText.FILE, "tokenizer.model", "spiece.model")
# Beside a tokenizer.json: which of its tokens end, begin and fill a text. What stands first is believed.
_NAMING_FILES = ("tokenizer_config.json", "special_tokens_map.json")
# Where nothing names them: what published tokenizers call them, a text's end before a turn's. "<s>" may be a piece of
# text as well (it is in Qwen's), so these are looked for among the tokens that are marked as special.
_USUAL_NAMES = {
    "eos": ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<|eot_id|>", "[SEP]"),
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "[CLS]"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
}
TextPieces = SentencePieceText | TokenizerJsonText


def read_text(path: epath.PathLike, rows: int | None = None) -> TextPieces:
    """The text side from a `.model`, a `tokenizer.json`, or a directory that has one of them (the latter goes first).

    Special tokens of a `tokenizer.json` are named by `tokenizer_config.json` or `special_tokens_map.json` beside it,
    else they are found by their usual names.

    Raises:
      VocabularyError: no such file, or one that cannot be read.
    """
    path = epath.Path(path)
    names = (TokenizerJsonText.FILE, *SENTENCEPIECE_FILES)
    if path.is_dir():
        files = {name: path / name for name in (*names, *_NAMING_FILES)}
    elif path.suffix == ".json":
        files = {TokenizerJsonText.FILE: path, **{name: path.parent / name for name in _NAMING_FILES}}
    else:
        files = {SENTENCEPIECE_FILES[0]: path}
    contents = {name: file.read_bytes() for name, file in files.items() if file.exists()}
    if not contents.keys() & set(names):
        raise VocabularyError(
            f"expected a SentencePiece .model, a tokenizer.json or a directory with {', '.join(names)} at {path}, "
            "but there is no such file"
        )
    return text_from_files(contents, rows=rows)


def text_from_files(
    files: Mapping[str, bytes], *, rows: int | None = None, named_ids: Mapping[str, Any] | None = None
) -> TextPieces:
    """The text side from files by name, as a pre-trained model brings them.

    Args:
      files: `tokenizer.json` or a SentencePiece model, and what stands beside it.
      rows: of the model's table.
      named_ids: "eos_token_id" and so on -> an id or a list of them, as in a model's `config.json`; used for the tokens
        that no file names.

    Raises:
      VocabularyError: no text model among the files, or one that cannot be read.
    """
    if TokenizerJsonText.FILE in files:
        special = _special_ids(files, named_ids or {}, rows)
        return TokenizerJsonText(files[TokenizerJsonText.FILE], special, rows)
    for name in SENTENCEPIECE_FILES:
        if name in files:
            return SentencePieceText(files[name], rows)
    raise VocabularyError(f"expected tokenizer.json or one of {SENTENCEPIECE_FILES}, got {sorted(files) or 'no file'}")


def text_from_description(description: Mapping[str, Any], model: bytes) -> TextPieces:
    """What `description()` and the model's bytes make again."""
    if description["file"] == TokenizerJsonText.FILE:
        return TokenizerJsonText(model, SpecialIds(**description["special_ids"]), description["rows"])
    return SentencePieceText(model, description["rows"])


def text_fingerprint(text: TextPieces) -> str:
    """Hash of everything that decides a text's ids."""
    return artifact.fingerprint(text.model, text.description())


def _special_ids(files: Mapping[str, bytes], named_ids: Mapping[str, Any], rows: int | None) -> SpecialIds:
    """Special ids by the files that name them, else by the model's configuration, else by their usual names."""
    parsed = parse(files[TokenizerJsonText.FILE])
    names = {i: name for i, name in token_names(parsed).items() if rows is None or i < rows}
    ids = {name: i for i, name in names.items()}
    marked = {token["content"]: token["id"] for token in parsed["added_tokens"] if token["special"]}
    naming = [json.loads(files[name]) for name in _NAMING_FILES if name in files]
    found: dict[str, int | None] = {"unk": unknown_id(parsed)}
    for kind, usual in _USUAL_NAMES.items():
        tokens = [fields.get(f"{kind}_token") for fields in naming]
        named = [ids.get(token["content"] if isinstance(token, dict) else token) for token in tokens if token]
        of_model = named_ids.get(f"{kind}_token_id")
        candidates = [*named, *([of_model] if isinstance(of_model, int) else of_model or ()), *map(marked.get, usual)]
        found[kind] = next((i for i in candidates if i in names), None)
    return SpecialIds(**found)
