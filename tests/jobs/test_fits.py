"""The commands on tables of runs."""

import json

import polars as pl
import pytest

from plum_jax import run
from tests.scaling.planted_study import planted_rows


def test_any_table_by_a_mapping(tmp_path, capsys):
    rows = [row for row in planted_rows(budgets=5) if not row["held_out"]]
    columns = {"N": "n", "D": "d", "loss": "final", "budget": "group"}
    frame = pl.DataFrame(rows).select(n="parameters", d="tokens", final="loss", group="budget")
    frame.write_csv(tmp_path / "runs.csv")
    flags = [f"--gin.RUNS='{tmp_path}/runs.csv'", f"--gin.COLUMNS={columns}", f"--gin.MODEL_DIR='{tmp_path}/fits'"]
    run.main(["--gin_file=gin/run/fit.gin", *flags, "--gin.DRAWS=5"])
    assert "iso-FLOP parabolas" in capsys.readouterr().out
    assert json.loads((tmp_path / "fits" / "fits.json").read_text())["rate"] is None


def test_what_a_user_can_mend_is_one_line(tmp_path):
    flags = [f"--gin.RUNS='{tmp_path}/none.csv'", f"--gin.MODEL_DIR='{tmp_path}/fits'"]
    with pytest.raises(SystemExit, match="plum: there is no table of runs at"):
        run.main(["--gin_file=gin/run/fit.gin", *flags])
