"""Semantic IDs that another program made, read from a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.quantization import Quantization

_TOKEN = re.compile(r"<?[A-Za-z]+_?(\d+)>?")  # "<a_12>" of LC-Rec and LETTER, "A12" of ours


@dataclasses.dataclass(frozen=True)
class FileIds:
    """Codes of all items from `*.index.json` (LC-Rec, LETTER, MiniOneRec) or Parquet.

    JSON: `{"key": ["<a_12>", "<b_3>", "<c_40>"], ...}`, or lists of integers. Parquet: a column of ids and either
    columns code_0, code_1, ... (what a SidTable of ours is) or one list column "codes". Ids that the corpus does not
    have are ignored and counted.

    Attributes:
      path: the file.
      id_map: LC-Rec's keys are numbers: a file of lines "item id <tab> number" (its `*.item2id`) says whose.
      id_column: of Parquet.
      codebook_sizes: W_l; None: the largest code of each level, plus one.
    """

    path: str
    id_map: str | None = None
    id_column: str = "item_id"
    codebook_sizes: tuple[int, ...] | None = None

    def inputs(self) -> dict[str, str]:
        """Hashes of the files, so that a changed one makes the table again."""
        paths = {"ids": self.path} | ({} if self.id_map is None else {"id_map": self.id_map})
        return {name: hashlib.sha256(_existing(path).read_bytes()).hexdigest()[:16] for name, path in paths.items()}

    def quantize(self, features: ItemFeatures, split: Split, work_dir: epath.PathLike) -> Quantization:
        """Codes of all items of the corpus; features are not looked at.

        Raises:
          QuantizerError: a file that is not there or not of this layout, an item without a code, an id twice, IDs of
            several lengths, or codes that `codebook_sizes` has no room for.
        """
        del features, work_dir
        ids, rows = self._read_json() if self.path.endswith(".json") else self._read_parquet()
        ids = self._mapped(ids)
        place = {item: row for row, item in enumerate(ids)}
        if len(place) != len(ids):
            twice = next(item for row, item in enumerate(ids) if place[item] != row)
            raise QuantizerError(f"{self.path}: item {twice!r} has more than one ID; every item has one")
        wanted = split.corpus.items["item_id"].to_list()
        missing = [item for item in wanted if item not in place]
        if missing:
            raise QuantizerError(
                f"{self.path} has no ID for {len(missing)} of {len(wanted)} items of corpus {split.corpus.name!r}, "
                f"such as {missing[0]!r}; its ids are such as {ids[:3]}. It must be made for this corpus (where its "
                "keys are numbers, set `id_map`)"
            )
        codes = self._array(ids, rows)
        sizes = tuple(int(size) + 1 for size in codes.max(axis=0))
        if self.codebook_sizes is not None:
            if len(sizes) != len(self.codebook_sizes) or (np.array(sizes) > self.codebook_sizes).any():
                raise QuantizerError(
                    f"{self.path}: expected codes for codebooks {tuple(self.codebook_sizes)}, its levels need {sizes}"
                )
            sizes = tuple(self.codebook_sizes)
        codes = codes[[place[item] for item in wanted]]
        return Quantization(codes, sizes, None, None, {"ids_not_in_corpus": len(ids) - len(wanted)})

    def _read_json(self) -> tuple[list[str], list[Any]]:
        try:
            content = json.loads(_existing(self.path).read_text(), object_pairs_hook=list)
        except json.JSONDecodeError as error:
            raise QuantizerError(f"{self.path} is not JSON ({error}): expected an object of item -> codes") from None
        pairs = isinstance(content, list) and all(isinstance(p, tuple) and isinstance(p[1], list) for p in content)
        if not pairs or not content:
            raise QuantizerError(f'{self.path}: expected a JSON object such as {{"item": ["<a_12>", "<b_3>"]}}')
        return [str(key) for key, _ in content], [[self._code(key, token) for token in row] for key, row in content]

    def _code(self, item: str, token: Any) -> int:
        if isinstance(token, int) and not isinstance(token, bool):
            return token
        match = _TOKEN.fullmatch(token) if isinstance(token, str) else None
        if match is None:
            raise QuantizerError(f'{self.path}, item {item!r}: expected codes such as "<a_12>" or 12, got {token!r}')
        return int(match.group(1))

    def _read_parquet(self) -> tuple[list[str], list[Any]]:
        _existing(self.path)
        try:
            with epath.Path(self.path).open("rb") as file:
                frame = pl.read_parquet(file)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise QuantizerError(f"{self.path} is no Parquet file ({error}); IDs come from .json or Parquet") from None
        levels = [name for name in frame.columns if re.fullmatch(r"code_\d+", name)]
        levels.sort(key=lambda name: int(name[5:]))
        if self.id_column not in frame.columns or not (levels or "codes" in frame.columns):
            raise QuantizerError(
                f"{self.path}: expected a column {self.id_column!r} and code_0, code_1, ... or a list column 'codes', "
                f"got {frame.columns}"
            )
        rows = frame.select(levels).rows() if levels else frame["codes"].to_list()
        return frame[self.id_column].cast(pl.String).to_list(), [list(row or ()) for row in rows]

    def _mapped(self, ids: list[str]) -> list[str]:
        if self.id_map is None:
            return ids
        named = {}
        for number, line in enumerate(_existing(self.id_map).read_text().splitlines(), 1):
            parts = line.split("\t")
            if len(parts) != 2:
                raise QuantizerError(f"{self.id_map}, line {number}: expected 'item id<tab>number', got {line!r}")
            named[parts[1].strip()] = parts[0].strip()
        unknown = [item for item in ids if item not in named]
        if unknown:
            raise QuantizerError(f"{self.id_map} has no line for key {unknown[0]!r} of {self.path}")
        return [named[item] for item in ids]

    def _array(self, ids: list[str], rows: list[list[int]]) -> np.ndarray:
        """int32 [rows, L]."""
        length = len(rows[0])
        for item, row in zip(ids, rows, strict=True):
            if len(row) != length or not length or any(code is None or code < 0 for code in row):
                raise QuantizerError(
                    f"{self.path}, item {item!r}: expected {length or '1 or more'} codes of 0 or more, as item "
                    f"{ids[0]!r} has, got {row}"
                )
        return np.asarray(rows, np.int32)


def _existing(path: str) -> epath.Path:
    if not epath.Path(path).exists():
        raise QuantizerError(f"there is no file {path}")
    return epath.Path(path)
