"""Tables of runs: any file by a mapping, nothing lost on the way, one clear error for what cannot be read."""

import json

import polars as pl
import pytest

from plum_jax.scaling import run_fields
from plum_jax.scaling.run_fields import RunsError
from plum_jax.scaling.run_tables import make_runs, read_runs

ROWS = [
    {"params": 1e6, "toks": 1e8, "final": 3.0, "lr": 1e-3, "who": "a"},
    {"params": 1e6, "toks": 1e8, "final": 2.9, "lr": 2e-3, "who": "b"},
    {"params": 1e6, "toks": 1e8, "final": 3.1, "lr": 2e-3, "who": "c"},
    {"params": 2e6, "toks": 5e7, "final": 4.0, "lr": 1e-3, "who": "d"},
]
COLUMNS = {"N": "params", "D": "toks", "loss": "final", "learning_rate": "lr", "run": "who"}


def ours(**changes):
    row = {
        "name": "b00-d016-s0",
        "status": "finished",
        "parameters": 1000,
        "tokens": 2000,
        "flops": 13e6,
        "flops_6nd": 12e6,
        "non_embedding_parameters": 600,
        "loss": 2.0,
        "recall@10": 0.25,
        "hits@10": 25,
        "users": 100,
        "budget": 12e6,
        "seed": 0,
        "held_out": False,
    }
    return row | changes


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_table(tmp_path, ending):
    path = tmp_path / f"runs.{ending}"
    frame = pl.DataFrame(ROWS)
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[ending](path)
    read = read_runs(path, COLUMNS)
    assert read.table.drop("row").equals(make_runs(frame, COLUMNS).table.drop("row"))
    assert read.table["C"].to_list() == [6e14, 6e14, 6e14, 6e14]
    assert read.flops_convention == "6 N D"


def test_the_third_of_size_tokens_and_compute():
    frame = pl.DataFrame({"n": [2.0], "d": [5.0], "c": [80.0], "l": [1.0]})
    assert make_runs(frame, {"N": "n", "C": "c", "loss": "l"}, flops_per_nd=8).table["D"].to_list() == [5.0]
    assert make_runs(frame, {"D": "d", "C": "c", "loss": "l"}, flops_per_nd=8).table["N"].to_list() == [2.0]
    # With all three, what the table says stands.
    assert make_runs(frame, {"N": "n", "D": "d", "C": "c", "loss": "l"}).table["C"].to_list() == [80.0]


def test_a_study_of_ours_needs_no_mapping_and_failures_stay(tmp_path):
    rows = [
        ours(),
        ours(name="b00-d032-s0", status="diverged", reason="loss is nan at step 40", loss=None, flops=None),
        ours(name="b01-d032-s0", held_out=True, budget=24e6),
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    runs = read_runs(tmp_path / "results.jsonl")
    assert runs.usable("loss")["run"].to_list() == ["b00-d016-s0"]
    assert runs.usable("loss", held_out=True)["run"].to_list() == ["b01-d032-s0"]
    assert runs.counts() == {"finished": 1, "diverged": 1, "held out": 1}
    assert runs.failed()["reason"].to_list() == ["loss is nan at step 40"]
    assert runs.under("N_non_embedding", "6ND").table["C"][0] == 6 * 600 * 2000
    assert runs.under("N_non_embedding", "6ND").parameter_convention == "N_non_embedding"


def test_best_learning_rate_is_by_the_mean_over_seeds_and_can_be_taken_back():
    runs = make_runs(pl.DataFrame(ROWS), COLUMNS)
    # 2e-3 has the least single loss and the same mean as 1e-3 would not have: (2.9 + 3.1) / 2 = 3.0 ties with 3.0.
    worse = [dict(row, final=3.2) if row["who"] == "c" else row for row in ROWS]
    filtered = make_runs(pl.DataFrame(worse), COLUMNS).with_best_learning_rates()
    assert filtered.usable()["run"].to_list() == ["a", "d"]
    assert filtered.counts()["left out: not the best learning rate of its cell"] == 2
    assert filtered.all_taken_back().usable()["run"].to_list() == ["a", "b", "c", "d"]
    assert runs.without_largest_losses(1).usable()["run"].to_list() == ["a", "b", "c"]


def test_checkpoints_of_one_run_are_one_run():
    frame = pl.DataFrame({"N": [1.0, 1.0, 2.0], "D": [1.0, 2.0, 1.0], "l": [3.0, 2.0, 1.0], "id": ["x", "x", "y"]})
    runs = make_runs(frame, {"N": "N", "D": "D", "loss": "l", "run": "id"})
    assert runs.usable()["loss"].to_list() == [2.0, 1.0]
    assert runs.usable(checkpoints=True)["loss"].to_list() == [3.0, 2.0, 1.0]


def test_sizes_may_be_written_as_people_say_them(tmp_path):
    (tmp_path / "runs.csv").write_text("model,C,l\n110M,1e18,2\n3B,1e18,3\n1.5K,1e18,3\n")
    runs = read_runs(tmp_path / "runs.csv", {"N": "model", "C": "C", "loss": "l"})
    assert runs.table["N"].to_list() == [110e6, 3e9, 1500.0]
    (tmp_path / "runs.csv").write_text("model,C,l\n110X,1e18,2\n")
    with pytest.raises(RunsError, match="row 1: expected a number in column 'model'"):
        read_runs(tmp_path / "runs.csv", {"N": "model", "C": "C", "loss": "l"})


def test_groups_by_flops():
    frame = pl.DataFrame({"N": [1.0, 2.0, 3.0, 4.0], "C": [1.05e18, 3e18, 1e18, 3.1e18], "l": [1.0] * 4})
    runs = make_runs(frame, {"N": "N", "C": "C", "loss": "l"}).with_budgets_by_flops()
    budgets = runs.table["budget"].to_list()
    assert budgets[0] == budgets[2] == pytest.approx((1.05e18 * 1e18) ** 0.5)
    assert budgets[1] == budgets[3] == pytest.approx((3e18 * 3.1e18) ** 0.5)


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({}, COLUMNS | {"loss": "finl"}, "no column 'finl' for loss: did you mean final"),
        ({}, COLUMNS | {"los": "final"}, "unknown field 'los': did you mean loss"),
        ({}, {"N": "params", "loss": "final"}, "at least two of N, D and C"),
        ({}, None, "not the results.jsonl of a study"),
        ({"final": -1.0}, COLUMNS, r"row 4: expected a positive number in column 'final' \(loss\), got -1"),
        ({"toks": 0.0}, COLUMNS, "row 4: expected a positive number in column 'toks'"),
        ({"params": float("nan")}, COLUMNS, "row 4: expected a positive number in column 'params'"),
    ],
)
def test_one_clear_error(change, columns, message):
    with pytest.raises(RunsError, match=message):
        make_runs(pl.DataFrame([*ROWS[:3], ROWS[3] | change]), columns)


def test_clear_errors_of_files(tmp_path):
    (tmp_path / "runs.csv").write_text("N,D,loss\n1,1,2\n1,x,2\n")
    with pytest.raises(RunsError, match=r"row 2: expected a number in column 'D' \(D\), got 'x'"):
        read_runs(tmp_path / "runs.csv", {"N": "N", "D": "D", "loss": "loss"})
    (tmp_path / "runs.jsonl").write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(RunsError, match="line 2 is not JSON"):
        read_runs(tmp_path / "runs.jsonl")
    with pytest.raises(RunsError, match="there is no table"):
        read_runs(tmp_path / "none.csv")
    frame = pl.DataFrame([ours(**{"hits@10": 101})])
    with pytest.raises(RunsError, match="no more hits than users"):
        make_runs(frame)
    with pytest.raises(RunsError, match="no column was mapped to recall"):
        make_runs(pl.DataFrame(ROWS), COLUMNS).usable("recall")


def test_every_field_of_ours_is_a_field():
    assert set(run_fields.OURS) == set(run_fields.FIELDS)
