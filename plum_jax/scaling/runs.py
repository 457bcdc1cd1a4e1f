"""A table of runs, ours or anybody's: read by a column mapping, checked, and kept whole.

Nothing is thrown away: a run that failed stays as a row that is counted and not fitted, an outlier stays as a row that
says by which rule it was left out, and the several conventions of N and C stay side by side.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from etils import epath

FLOPS_PER_ND = 6.0
FINISHED = "finished"

# Field -> what it is. A mapping names fields of this list.
NUMBERS = {
    "N": "parameters that the law is about",
    "D": "tokens trained on, repeated ones counted again",
    "C": "FLOPs spent",
    "budget": "FLOPs intended: what groups the runs of one iso-FLOP curve",
    "loss": "held-out loss in nats a token",
    "loss_se": "its standard error",
    "recall": "a rate in [0, 1] that is better when it is larger",
    "hits": "how many users the rate counted, not divided",
    "users": "how many users were asked",
    "learning_rate": "peak learning rate",
    "unique_tokens": "tokens before repetition",
    "epochs": "D / unique_tokens",
    "N_non_embedding": "parameters without embedding and head",
    "N_activated": "parameters that one token meets (mixture of experts)",
    "N_activated_non_embedding": "the same without embedding and head",
    "C_spent": "FLOPs spent for the run alone, where runs share a trunk; C is that of the whole path",
    "C_6nd": "6 N D by the N of whoever wrote the table",
    "wall_seconds": "how long the run took",
}
TEXTS = {
    "run": "identity of a run; its checkpoints share it",
    "size": "name of the model's size",
    "seed": "of the run",
    "status": "'finished', or what went wrong",
    "reason": "why it went wrong",
}
FLAGS = {"held_out": "true for the runs that no fit may see"}
FIELDS = {**NUMBERS, **TEXTS, **FLAGS}
POSITIVE = ("N", "D", "C", "budget", "loss", "learning_rate", "users", "unique_tokens", "epochs", "C_6nd")
SUFFIXES = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
MAY_BE_ZERO = ("C_spent", "loss_se", "recall", "hits", "wall_seconds")

# The rows of a study of ours (`STUDY_DIR/results.jsonl`).
OURS = {
    **{name: name for name in FIELDS},
    "run": "name",
    "N": "parameters",
    "D": "tokens",
    "C": "flops",
    "recall": "recall@10",
    "hits": "hits@10",
    "N_non_embedding": "non_embedding_parameters",
    "N_activated": "activated_parameters",
    "N_activated_non_embedding": "activated_non_embedding_parameters",
    "C_6nd": "flops_6nd",
    "C_spent": "flops_spent",
}


class RunsError(ValueError):
    """A table of runs cannot be read: a column is missing, or a value cannot be one."""


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs as rows, in the order of the file.

    Attributes:
      table: columns of `FIELDS` that there are, and `row` (1 is the file's first row), `excluded` (the rule that left
        the row out, else null).
      flops_per_nd: the convention that gave the third of N, D and C where the table has two.
      source: file, for messages and reports.
      parameter_convention: which column N is.
      flops_convention: which column C is, or "6 N D".
      checkpoints: whether every checkpoint of a run is a row for the fits; else the one with most tokens is, since a
        checkpoint in the middle of a learning-rate schedule is not a run of that length.
    """

    table: pl.DataFrame
    flops_per_nd: float = FLOPS_PER_ND
    source: str = "table"
    parameter_convention: str = "N"
    flops_convention: str = "C"
    checkpoints: bool = False

    def usable(
        self, value: str = "loss", held_out: bool | None = False, checkpoints: bool | None = None
    ) -> pl.DataFrame:
        """Rows that a fit of `value` may see: finished, not left out, value there; one row a run.

        Args:
          value: column that must not be missing; "N", "D" and "C" must not be, too.
          held_out: only the runs that are held out (True), only the others (False), or all (None).
          checkpoints: whether every checkpoint of a run is wanted; None: as the table says.
        """
        table = self.table.filter(pl.col("status") == FINISHED, pl.col("excluded").is_null())
        if value not in table.columns:
            raise RunsError(f"{self.source}: no column was mapped to {value} ({FIELDS.get(value, 'unknown field')})")
        table = table.drop_nulls(["N", "D", "C", value])
        if held_out is not None:
            table = table.filter(pl.col("held_out") == held_out)
        if not (self.checkpoints if checkpoints is None else checkpoints):
            table = table.filter(pl.col("D") == pl.col("D").max().over("run"))
        return table.sort("row")

    def require(self, value: str) -> None:
        """Raises `RunsError` with what became of all rows where no run may be fitted."""
        if self.usable(value).is_empty():
            fates = ", ".join(f"{count} {fate}" for fate, count in self.counts().items()) or "no rows"
            raise RunsError(f"{self.source} has no finished run with N, D, C and {value} that may be fitted: {fates}")

    def counts(self) -> dict[str, int]:
        """Rows by what became of them: status, or "left out: <rule>", or "held out"."""
        fate = (
            pl.when(pl.col("status") != FINISHED)
            .then(pl.col("status"))
            .when(pl.col("excluded").is_not_null())
            .then("left out: " + pl.col("excluded"))
            .when(pl.col("held_out"))
            .then(pl.lit("held out"))
            .otherwise(pl.lit(FINISHED))
        )
        counted = self.table.select(fate.alias("fate"))["fate"].value_counts(sort=True)
        return dict(counted.sort(["count", "fate"], descending=[True, False]).iter_rows())

    def failed(self) -> pl.DataFrame:
        """Rows of runs that did not finish, with status and reason."""
        return self.table.filter(pl.col("status") != FINISHED)

    def with_checkpoints(self, checkpoints: bool) -> Runs:
        """The same runs with every checkpoint for the fits, or with the last of each run."""
        return dataclasses.replace(self, checkpoints=checkpoints)

    def under(self, parameters: str = "N", flops: str = "C") -> Runs:
        """The same runs with another column for N, and another or "6ND" for C; the sensitivity table's step."""
        for field in (parameters, flops):
            if field != "6ND" and field not in self.table.columns:
                raise RunsError(f"{self.source} has no column for {field}; it has {', '.join(self.table.columns)}")
        table = self.table.with_columns(pl.col(parameters).alias("N"))
        table = table.with_columns(
            (self.flops_per_nd * pl.col("N") * pl.col("D") if flops == "6ND" else pl.col(flops)).alias("C")
        )
        return dataclasses.replace(self, table=table, parameter_convention=parameters, flops_convention=flops)

    def left_out(self, rows: Sequence[int], rule: str) -> Runs:
        """The same runs with these rows (numbers of `row`) left out by a rule that is named in every report."""
        marked = pl.when(pl.col("row").is_in(list(rows)) & pl.col("excluded").is_null())
        excluded = marked.then(pl.lit(rule)).otherwise(pl.col("excluded"))
        return dataclasses.replace(self, table=self.table.with_columns(excluded.alias("excluded")))

    def all_taken_back(self) -> Runs:
        """The same runs with nothing left out."""
        return dataclasses.replace(self, table=self.table.with_columns(pl.lit(None, pl.String).alias("excluded")))

    def without_largest_losses(self, count: int) -> Runs:
        """Leaves out the `count` largest losses (2404.10102 left out five of 245)."""
        worst = self.usable("loss").sort("loss", descending=True).head(count)
        return self.left_out(worst["row"].to_list(), f"one of the {count} largest losses")

    def with_best_learning_rates(self) -> Runs:
        """Leaves out all but the best learning rate of each cell (N and budget, or N and D without budgets).

        The best is the one with the least mean loss over seeds, and all its seeds stay: the least single loss would be
        the minimum over noise.
        """
        if "learning_rate" not in self.table.columns:
            return self
        trials = self.usable("loss", held_out=None).drop_nulls("learning_rate")
        cell = ["N", "budget"] if "budget" in self.table.columns else ["N", "D"]
        means = trials.group_by([*cell, "learning_rate"], maintain_order=True).agg(pl.col("loss").mean().alias("mean"))
        best = means.filter(pl.col("mean") == pl.col("mean").min().over(cell)).drop("mean")
        worse = trials.join(best, on=[*cell, "learning_rate"], how="anti", nulls_equal=True)
        return self.left_out(worse["row"].to_list(), "not the best learning rate of its cell")

    def with_budgets_by_flops(self, tolerance: float = 0.1) -> Runs:
        """The same runs grouped by achieved FLOPs, for a table without intended budgets.

        Runs are sorted by C, and a new group begins where the next is more than `tolerance` (relative) above the first
        of its group. A group is named by the geometric mean of its FLOPs. Intended budgets are better: two that are
        close are merged here.
        """
        flops = self.table.select("row", "C").drop_nulls().sort("C")
        groups, first = [], None
        for value in flops["C"]:
            first = value if first is None or value > first * (1 + tolerance) else first
            groups.append(first)
        named = flops.with_columns(pl.Series("group", groups))
        named = named.with_columns(pl.col("C").log().mean().over("group").exp().alias("budget")).drop("C", "group")
        table = self.table.drop("budget", strict=False).join(named, on="row", how="left", maintain_order="left")
        return dataclasses.replace(self, table=table)


def read_runs(
    path: epath.PathLike, columns: Mapping[str, str] | None = None, flops_per_nd: float = FLOPS_PER_ND
) -> Runs:
    """Runs of a CSV, JSONL or Parquet file.

    Args:
      path: ends in .csv, .jsonl or .parquet.
      columns: field of `FIELDS` -> the file's column; None for a study of ours. N, D, C: at least two.
      flops_per_nd: gives the third of N, D and C.

    Raises:
      RunsError: no such file or ending, an unknown field, a missing column, or a value that cannot be one; with row.
    """
    path = epath.Path(path)
    if not path.exists():
        raise RunsError(f"there is no table of runs at {path}")
    if path.suffix == ".csv":
        frame = pl.read_csv(path.read_bytes(), infer_schema_length=None)
    elif path.suffix == ".parquet":
        frame = pl.read_parquet(path.read_bytes())
    elif path.suffix in (".jsonl", ".ndjson"):
        frame = _read_json_lines(path)
    else:
        raise RunsError(f"expected a table of runs that ends in .csv, .jsonl or .parquet, got {path}")
    return make_runs(frame, columns, flops_per_nd, source=str(path))


def make_runs(
    frame: pl.DataFrame,
    columns: Mapping[str, str] | None = None,
    flops_per_nd: float = FLOPS_PER_ND,
    source: str = "table",
) -> Runs:
    """Runs of a frame; arguments and errors as `read_runs` has them."""
    mapping = _mapping(frame, columns, source)
    table = frame.select(pl.col(column).alias(field) for field, column in mapping.items())
    table = table.with_row_index("row", offset=1).with_columns(pl.col("row").cast(pl.Int64))
    table = _typed(table, mapping, source)
    _check_values(table, mapping, source)
    of_parameters = mapping.get("N", f"C / ({flops_per_nd:g} D)")
    of_flops = mapping.get("C", f"{flops_per_nd:g} N D")
    return Runs(_completed(table, flops_per_nd), flops_per_nd, source, of_parameters, of_flops)


def _read_json_lines(path: epath.Path) -> pl.DataFrame:
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise RunsError(f"{path}, line {number} is not JSON ({error})") from None
    return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def _mapping(frame: pl.DataFrame, columns: Mapping[str, str] | None, source: str) -> dict[str, str]:
    """Field -> column, each of them there."""
    if columns is None:
        mapping = {field: column for field, column in OURS.items() if column in frame.columns}
        if "name" not in frame.columns or len({"N", "D", "C"} & mapping.keys()) < 2:
            raise RunsError(
                f"{source} is not the results.jsonl of a study (it has {', '.join(frame.columns)}): say which columns "
                "to read, e.g. {'N': 'params', 'D': 'tokens', 'loss': 'final_loss'}"
            )
        return mapping
    for field, column in columns.items():
        if field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"fields are {', '.join(FIELDS)}"
            raise RunsError(f"the mapping of columns has the unknown field {field!r}: {hint}")
        if column not in frame.columns:
            near = difflib.get_close_matches(column, frame.columns, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise RunsError(f"{source} has no column {column!r} for {field}: {hint}It has {', '.join(frame.columns)}")
    if len({"N", "D", "C"} & columns.keys()) < 2:
        raise RunsError(f"expected columns for at least two of N, D and C, got only {', '.join(columns) or 'nothing'}")
    return dict(columns)


def _typed(table: pl.DataFrame, mapping: Mapping[str, str], source: str) -> pl.DataFrame:
    for field, column in mapping.items():
        if field in TEXTS:
            table = table.with_columns(pl.col(field).cast(pl.String))
            continue
        cast = table[field].cast(pl.Boolean, strict=False) if field in FLAGS else _numbers(table[field])
        bad = table.filter(table[field].is_not_null() & cast.is_null())
        if len(bad):
            row, value = bad["row"][0], bad[field][0]
            kind = "true or false" if field in FLAGS else "a number"
            raise RunsError(f"{source}, row {row}: expected {kind} in column {column!r} ({field}), got {value!r}")
        table = table.with_columns(cast.alias(field))
    return table


def _numbers(column: pl.Series) -> pl.Series:
    """Floats; text may say "110M" for 110 million."""
    plain = column.cast(pl.Float64, strict=False)
    if column.dtype != pl.String:
        return plain
    frame = pl.DataFrame({"text": column})
    number = frame["text"].str.extract(r"^\s*([0-9.]+)\s*([KMBT])\s*$").cast(pl.Float64, strict=False)
    suffix = frame["text"].str.extract(r"^\s*([0-9.]+)\s*([KMBT])\s*$", 2).replace_strict(SUFFIXES, default=None)
    return pl.select(pl.coalesce(plain, number * suffix)).to_series()


def _check_values(table: pl.DataFrame, mapping: Mapping[str, str], source: str) -> None:
    """Every number can be one; rows of runs that did not finish may have any loss."""
    finished = table.filter(pl.col("status") == FINISHED) if "status" in table.columns else table

    def refuse(rule: pl.Expr, field: str, expected: str) -> None:
        bad = finished.filter(rule)
        if len(bad):
            row, value = bad["row"][0], bad[field][0]
            raise RunsError(
                f"{source}, row {row}: expected {expected} in column {mapping[field]!r} ({field}), got {value:g}: mend "
                "or leave out the row, or give it a status other than 'finished'"
            )

    for field in mapping:
        value = pl.col(field)
        if field in POSITIVE or field.startswith("N_"):
            refuse(~((value > 0) & value.is_finite()), field, "a positive number")
        elif field in MAY_BE_ZERO:
            refuse(~((value >= 0) & value.is_finite()), field, "a number that is not negative")
    if "recall" in mapping:
        refuse(pl.col("recall") > 1, "recall", "a rate of at most 1")
    if "hits" in mapping and "users" in mapping:
        refuse(pl.col("hits") > pl.col("users"), "hits", "no more hits than users")


def _completed(table: pl.DataFrame, flops_per_nd: float) -> pl.DataFrame:
    """The third of N, D and C, the rate from its counts, and what the fits rely on: run, status, held_out, excluded."""
    third = {
        "N": pl.col("C") / pl.col("D") / flops_per_nd if "N" not in table.columns else None,
        "D": pl.col("C") / pl.col("N") / flops_per_nd if "D" not in table.columns else None,
        "C": flops_per_nd * pl.col("N") * pl.col("D") if "C" not in table.columns else None,
    }
    table = table.with_columns(expression.alias(name) for name, expression in third.items() if expression is not None)
    if "recall" not in table.columns and {"hits", "users"} <= set(table.columns):
        table = table.with_columns((pl.col("hits") / pl.col("users")).alias("recall"))
    defaults: dict[str, Any] = {
        "run": pl.format("row {}", "row"),
        "status": pl.lit(FINISHED),
        "held_out": pl.lit(False),
    }
    table = table.with_columns(value.alias(name) for name, value in defaults.items() if name not in table.columns)
    # Not told to be held out, not told to have failed.
    table = table.with_columns(pl.col("held_out").fill_null(False), pl.col("status").fill_null(FINISHED))
    return table.with_columns(pl.lit(None, pl.String).alias("excluded"))
