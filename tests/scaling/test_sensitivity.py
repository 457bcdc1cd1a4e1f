"""The table of conventions: a planted difference shows in the row that it belongs to."""

import polars as pl
import pytest

from plum_jax.scaling.loss_analysis import Settings
from plum_jax.scaling.run_tables import make_runs
from plum_jax.scaling.sensitivity import sensitivity
from tests.scaling.planted_study import LAW, planted_rows


def test_each_convention_moves_what_it_should():
    rows = [row for row in planted_rows(budgets=5, noise=0.001) if not row["held_out"]]
    for row in rows:
        # FLOPs a token go as N^0.8, and the parameters without embedding as N^1.25.
        row["flops"] = 6 * row["parameters"] ** 0.8 * row["tokens"] * 10
        row["non_embedding_parameters"] = row["parameters"] ** 1.25 / 20
        row["activated_parameters"] = row["parameters"]
    runs = make_runs(pl.DataFrame(rows))
    table = sensitivity(runs, Settings())
    found = {row.change: row for row in table}
    assert table[0].change == "as analysed: N is parameters, C is flops"
    assert table[0].alpha == pytest.approx(LAW.alpha, abs=0.05)
    bent = found["C is flops, which goes as N^0.80 D"]
    assert bent.a == pytest.approx(table[0].beta / (table[0].alpha + 0.8 * table[0].beta), rel=1e-3)
    # L = A N^-alpha = A' M^-(alpha / 1.25) when M goes as N^1.25.
    assert found["N is N_non_embedding"].alpha == pytest.approx(table[0].alpha / 1.25, rel=0.01)
    assert found["N is N_non_embedding"].beta == pytest.approx(table[0].beta, rel=0.01)
    assert "N is N_activated" not in found, "a convention that is no other one"
    assert found["without the largest loss"].runs == 39
    assert all(row.a is not None for row in table)
