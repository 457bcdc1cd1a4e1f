"""What every text side says of its ids."""

from __future__ import annotations

import dataclasses


class VocabularyError(ValueError):
    """A token, a field value or an id that the vocabulary does not have, or a text model that cannot be used."""


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Ids that stand for no text; None: the text side has no such one."""

    pad: int | None = None
    eos: int | None = None
    unk: int | None = None
    bos: int | None = None


def require_rows(rows: int | None, pieces: int) -> None:
    """The ids that a pre-trained model has rows for must hold all pieces."""
    if rows is not None and rows < pieces:
        raise VocabularyError(
            f"the text model has {pieces} pieces, but the pre-trained model's table only {rows} rows: they do not "
            "belong together"
        )


def reserved_name(token_id: int) -> str:
    """The name of an id that a pre-trained model has a row for, and its tokenizer no piece."""
    return f"<reserved {token_id}>"
