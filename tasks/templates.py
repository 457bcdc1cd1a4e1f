"""Templates: how an item, an event or a user reads as a token sequence. They are data, written in gin.

    "Video {sid} has title (en): {title:.80}"

`{field}` is a column of the corpus or `sid`; after a colon stands a Python format specification, which applies where
the field is text ("{watch_ratio:.2%}", or a length in characters: "{title:.80}"). A Semantic ID is always written as
ids; so is a field for which the vocabulary has tokens, and a control token such as `<history>`. What lies between is
text: neighbouring text and text fields are encoded as one run, without white space at its ends. Where a sentence is
about two items, `{other_field}` is a field of the second.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import string
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import polars as pl

from plum_jax import ragged
from plum_jax.semantic_ids.vocabulary import SidVocabulary

SID = "sid"
OTHER = "other_"
_TOKEN = re.compile(r"(<[A-Za-z_]+>)")


class TemplateError(ValueError):
    """A template cannot be read, or names a field or a token that is not there."""


@dataclasses.dataclass(frozen=True)
class Text:
    """Literal text."""

    text: str


@dataclasses.dataclass(frozen=True)
class Token:
    """A control token."""

    name: str


@dataclasses.dataclass(frozen=True)
class Field:
    """A field, with its format specification; `other`: of the second item of a sentence about two."""

    name: str
    specification: str = ""
    other: bool = False


@dataclasses.dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
      text: as it was written.
      parts: literal text, control tokens and fields, in order.
    """

    text: str
    parts: tuple[Text | Token | Field, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of its fields, in order."""
        return tuple(part.name for part in self.parts if isinstance(part, Field))


def parse(
    text: str,
    *,
    where: str,
    fields: Collection[str],
    tokens: Collection[str] | None,
    other_fields: Collection[str] = (),
) -> Template:
    """Parses a template.

    Args:
      text: the template.
      where: what it is, for messages, e.g. "event template of task retrieval".
      fields: names it may use.
      other_fields: names it may use of a second item, with "other_" before them.
      tokens: the vocabulary's control tokens; None where there is no vocabulary yet, and any are allowed.

    Raises:
      TemplateError: unbalanced braces, or an unknown field or control token; the message lists the valid ones.
    """
    parts: list[Text | Token | Field] = []
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(f"{where}: {text!r} cannot be read: {error}") from None
    for literal, name, specification, conversion in parsed:
        for piece in filter(None, _TOKEN.split(literal)):
            parts.append(Token(piece) if _TOKEN.fullmatch(piece) else Text(piece))
        if name is None:
            continue
        other = name not in fields and name.startswith(OTHER) and name.removeprefix(OTHER) in other_fields
        if (name not in fields and not other) or conversion:
            valid = sorted({*fields, *(OTHER + field for field in other_fields)})
            raise TemplateError(f"{where}: {text!r} has no field {name!r}; valid are {', '.join(valid)}")
        parts.append(Field(name.removeprefix(OTHER) if other else name, specification or "", other))
    for part in parts:
        if isinstance(part, Token) and tokens is not None and part.name not in tokens:
            raise TemplateError(
                f"{where}: {text!r} has {part.name}, which is no control token of the vocabulary; "
                f"there are {', '.join(tokens)}"
            )
    return Template(text, tuple(parts))


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """What the fields of one template are for R rows.

    Attributes:
      count: R.
      sids: the Semantic IDs as token ids, R rows (empty where there is no item).
      column: a field's values, R of them.
      other: of the second items, where a sentence is about two.
    """

    count: int
    sids: ragged.Ragged | None
    column: Callable[[str], pl.Series]
    other: Rows | None = None

    def of(self, field: Field) -> Rows:
        """The rows that a field is of."""
        if not field.other:
            return self
        assert self.other is not None, "a template with a second item is only parsed where rows have one"
        return self.other


def literal_rows(count: int) -> Rows:
    """Rows of templates that have no field: literal text and control tokens."""

    def no_column(name: str) -> pl.Series:
        raise AssertionError(f"literal text has no field {name}")

    return Rows(count, None, no_column)


def literals_before(layout: Template, fields: Sequence[str], where: str) -> list[Template]:
    """What stands before each field of a layout: literal text and control tokens, by field.

    Raises:
      TemplateError: the layout has other fields, or in another order, or something behind the last.
    """
    places = [place for place, part in enumerate(layout.parts) if isinstance(part, Field)]
    if layout.fields != tuple(fields) or places[-1] != len(layout.parts) - 1:
        wanted = ", ".join(f"{{{field}}}" for field in fields)
        raise TemplateError(f"{where}: {layout.text!r} must have {wanted} in this order, and end with the last")
    starts = [0, *(place + 1 for place in places[:-1])]
    return [Template(layout.text, layout.parts[start:end]) for start, end in zip(starts, places, strict=True)]


class Renderer:
    """Renders templates with one vocabulary."""

    def __init__(self, vocabulary: SidVocabulary) -> None:
        self._vocabulary = vocabulary
        self._encode = functools.lru_cache(maxsize=1 << 18)(self._encode_text)

    def render(self, template: Template, rows: Rows) -> ragged.Ragged:
        """Token ids of each row, int32, without EOS. Missing text is left out; a missing field token is <name:none>."""
        rendered = [ragged.repeated([], rows.count)]
        run: list[Text | Field] = []
        for part in template.parts:
            if self._is_text(part):
                run.append(part)  # type: ignore[arg-type]
                continue
            rendered += [*self._render_run(run, rows), self._render_ids(part, rows)]
            run = []
        return ragged.join([*rendered, *self._render_run(run, rows)])

    def text_fields(self, template: Template) -> tuple[str, ...]:
        """Fields of a template that are written as text."""
        return tuple(part.name for part in self.text_parts(template))

    def text_parts(self, template: Template) -> tuple[Field, ...]:
        """The same, with whose fields they are."""
        return tuple(part for part in template.parts if isinstance(part, Field) and self._is_text(part))

    def _is_text(self, part: Text | Token | Field) -> bool:
        if isinstance(part, Field):
            return part.name != SID and not self._vocabulary.has_field(part.name)
        return isinstance(part, Text)

    def _render_ids(self, part: Text | Token | Field, rows: Rows) -> ragged.Ragged:
        if isinstance(part, Token):
            return ragged.repeated([self._vocabulary.control_id(part.name)], rows.count)
        assert isinstance(part, Field)
        rows = rows.of(part)
        if part.name == SID:
            assert rows.sids is not None, "a template with {sid} is only parsed where rows have items"
            return rows.sids
        return self._field_tokens(part.name, rows.column(part.name))

    def _field_tokens(self, name: str, values: pl.Series) -> ragged.Ragged:
        """One token a row, or one for each entry of a list (one <name:none> where it is empty)."""
        counts = np.ones(len(values), np.int64)
        if isinstance(values.dtype, pl.List):
            counts = np.maximum(values.list.len().fill_null(0).to_numpy().astype(np.int64), 1)
            values = values.explode(empty_as_null=True, keep_nulls=True)
        if values.dtype.is_float():
            values = values.fill_nan(None)
        token_of = {value: self._vocabulary.encode_field(name, value) for value in values.unique().to_list()}
        return ragged.Ragged(np.array([token_of[value] for value in values.to_list()], np.int32), counts)

    def _render_run(self, run: list[Text | Field], rows: Rows) -> list[ragged.Ragged]:
        """A run of text, if there is any in it."""
        if not any(isinstance(part, Field) for part in run):
            literal = "".join(part.text for part in run if isinstance(part, Text)).strip()
            return [ragged.repeated(self._encode(literal), rows.count)] if literal else []
        columns: list[list[str]] = []
        for part in run:
            if isinstance(part, Text):
                columns.append([part.text] * rows.count)
            else:
                columns.append(column_text(part, rows.of(part).column(part.name)))
        return [ragged.from_rows([self._encode("".join(parts).strip()) for parts in zip(*columns, strict=True)])]

    def _encode_text(self, text: str) -> np.ndarray:
        return np.array(self._vocabulary.encode(text) if text else [], np.int32)


def column_text(field: Field, values: pl.Series) -> list[str]:
    """A column as a template's text; TemplateError where the specification does not fit its values."""
    try:
        return [as_text(value, field.specification) for value in values.to_list()]
    except ValueError as error:
        raise TemplateError(
            f"field {{{field.name}:{field.specification}}} cannot be written: {error}; its values are {values.dtype}"
        ) from None


def as_text(value: Any, specification: str = "") -> str:
    """A field's value as text: lists by commas, numbers without a tail of digits, missing values as nothing."""
    if value is None or value != value:  # NaN is the one value that differs from itself
        return ""
    if isinstance(value, list):
        value = ", ".join(str(entry) for entry in value)
    elif isinstance(value, float) and not specification:
        specification = "g"
    return format(value, specification)
