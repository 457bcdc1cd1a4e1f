"""Prompts that people write: words, Semantic IDs, names of items, and places where an ID is asked for.

"The film {item:Toy Story (1995)} is about"     an item, by its id or by its first text field
"The film {item:1|2} is about"                  the first two codes of its Semantic ID
"The film {sid:A12 B5 C77} is about"            a Semantic ID as reports write it, or the first codes of one
"<history> <A12><B5><C77>"                      tokens by their names: control tokens, fields, codes
"A film about dinosaurs is {sid}"               an ID is asked for: of the catalogue, and no word
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re

from plum_jax.corpus.schema import Corpus
from plum_jax.semantic_ids.table import LEVEL_LETTERS, SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary

ASKED = -1  # in a prompt's tokens: here the model writes a Semantic ID
_PART = re.compile(r"\{([^{}]*)\}|(<[^<>\s]+>)")
_CODE = re.compile(r"([A-Z])(\d+)")


class PromptError(ValueError):
    """A prompt that cannot be read: what it says, and what it may say."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt as tokens.

    Attributes:
      text: as it was written.
      tokens: ids, and `ASKED` where a Semantic ID is to be written.
    """

    text: str
    tokens: tuple[int, ...]

    @property
    def lead(self) -> tuple[int, ...]:
        """The tokens before the first place that is asked for."""
        return self.tokens[: self.tokens.index(ASKED)] if ASKED in self.tokens else self.tokens


@dataclasses.dataclass(frozen=True, eq=False)
class PromptReader:
    """Reads prompts against a run's vocabulary and items.

    Attributes:
      vocabulary: of the tokens.
      table: Semantic IDs of the items; it may have more items than the corpus.
      corpus: names of the items; None: items are named by id alone.
    """

    vocabulary: SidVocabulary
    table: SidTable
    corpus: Corpus | None = None

    def read(self, text: str) -> Prompt:
        """A prompt.

        Words between two tokens are encoded as one run, without white space at its ends, as task templates do.

        Raises:
          PromptError: nothing but white space, braces that hold neither an item nor an ID, an item that there is not.
        """
        tokens: list[int] = []
        place = 0
        for part in _PART.finditer(text):
            found = self._part(text, part)
            if found is None:  # "<3" of somebody's words
                continue
            tokens += [*self._words(text[place : part.start()]), *found]
            place = part.end()
        tokens += self._words(text[place:])
        if not tokens:
            raise PromptError(f"expected words or Semantic IDs in a prompt, got {text!r}")
        return Prompt(text, tuple(tokens))

    def _part(self, text: str, part: re.Match[str]) -> list[int] | None:
        if part[2] is not None:
            token = self._named.get(part[2])
            return None if token is None else [token]
        inside = part[1]
        kind, _, name = inside.partition(":")
        if inside == "sid":
            return [ASKED]
        if kind == "sid":
            return self._codes(text, name)
        if kind == "item" and name:
            title, _, levels = name.rpartition("|")
            if not (title and levels.isdigit()):
                title, levels = name, str(self.table.num_levels)
            return self._item(text, title, int(levels))
        raise PromptError(
            f"prompt {text!r}: {part[0]} is none of {{item:id or title}}, {{item:id or title|codes}}, "
            "{sid:A12 B5 ...} and {sid}"
        )

    def _codes(self, text: str, name: str) -> list[int]:
        """The tokens of a Semantic ID as reports write it, or of its first codes."""
        tokens = []
        for level, word in enumerate(name.split()):
            code = _CODE.fullmatch(word)
            sizes = self.vocabulary.codebook_sizes
            if code is None or level >= len(sizes) or code[1] != LEVEL_LETTERS[level] or int(code[2]) >= sizes[level]:
                raise PromptError(
                    f"prompt {text!r}: {word!r} is no code of level {level + 1}; expected up to {len(sizes)} codes, "
                    f"below {sizes}, such as {self.table.sid_string(0)!r}"
                )
            tokens.append(int(self.vocabulary.sid_offsets[level]) + int(code[2]))
        return tokens

    def _item(self, text: str, name: str, levels: int) -> list[int]:
        if not 1 <= levels <= self.table.num_levels:
            raise PromptError(f"prompt {text!r}: expected 1 to {self.table.num_levels} codes of an item, got {levels}")
        row = self._rows.get(name)
        if row is None:
            row = self._rows.get(name.casefold().strip())
        if row is None:
            near = difflib.get_close_matches(name, [*self._rows], n=3, cutoff=0.5)
            hint = (
                f"did you mean {' or '.join(map(repr, near))}?"
                if near
                else f"ids are such as {next(iter(self._rows))!r}"
            )
            raise PromptError(f"prompt {text!r}: there is no item {name!r}: {hint}")
        return self.vocabulary.encode_sid(self.table.codes[row])[:levels].tolist()

    @functools.cached_property
    def _named(self) -> dict[str, int]:
        """Tokens that are no words, by name."""
        first, last = self.vocabulary.num_pieces, self.vocabulary.vocab_size
        return {self.vocabulary.token_name(i): i for i in range(first, last)}

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        """Row of an item by id, by title, and by title in lower case; ids go before titles, earlier items first."""
        ids = {str(name): row for row, name in enumerate(self.table.item_ids.tolist())}
        titles: dict[str, int] = {}
        if self.corpus is not None and self.corpus.text_fields:
            for row, title in enumerate(self.corpus.items[self.corpus.text_fields[0]].to_list()):
                if title:
                    titles.setdefault(title, row)
                    titles.setdefault(title.casefold(), row)
        return titles | ids

    def _words(self, text: str) -> list[int]:
        return self.vocabulary.encode(text.strip()) if text.strip() else []
