"""Text by SentencePiece, trained here or by others."""

from __future__ import annotations

import dataclasses
import functools
import io
import string
import sys
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import sentencepiece
from etils import epath

from plum_jax.text.special_ids import SpecialIds, VocabularyError, require_rows, reserved_name

_ALWAYS_THERE = 3 + 256  # pad, eos and unk; every byte
_MORE_THAN_ANY_TEXT = 1 << 20
# As the trainer's. It ends the process, without an exception, where no character is left of all texts.
_NORMALIZER = sentencepiece.SentencePieceNormalizer(rule_name="nmt_nfkc")


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

    Texts that give fewer than `vocab_size` pieces give a smaller model, and a line on stderr. Where there is no text at
    all, the pieces are bytes and the printable characters of ASCII, so that what templates say can be written.

    Raises:
      VocabularyError: a `vocab_size` below what bytes and characters need; says what fits.
    """
    texts = [text for text in texts if text and _NORMALIZER.normalize(text).strip()]
    if texts:
        model = _fitting(texts, vocab_size)
    else:
        model = _trained([" ".join(string.digits + string.ascii_letters + string.punctuation)], _MORE_THAN_ANY_TEXT)
    path = epath.Path(model_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.aside"
    aside.write_bytes(model)
    aside.replace(path)


def _fitting(texts: list[str], vocab_size: int) -> bytes:
    """A serialised model of these texts; says, or raises, if `vocab_size` does not fit them."""
    wish = f"num_pieces (NUM_PIECES) is {vocab_size}"
    try:
        model = _trained(texts, vocab_size)
    except RuntimeError as error:
        # Its message speaks of its own flags and source files. What fits is read off a model that nothing limits.
        least, most = _sizes_that_fit(texts)
        if vocab_size >= least:
            raise VocabularyError(f"SentencePiece could not train on {len(texts)} texts: {error}") from None
        raise VocabularyError(
            f"{wish}, but the pieces of {len(texts)} texts are at least {least} ({_ALWAYS_THERE} bytes and special "
            f"pieces, {least - _ALWAYS_THERE} characters) and at most {most}: set NUM_PIECES to {least} or more"
        ) from None
    got = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size()
    if got < vocab_size:
        # Not to stdout, which a second run, that trains no pieces, must repeat.
        said = f"{wish}, but {len(texts)} texts give at most {got} pieces: the vocabulary has those"
        print(said, file=sys.stderr)
    return model


def _sizes_that_fit(texts: list[str]) -> tuple[int, int]:
    """The smallest and the largest number of pieces that these texts can be trained to."""
    pieces = sentencepiece.SentencePieceProcessor(model_proto=_trained(texts, _MORE_THAN_ANY_TEXT))
    characters = sum(len(pieces.id_to_piece(i)) == 1 for i in range(_ALWAYS_THERE, pieces.vocab_size()))
    return _ALWAYS_THERE + characters, pieces.vocab_size()


def _trained(texts: list[str], vocab_size: int) -> bytes:
    """A serialised model of `vocab_size` pieces, or of as many as there are."""
    model = io.BytesIO()
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
    return model.getvalue()
