"""Text by SentencePiece, trained here or by others."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import sentencepiece
from etils import epath

from plum_jax.text.special_ids import SpecialIds, VocabularyError, require_rows, reserved_name


@dataclasses.dataclass(frozen=True)
class SentencePieceText:
    """Text by SentencePiece.

    Attributes:
      model: the serialised model.
      rows: ids that count as text: rows of a pre-trained model's table, which may have more than there are pieces.
        None: as many as there are pieces.
    """

    model: bytes
    rows: int | None = None
    FILE: ClassVar[str] = "sentencepiece.model"

    def __post_init__(self) -> None:
        require_rows(self.rows, self._pieces.vocab_size())

    @functools.cached_property
    def _pieces(self) -> sentencepiece.SentencePieceProcessor:
        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self.model)
        except (RuntimeError, TypeError) as error:
            raise VocabularyError(
                f"expected a serialised SentencePiece model of {len(self.model)} bytes: {error}"
            ) from None

    @property
    def num_pieces(self) -> int:
        """Ids below this one are text, or reserved for the model that the text side comes from."""
        return self.rows or self._pieces.vocab_size()

    @functools.cached_property
    def special_ids(self) -> SpecialIds:
        ids = {name: getattr(self._pieces, f"{name}_id")() for name in ("pad", "eos", "unk", "bos")}
        return SpecialIds(**{name: i if i >= 0 else None for name, i in ids.items()})

    def encode(self, text: str) -> list[int]:
        """Text as ids, none of them special but that of the unknown character in models without bytes."""
        return self._pieces.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text; special and reserved ones are left out."""
        return self._pieces.decode([i for i in ids if i < self._pieces.vocab_size()])

    def piece(self, token_id: int) -> str:
        """The name of one id."""
        return self._pieces.id_to_piece(token_id) if token_id < self._pieces.vocab_size() else reserved_name(token_id)

    def description(self) -> dict[str, Any]:
        """JSON values that, with the model's bytes, make this again: see `text_from_description`."""
        return {"file": self.FILE, "rows": self.rows}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.model, self.rows)  # the processor is made anew where this arrives


def train_sentencepiece(texts: Iterable[str], vocab_size: int, model_path: epath.PathLike) -> None:
    """Trains a unigram SentencePiece model with byte fallback: pad 0, eos 1, unk 2; the same texts give the same model.

    A corpus too small for `vocab_size` pieces gives a smaller model.

    Raises:
      VocabularyError: no text, or a `vocab_size` below what bytes and characters need.
    """
    texts = [text for text in texts if text and text.strip()]
    if not texts:
        raise VocabularyError("expected texts to train SentencePiece on, got none: name the items' text fields")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            character_coverage=0.9995,
            byte_fallback=True,  # no text is unknown
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            max_sentence_length=1 << 20,  # the default leaves longer texts out in silence
            num_threads=1,  # several threads sum in no fixed order
            minloglevel=2,
        )
    except RuntimeError as error:
        raise VocabularyError(
            f"SentencePiece could not train {vocab_size} pieces on {len(texts)} texts: {error}. 256 pieces are bytes; "
            "raise vocab_size to 512 or more, or bring more text"
        ) from None
    path = epath.Path(model_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.aside"
    aside.write_bytes(model.getvalue())
    aside.replace(path)
