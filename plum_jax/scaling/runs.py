"""A table of runs, ours or anybody's, checked and kept whole.

Nothing is thrown away: a run that failed stays as a row that is counted and not fitted, an outlier stays as a row that
says by which rule it was left out, and the several conventions of N and C stay side by side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import polars as pl

from plum_jax.scaling.run_fields import FIELDS, FINISHED, FLOPS_PER_ND, RunsError


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
      notes: what looks wrong about the table, a line each with what to set.
    """

    table: pl.DataFrame
    flops_per_nd: float = FLOPS_PER_ND
    source: str = "table"
    parameter_convention: str = "N"
    flops_convention: str = "C"
    checkpoints: bool = False
    notes: tuple[str, ...] = ()

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
