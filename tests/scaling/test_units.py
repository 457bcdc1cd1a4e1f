"""Tables of runs in other units, and runs with values that cannot be one."""

import polars as pl
import pytest

from plum_jax.scaling.run_fields import RunsError
from plum_jax.scaling.run_tables import make_runs, read_runs

ROWS = pl.DataFrame({"params": [110.0, 370.0, 900.0], "tokens": [2.2, 7.4, 18.0], "loss": [3.1, 2.8, 2.6]})


@pytest.mark.parametrize(
    ("million", "billion"), [("millions", "billions"), (1e6, 1e9), ("millions", 1e9), (1_000_000, "billions")]
)
def test_a_unit_or_a_factor_gives_the_table_in_ones(million, billion):
    columns = {"N": ("params", million), "D": ("tokens", billion), "loss": "loss"}
    runs = make_runs(ROWS, columns)
    assert runs.table["N"].to_list() == [110e6, 370e6, 900e6] and runs.notes == ()
    plain = make_runs(
        ROWS.with_columns(pl.col("params") * 1e6, pl.col("tokens") * 1e9), {**columns, "N": "params", "D": "tokens"}
    )
    assert runs.table["C"].to_list() == pytest.approx(plain.table["C"].to_list(), rel=1e-12)


def test_sizes_and_tokens_that_can_hardly_be_are_warned_of_with_what_to_set():
    first, second = make_runs(ROWS, {"N": "params", "D": "tokens", "loss": "loss"}).notes
    assert "110 parameters" in first and "set 'N': ('params', 'millions') in COLUMNS" in first
    assert "2.2 tokens" in second and "set 'D': ('tokens', 'billions') in COLUMNS" in second


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (("params", "milions"), "unknown unit 'milions': did you mean millions"),
        (("params", -1.0), "expected a unit .* or a positive factor, got -1.0"),
        (("params",), r"expected a column or \(column, unit\) for N"),
    ],
)
def test_a_unit_that_is_none_is_one_error(column, message):
    with pytest.raises(RunsError, match=message):
        make_runs(ROWS, {"N": column, "D": "tokens", "loss": "loss"})


def test_a_run_whose_loss_is_no_number_is_refused_or_counted(tmp_path):
    path = tmp_path / "runs.csv"
    ROWS.with_columns(loss=pl.Series([3.1, float("nan"), 2.6])).write_csv(path)
    columns = {"N": ("params", 1e6), "D": ("tokens", 1e9), "loss": "loss"}
    with pytest.raises(RunsError, match=r"runs.csv, row 2: .*'loss' \(loss\), got .*on_bad_row='skip'"):
        read_runs(path, columns)
    runs = read_runs(path, columns, on_bad_row="skip")
    assert runs.table["status"].to_list() == ["finished", "skipped: bad loss", "finished"]
    assert runs.usable("loss")["N"].to_list() == [110e6, 900e6]
    with pytest.raises(RunsError, match="on_bad_row must be 'error' or 'skip', got 'drop'"):
        read_runs(path, columns, on_bad_row="drop")
