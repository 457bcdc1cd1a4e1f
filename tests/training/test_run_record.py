"""Run records: rows of a name and seed are replaced, others stay; a record says how it was made."""

import json

from plum_jax.training import run_record


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_of_the_same_name_data_and_seed_are_replaced(tmp_path):
    path = tmp_path / "study" / "results.jsonl"
    run_record.write_rows(path, [{"name": "a", "seed": 0, "x": 1}, {"name": "a", "seed": 1, "x": 2}])
    run_record.write_rows(path, [{"name": "a", "seed": 0, "x": 3}, {"name": "b", "seed": 0, "x": 4}])
    assert [(row["name"], row["seed"], row["x"]) for row in _rows(path)] == [("a", 1, 2), ("a", 0, 3), ("b", 0, 4)]
    run_record.write_rows(path, [{"name": "b", "seed": 0, "data": "other", "x": 5}])
    assert [row["x"] for row in _rows(path)] == [2, 3, 4, 5]


def test_a_record_says_how_it_was_made(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/plum", "--gin.MODEL_DIR='a b'"])
    row = run_record.run_record("model", {"recall@10": 0.5}, seed=3)
    assert row["recall@10"] == 0.5 and row["seed"] == 3
    assert row["command"] == "plum '--gin.MODEL_DIR='\"'\"'a b'\"'\"''"
    assert {"commit", "machine", "python", "jax"} <= set(row)
    json.dumps(row)
