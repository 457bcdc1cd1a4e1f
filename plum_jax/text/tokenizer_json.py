"""Text by Hugging Face's `tokenizers`, made so that no text gives a special token."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence, Set
from typing import Any, ClassVar, NamedTuple

import tokenizers

from plum_jax.text.special_ids import SpecialIds, VocabularyError, require_rows, reserved_name

# Before a special token's name in the models of `tokenizers`. Their texts have no space left, so none can match.
_OUT_OF_REACH = "\0 "


class _Contents(NamedTuple):
    tokenizer: tokenizers.Tokenizer
    names: dict[int, str]
    special: frozenset[int]


@dataclasses.dataclass(frozen=True)
class TokenizerJsonText:
    """Text by a `tokenizer.json` of Hugging Face's `tokenizers`.

    There, a text that reads like a special token is that token. Here it is text: special tokens are out of its reach.
    Tokens that were added and are not special, such as Gemma's runs of line breaks, stay text.

    Attributes:
      model: the file's bytes.
      special_ids: of the tokens that end, begin and fill texts; see `read_text`.
      rows: ids that count as text: rows of a pre-trained model's table, which may have more than there are pieces
        (Qwen 2.5: 151,936 for 151,665), or fewer where the last ones are special. None: as many as there are pieces.
    """

    model: bytes
    special_ids: SpecialIds
    rows: int | None = None
    FILE: ClassVar[str] = "tokenizer.json"

    def __post_init__(self) -> None:
        last_of_text = max((i for i in self._contents.names if i not in self._contents.special), default=-1)
        require_rows(self.rows, last_of_text + 1)

    @functools.cached_property
    def _contents(self) -> _Contents:
        parsed = parse(self.model)
        names = token_names(parsed)
        special = {token["id"] for token in parsed["added_tokens"] if token["special"]}
        special |= {i for i in dataclasses.astuple(self.special_ids) if i is not None}
        guarded = json.dumps(_out_of_reach(parsed, special, names), ensure_ascii=False)
        try:
            tokenizer = tokenizers.Tokenizer.from_str(guarded)
        except Exception as error:  # `tokenizers` raises nothing more exact
            raise VocabularyError(f"the tokenizer.json cannot be read: {error}") from None
        tokenizer.encode_special_tokens = True  # do not look for them in texts
        return _Contents(tokenizer, names, frozenset(special))

    @property
    def num_pieces(self) -> int:
        """Ids below this one are text, or reserved for the model that the text side comes from."""
        return self.rows or max(self._contents.names) + 1

    def encode(self, text: str) -> list[int]:
        """Text as ids, none of them special but that of the unknown character in models without bytes."""
        return self._contents.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text; special and reserved ones are left out."""
        tokenizer, names, special = self._contents
        return tokenizer.decode([i for i in ids if i in names and i not in special])

    def piece(self, token_id: int) -> str:
        """The name of one id."""
        return self._contents.names.get(token_id) or reserved_name(token_id)

    def description(self) -> dict[str, Any]:
        """JSON values that, with the model's bytes, make this again: see `text_from_description`."""
        return {"file": self.FILE, "rows": self.rows, "special_ids": dataclasses.asdict(self.special_ids)}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, self.special_ids, self.rows)


def parse(model: bytes) -> dict[str, Any]:
    """The JSON of a `tokenizer.json`."""
    try:
        parsed = json.loads(model)
        return parsed | {"added_tokens": list(parsed.get("added_tokens", ())), "model": dict(parsed["model"])}
    except (ValueError, KeyError, TypeError) as error:
        raise VocabularyError(
            f"expected a tokenizer.json of Hugging Face's tokenizers, got {len(model)} bytes that are none: {error!r}"
        ) from None


def token_names(parsed: Mapping[str, Any]) -> dict[int, str]:
    """Ids and names of all tokens."""
    vocab = parsed["model"]["vocab"]
    names = {i: name for name, i in vocab.items()} if isinstance(vocab, dict) else dict(enumerate(n for n, _ in vocab))
    return names | {token["id"]: token["content"] for token in parsed["added_tokens"]}


def unknown_id(parsed: Mapping[str, Any]) -> int | None:
    """The id that the model gives for what it cannot spell."""
    model = parsed["model"]
    by_name = model.get("unk_token")
    return model.get("unk_id") if by_name is None else {n: i for i, n in token_names(parsed).items()}.get(by_name)


def _out_of_reach(parsed: Mapping[str, Any], special: Set[int], names: Mapping[int, str]) -> dict[str, Any]:
    """A `tokenizer.json` in which no text can give a special token, and texts are neither cut, padded nor wrapped."""
    renamed = {name: _OUT_OF_REACH + name for name in (names[i] for i in special)}
    added = [
        token | {"content": _OUT_OF_REACH + token["content"], "special": True} if token["id"] in special else token
        for token in parsed["added_tokens"]
    ]
    model = dict(parsed["model"])
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {renamed.get(name, name): i for name, i in vocab.items()}
    else:
        model["vocab"] = [[renamed.get(name, name), score] for name, score in vocab]
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, renamed)]
    if model.get("unk_token") in renamed:
        model["unk_token"] = renamed[model["unk_token"]]
    if "dropout" in model:
        model["dropout"] = None  # the same text gives the same ids
    settings = {"truncation": None, "padding": None, "post_processor": None}
    return {**parsed, **settings, "added_tokens": added, "model": model}


def _touches(merge: str | Sequence[str], names: Mapping[str, str]) -> bool:
    """Whether a merge of BPE takes or makes one of the names."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names
