"""Search queries with graded judgements of items, from files whose columns are named."""

from __future__ import annotations

import contextlib
import dataclasses
import functools

import numpy as np
import polars as pl

from plum_jax import artifact
from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.files import ROW, open_file
from plum_jax.corpus.splits import FOLDS, TRAIN

NAMES = {"train": TRAIN, **FOLDS}


@dataclasses.dataclass(frozen=True, eq=False)
class JudgedQueries:
    """Attributes:
    item_ids: N.
    texts: of the items, "" where there is none.
    queries: Q texts.
    fold: int8 [Q], of `corpus.splits`.
    query, item: int32 [J], of each judged pair, sorted by query.
    grade: float32 [J], of it, as the file has it.
    """

    item_ids: tuple[str, ...]
    texts: tuple[str, ...]
    queries: tuple[str, ...]
    fold: np.ndarray
    query: np.ndarray
    item: np.ndarray
    grade: np.ndarray

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(
            self.item_ids, self.texts, self.queries, self.fold, self.query, self.item, self.grade
        )

    @property
    def training_queries(self) -> list[str]:
        """Texts of the queries that may be learnt from."""
        return [text for text, fold in zip(self.queries, self.fold, strict=True) if fold == TRAIN]


@dataclasses.dataclass(frozen=True)
class Judgements:
    """One judged pair of query and item a row, and a table of the items; files of any format of `files.open_file`.

    Attributes:
      judgements_path, items_path: of the files.
      query_id, query, item_id, grade, fold: columns of the judgements; a query stands in one fold of "train",
        "validation" and "test". A pair that is judged twice has the mean of its grades.
      items_id, text: columns of the items.
      queries_path: of a table of queries with `query_id`, `query` and `fold`; None: the judgements have them.
      grades: the lowest and the highest there may be; None: any.
      name: what rows of results call the data.
    """

    judgements_path: str
    items_path: str
    query_id: str = "query_id"
    query: str = "query"
    item_id: str = "item_id"
    grade: str = "relevance"
    fold: str = "fold"
    items_id: str = "item_id"
    text: str = "title"
    queries_path: str | None = None
    grades: tuple[float, float] | None = None
    name: str = "judged queries"

    def read(self) -> JudgedQueries:
        """Reads.

        Raises:
          CorpusError: no such column, a value that is missing, a grade that is no number or outside of `grades`,
            another fold, an item or a query that is not in its table, or there twice, or a query in two folds or with
            two texts.
        """
        columns = {name: getattr(self, name) for name in ("query_id", "query", "item_id", "grade", "fold")}
        pairs = _columns(self.judgements_path, columns) if self.queries_path is None else self._with_queries(columns)
        items = _columns(self.items_path, {"item_id": self.items_id, "text": self.text})
        _refuse(items, items["item_id"].is_null(), self.items_path, self.items_id, "an id")
        _refuse(items, ~items["item_id"].is_first_distinct(), self.items_path, self.items_id, "each item once")
        for name in ("query_id", "item_id"):
            _refuse(pairs, pairs[name].is_null(), self.judgements_path, columns[name], "an id")
        empty = pairs["query"].fill_null("").str.strip_chars() == ""
        _refuse(pairs, empty, self.judgements_path, self.query, "the words of a query")
        pairs = pairs.with_columns(number=pairs["grade"].cast(pl.Float64, strict=False))
        wrong = ~pairs["number"].is_finite().fill_null(False)
        _refuse(pairs, wrong, self.judgements_path, self.grade, "a number", "grade")
        if self.grades is not None:
            lowest, highest = self.grades
            wrong = ~pairs["number"].is_between(lowest, highest)
            _refuse(pairs, wrong, self.judgements_path, self.grade, f"a grade from {lowest} to {highest}", "grade")
        wrong = ~pairs["fold"].is_in(list(NAMES)).fill_null(False)
        _refuse(pairs, wrong, self.judgements_path, self.fold, f"one of {', '.join(NAMES)}", "fold")
        wrong = ~pairs["item_id"].is_in(items["item_id"].implode())
        _refuse(pairs, wrong, self.judgements_path, self.item_id, f"an item of {self.items_path}", "item_id")
        queries = pairs.unique("query_id", keep="first", maintain_order=True).select("query_id", "query", "fold")
        first = pairs.join(queries, on="query_id", how="left", maintain_order="left", suffix="_first")
        for name in ("query", "fold"):
            other = first[name] != first[f"{name}_first"]
            _refuse(pairs, other, self.judgements_path, columns[name], f"one {name} of a query_id", name)
        number = {one: place for place, one in enumerate(queries["query_id"])}
        place = {one: row for row, one in enumerate(items["item_id"])}
        found = (
            pairs.select(
                query=pl.col("query_id").replace_strict(number, return_dtype=pl.Int32),
                item=pl.col("item_id").replace_strict(place, return_dtype=pl.Int32),
                grade=pl.col("number").cast(pl.Float32),
            )
            .group_by("query", "item")
            .agg(pl.col("grade").mean())
            .sort("query", "item")
        )
        return JudgedQueries(
            tuple(items["item_id"]),
            tuple(items["text"].fill_null("")),
            tuple(queries["query"]),
            queries["fold"].replace_strict(NAMES, return_dtype=pl.Int8).to_numpy(),
            *(found[name].to_numpy() for name in ("query", "item", "grade")),
        )

    def _with_queries(self, columns: dict[str, str]) -> pl.DataFrame:
        """Columns of the judgements, and of the queries' table."""
        assert self.queries_path is not None
        of_queries = ("query_id", "query", "fold")
        pairs = _columns(self.judgements_path, {name: columns[name] for name in ("query_id", "item_id", "grade")})
        queries = _columns(self.queries_path, {name: columns[name] for name in of_queries})
        _refuse(queries, ~queries["query_id"].is_first_distinct(), self.queries_path, self.query_id, "each query once")
        unknown = ~pairs["query_id"].is_in(queries["query_id"].drop_nulls().implode()).fill_null(False)
        _refuse(pairs, unknown, self.judgements_path, self.query_id, f"a query of {self.queries_path}", "query_id")
        return pairs.join(queries.select(of_queries), on="query_id", how="left", maintain_order="left")


def _columns(path: str, columns: dict[str, str]) -> pl.DataFrame:
    """`ROW` and the columns under their new names, as text."""
    with contextlib.ExitStack() as stack:
        frame = open_file(path, stack, skip_wrong_encoding=False).select(columns).collect()
    return frame.with_columns(pl.col(*columns).cast(pl.String))


def _refuse(
    frame: pl.DataFrame, wrong: pl.Series, path: str, field: str, expected: str, shown: str | None = None
) -> None:
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        got = "" if shown is None else f", got {frame[shown][row]!r}"
        raise CorpusError(f"expected {expected}{got}; mend the row", file=path, row=frame[ROW][row], field=field)
