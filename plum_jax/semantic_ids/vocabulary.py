"""One id space for text and Semantic IDs: pieces of text, control, field and SID tokens, in this order.

Text is encoded by the text side alone (`plum_jax.text`), so no text, not even one that reads "<A12>", can give an id of
the other kinds: those are emitted as ids by the task templates and by the model.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.semantic_ids.field_tokens import FieldTokens, field_from_json
from plum_jax.semantic_ids.table import LEVEL_LETTERS
from plum_jax.text.files import TextPieces, text_fingerprint, text_from_description
from plum_jax.text.special_ids import VocabularyError

KIND = "vocabulary"
CONTROL_TOKENS = ("<history>", "<user>", "<context>", "<target>")
_TOKENS_FILE = "tokens.json"
_SID_NAME = re.compile(r"<[A-Z]\d+>")


class SidVocabulary:
    """Text pieces, control tokens, field tokens and SID tokens in one id space.

    Attributes:
      text: the text side.
      codebook_sizes: W_l of each SID level.
      control_tokens: names written in templates, e.g. "<history>"; "<pad>", "</s>" and "<unk>" are added where the text
        side has no such id.
      field_tokens: fields that are one token, not text.
      num_pieces: ids below this one are the text side's.
      pad_id, eos_id, unk_id: special ids (pad is 0 for models trained here and for T5's, a control token for Llama's).
      start_id: what the decoder's inputs begin with: the text side's token for it, else, as in T5, what pads (0 for
        models trained here), else what ends a text.
      sid_offset: id of code 0 of level 0; `sid_offsets` [L]: of code 0 of every level.
      vocab_size: number of ids.
    """

    def __init__(
        self,
        text: TextPieces,
        codebook_sizes: Sequence[int],
        control_tokens: Sequence[str] = CONTROL_TOKENS,
        field_tokens: Sequence[FieldTokens] = (),
    ) -> None:
        self.text = text
        self.codebook_sizes = tuple(int(size) for size in codebook_sizes)
        if not self.codebook_sizes or min(self.codebook_sizes) < 1 or len(self.codebook_sizes) > len(LEVEL_LETTERS):
            raise VocabularyError(f"expected 1 to {len(LEVEL_LETTERS)} codebook sizes, got {self.codebook_sizes}")
        self.num_pieces: int = text.num_pieces
        self.control_tokens = tuple(dict.fromkeys([*control_tokens, *_missing_specials(text)]))
        self.field_tokens = tuple(field_tokens)
        self._ids, self._fields = self._number_tokens()
        self.sid_offset = self.num_pieces + len(self._ids)
        self.sid_offsets = self.sid_offset + np.cumsum([0, *self.codebook_sizes[:-1]]).astype(np.int32)
        self.vocab_size: int = self.sid_offset + sum(self.codebook_sizes)
        self.pad_id = self._special_id("<pad>", text.special_ids.pad)
        self.eos_id = self._special_id("</s>", text.special_ids.eos)
        self.unk_id = self._special_id("<unk>", text.special_ids.unk)
        starts = (text.special_ids.bos, text.special_ids.pad, text.special_ids.eos, self.pad_id)
        self.start_id = next(i for i in starts if i is not None)

    def _number_tokens(self) -> tuple[dict[str, int], dict[str, tuple[FieldTokens, int]]]:
        """Ids of control and field tokens by name, and for each field its definition and first id."""
        names = list(self.control_tokens)
        fields: dict[str, tuple[FieldTokens, int]] = {}
        for field in self.field_tokens:
            if field.name in fields:
                raise VocabularyError(f"field {field.name!r} is given twice")
            fields[field.name] = (field, self.num_pieces + len(names))
            names += [f"<{field.name}:{label}>" for label in field.labels()]
        wrong = [name for name in names if not name or _SID_NAME.fullmatch(name)] or _repeated(names)
        if wrong:
            raise VocabularyError(
                f"control and field tokens must differ from each other and from SIDs such as <A12>: {', '.join(wrong)}"
            )
        return {name: self.num_pieces + place for place, name in enumerate(names)}, fields

    def _special_id(self, control_token: str, of_text: int | None) -> int:
        """The control token where there is one of this name: it takes the place of what the text side lacks."""
        found = self._ids.get(control_token, of_text)
        assert found is not None, "what the text side lacks is a control token: _missing_specials"
        return found

    def encode(self, text: str) -> list[int]:
        """Text as ids of the text side (all < num_pieces), without EOS."""
        return self.text.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as text; SIDs read <A12><B5>, control and field tokens by name; padding and EOS are left out.

        Runs of text and runs of tokens are parted by one space.
        """
        kept = [int(i) for i in ids if i not in (self.pad_id, self.eos_id)]
        runs = []
        for is_text, run in itertools.groupby(kept, key=lambda i: i < self.num_pieces):
            members = list(run)
            runs.append(self.text.decode(members) if is_text else "".join(map(self.token_name, members)))
        return " ".join(runs)

    def token_name(self, token_id: int) -> str:
        """The name of one id: a piece, "<history>", "<rating:3>" or "<A12>"."""
        if not 0 <= token_id < self.vocab_size:
            raise VocabularyError(f"expected an id from 0 to {self.vocab_size - 1}, got {token_id}")
        if token_id < self.num_pieces:
            return self.text.piece(token_id)
        if token_id < self.sid_offset:
            return self._names[token_id - self.num_pieces]
        level = int(np.searchsorted(self.sid_offsets, token_id, side="right")) - 1
        return f"<{LEVEL_LETTERS[level]}{token_id - self.sid_offsets[level]}>"

    @functools.cached_property
    def _names(self) -> list[str]:
        return list(self._ids)

    def control_id(self, token: str) -> int:
        """Id of a control token, e.g. "<history>"."""
        if token not in self.control_tokens:
            raise VocabularyError(f"no control token {token!r}; there are {', '.join(self.control_tokens)}")
        return self._ids[token]

    def has_field(self, name: str) -> bool:
        """Whether the field is written as one token (else it is text)."""
        return name in self._fields

    def encode_field(self, name: str, value: Any) -> int:
        """Id of a field's value: the bucket of a number, the token of a category; None and NaN give <name:none>."""
        if name not in self._fields:
            raise VocabularyError(f"field {name!r} has no tokens; there are {', '.join(self._fields) or 'none'}")
        field, first = self._fields[name]
        try:
            return first + field.place(value)
        except (TypeError, ValueError):
            raise VocabularyError(f"field {name!r}: expected a number, got {value!r}") from None

    def encode_sid(self, codes: np.ndarray | Sequence[int]) -> np.ndarray:
        """SID codes [..., L] as token ids int32 [..., L]."""
        codes = np.asarray(codes, np.int32)
        if codes.shape[-1:] != (len(self.codebook_sizes),):
            raise VocabularyError(f"expected codes [..., {len(self.codebook_sizes)}], got shape {codes.shape}")
        wrong = (codes < 0) | (codes >= np.asarray(self.codebook_sizes))
        if wrong.any():
            place = tuple(np.argwhere(wrong)[0])
            raise VocabularyError(
                f"expected codes below {self.codebook_sizes} by level, got {codes[place]} at level {place[-1]}"
            )
        return codes + self.sid_offsets

    def decode_sid(self, ids: np.ndarray | Sequence[int]) -> np.ndarray:
        """Token ids [..., L], each of its level, as SID codes int32 [..., L].

        Raises:
          VocabularyError: an id is no SID token of its level.
        """
        ids = np.asarray(ids, np.int32)
        if ids.shape[-1:] != (len(self.codebook_sizes),):
            raise VocabularyError(f"expected ids [..., {len(self.codebook_sizes)}], got shape {ids.shape}")
        codes = ids - self.sid_offsets
        wrong = (codes < 0) | (codes >= np.asarray(self.codebook_sizes))
        if wrong.any():
            place = tuple(np.argwhere(wrong)[0])
            raise VocabularyError(f"id {ids[place]} is no SID token of level {place[-1]}")
        return codes

    def is_sid(self, ids: np.ndarray | Sequence[int] | int) -> np.ndarray:
        """Which ids are SID tokens, bool, same shape."""
        ids = np.asarray(ids)
        return (ids >= self.sid_offset) & (ids < self.vocab_size)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Hash of everything that decides an id."""
        return artifact.fingerprint(
            text_fingerprint(self.text), list(self.codebook_sizes), list(self.control_tokens), list(self.field_tokens)
        )

    def save(
        self, directory: epath.PathLike, *, config: Any = None, inputs: Mapping[str, str] | None = None
    ) -> artifact.Manifest:
        """Writes the vocabulary as an artefact: the text model and the other tokens as JSON."""

        def write(aside: epath.Path) -> None:
            (aside / self.text.FILE).write_bytes(self.text.model)
            tokens = {
                "text": self.text.description(),
                "codebook_sizes": self.codebook_sizes,
                "control_tokens": self.control_tokens,
                "field_tokens": artifact.describe(self.field_tokens),
            }
            artifact.write_json(aside / _TOKENS_FILE, tokens)

        return artifact.write_artifact(
            directory, kind=KIND, fingerprint=self.fingerprint, config=config, inputs=inputs or {}, write=write
        )

    @classmethod
    def load(cls, directory: epath.PathLike) -> SidVocabulary:
        """Reads a complete vocabulary.

        Raises:
          ArtifactError: nothing complete there, or files that are not those the manifest was written for.
        """
        directory = epath.Path(directory)
        manifest = artifact.read_manifest(directory, KIND)
        tokens = json.loads((directory / _TOKENS_FILE).read_text())
        vocabulary = cls(
            text_from_description(tokens["text"], (directory / tokens["text"]["file"]).read_bytes()),
            tokens["codebook_sizes"],
            tokens["control_tokens"],
            [field_from_json(field) for field in tokens["field_tokens"]],
        )
        if vocabulary.fingerprint != manifest.fingerprint:
            raise artifact.ArtifactError(
                f"the vocabulary in {directory} has fingerprint {vocabulary.fingerprint}, but its manifest says "
                f"{manifest.fingerprint}: the files were changed; delete {directory} and run the stage again"
            )
        return vocabulary

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.text, self.codebook_sizes, self.control_tokens, self.field_tokens)


def _missing_specials(text: TextPieces) -> list[str]:
    """Control tokens for what the text side lacks, or has only one id for (GPT-2's end of text is all of them)."""
    ids = text.special_ids
    taken: list[int | None] = [None]
    missing = []
    for name, token_id in (("</s>", ids.eos), ("<unk>", ids.unk), ("<pad>", ids.pad)):
        if token_id in taken or (name == "<pad>" and token_id == ids.bos):
            missing.append(name)
        taken.append(token_id)
    return missing


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in collections.Counter(names).items() if count > 1]
