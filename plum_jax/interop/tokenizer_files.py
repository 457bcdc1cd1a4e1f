"""Tokenizers that formats keep as lists of pieces, as files that other programs read."""

from __future__ import annotations

from collections.abc import Sequence

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, pre_tokenizers

CONTROL, USER_DEFINED = 3, 4  # kinds of pieces, as SentencePiece and GGUF number them

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DIGITS_TOGETHER = {"llama-bpe": "{1,3}", "qwen2": ""}  # tokenizer.ggml.pre -> digits that one piece may have


def byte_level_tokenizer(
    pieces: Sequence[str], merges: Sequence[str], types: Sequence[int], pre_tokenizer: str
) -> bytes | None:
    """`tokenizer.json` of a byte-level BPE; None for a pre-tokenizer that is not known.

    Args:
      pieces: by id, in GPT-2's alphabet of bytes.
      merges: "left right", the first first.
      types: of each piece; control and user-defined ones are found in text as they are.
      pre_tokenizer: GGUF's name of how text is split before: "default", "gpt-2", "smollm", "llama-bpe", "qwen2".
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre_tokenizer not in _DIGITS_TOGETHER)
    if pre_tokenizer in ("default", "gpt-2"):
        split: list[pre_tokenizers.PreTokenizer] = []
    elif pre_tokenizer == "smollm":
        split = [pre_tokenizers.Digits(individual_digits=True)]
    elif pre_tokenizer in _DIGITS_TOGETHER:
        words = tokenizers.Regex(_WORDS.format(digits=_DIGITS_TOGETHER[pre_tokenizer]))
        split = [pre_tokenizers.Split(words, behavior="isolated")]
    else:
        return None
    pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
    made = tokenizers.Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.Sequence([*split, byte_level])
    made.decoder = decoders.ByteLevel()
    special = [piece for piece, kind in zip(pieces, types, strict=True) if kind == CONTROL]
    made.add_special_tokens(special)
    made.add_tokens([piece for piece, kind in zip(pieces, types, strict=True) if kind == USER_DEFINED])
    return made.to_str().encode()


def sentencepiece_model(
    pieces: Sequence[str], scores: Sequence[float], types: Sequence[int], add_space_prefix: bool = True
) -> bytes:
    """A serialised SentencePiece BPE model, as Llama 2's.

    Args:
      pieces: by id, with "▁" for spaces and "<0x0A>" for bytes.
      scores: of each piece; pieces with higher ones are merged first.
      types: of each piece: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
      add_space_prefix: text begins with a space.
    """
    model = sentencepiece_model_pb2.ModelProto()
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        model.pieces.add(piece=piece, score=float(score), type=int(kind))
    ids = {piece: i for i, piece in enumerate(pieces)}
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = trainer.BPE, len(pieces), True
    trainer.unk_id, trainer.bos_id, trainer.eos_id = (ids.get(name, -1) for name in ("<unk>", "<s>", "</s>"))
    trainer.pad_id = ids.get("<pad>", -1)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = bool(add_space_prefix)
    model.normalizer_spec.remove_extra_whitespaces = False
    model.normalizer_spec.escape_whitespaces = True
    return model.SerializeToString()
