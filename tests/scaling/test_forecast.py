"""Sealed forecasts: of a planted study they hold, beat the baselines, and cannot be made twice, late or changed."""

import datetime
import json

import numpy as np
import polars as pl
import pytest

from plum_jax import run
from plum_jax.scaling import forecast
from plum_jax.scaling.forecast import ForecastError, read_forecast, seal_forecast
from plum_jax.scaling.forecast_score import score_forecast, score_text
from plum_jax.scaling.loss_analysis import Settings
from tests.scaling.planted_study import planted_rows

SETTINGS = Settings(draws=60, chance=0.003)
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def write_results(directory, rows):
    (directory / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def study_directory(directory, rows):
    """A planned study whose runs have finished but the held-out ones."""
    names = ("budget", "parameters", "tokens", "flops", "held_out", "seed", "size")
    cells = [{"cell_id": row["name"], **{name: row[name] for name in names}} for row in rows]
    (directory / "plan.json").write_text(json.dumps({"cells": cells}))
    write_results(directory, [row for row in rows if not row["held_out"]])
    return directory


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    directory = study_directory(tmp_path_factory.mktemp("study"), planted_rows(budgets=5))
    return directory, seal_forecast(directory, SETTINGS, "abc123", NOW)


def copied(sealed, tmp_path):
    for name in ("plan.json", "results.jsonl", "forecast.json"):
        (tmp_path / name).write_text((sealed[0] / name).read_text())
    return tmp_path


def test_it_says_what_it_was_made_from(sealed):
    directory, content = sealed
    assert read_forecast(directory) == content
    assert content["sealed_at"] == "2026-01-02T03:04:05+00:00"
    assert content["commit"] == "abc123"
    assert len(content["cells"]) == 10
    assert len(content["rows"]) == 40
    assert content["about"]["form"]["name"].startswith("F4")
    assert not {cell["name"] for cell in content["cells"]} & set(content["rows"])


def test_it_holds_and_beats_the_baselines(sealed, tmp_path):
    directory = copied(sealed, tmp_path)
    rows = planted_rows(budgets=5)
    write_results(directory, [*rows[:-1], rows[-1] | {"status": "diverged", "loss": None, "recall@10": None}])
    score = score_forecast(directory)
    assert score.coverage["loss"] >= 0.75
    assert score.coverage["recall"] >= 0.75
    assert all(scored.inside for scored in score.best)
    for baseline in (forecast.LAST_POINT, forecast.STRAIGHT_LINE):
        for metric in ("loss", "recall"):
            assert score.forecast_errors[metric] < score.baseline_errors[baseline][metric]
    assert score.failed == {rows[-1]["name"]: "diverged"}
    assert score.rows_as_sealed
    text = score_text(score)
    assert "runs inside their 90% intervals" in text
    assert "(diverged)" in text
    assert json.loads((directory / "forecast_score.json").read_text())["coverage"]["loss"] == score.coverage["loss"]


def test_intervals_have_the_noise_of_the_runs_in_them(sealed):
    _, content = sealed
    for cell in content["cells"]:
        width = (cell["loss"]["high"] - cell["loss"]["low"]) / cell["loss"]["value"]
        # 90% of noise with sd 0.003 alone are 0.0099 wide.
        assert 0.008 < width < 0.06
        assert cell["recall"]["low"] < cell["recall"]["value"] < cell["recall"]["high"]


def test_it_is_sealed_once_and_in_time(sealed, tmp_path):
    directory, _ = sealed
    with pytest.raises(ForecastError, match="sealed once"):
        seal_forecast(directory, SETTINGS, None, NOW)
    late = study_directory(tmp_path, planted_rows(budgets=5))
    record = late / "cells" / "b04-size0-s0" / "record.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    with pytest.raises(ForecastError, match="reported already .*b04-size0-s0.* hindsight"):
        seal_forecast(late, SETTINGS, None, NOW)
    assert not (late / "forecast.json").exists()


def test_what_was_changed_afterwards_is_noticed(sealed, tmp_path):
    directory = copied(sealed, tmp_path)
    rows = planted_rows(budgets=5)
    write_results(directory, [rows[0] | {"loss": rows[0]["loss"] * 1.01}, *rows[1:]])
    score = score_forecast(directory)
    assert not score.rows_as_sealed
    assert "not those of results.jsonl any more" in score_text(score)
    content = json.loads((directory / "forecast.json").read_text())
    content["cells"][0]["loss"]["low"] -= 0.1
    (directory / "forecast.json").write_text(json.dumps(content))
    with pytest.raises(ForecastError, match="changed after it was sealed"):
        score_forecast(directory)


def test_clear_errors(tmp_path):
    with pytest.raises(ForecastError, match="there is no plan"):
        seal_forecast(tmp_path, SETTINGS, None, NOW)
    rows = planted_rows(budgets=2, seeds=1, held_out=0)
    study_directory(tmp_path, rows)
    with pytest.raises(ForecastError, match="holds no cell out"):
        seal_forecast(tmp_path, SETTINGS, None, NOW)
    study_directory(tmp_path, planted_rows(budgets=2, sizes=4, seeds=1))
    with pytest.raises(ForecastError, match="no loss law can be fitted"):
        seal_forecast(tmp_path, SETTINGS, None, NOW)
    with pytest.raises(ForecastError, match="there is no forecast"):
        score_forecast(tmp_path)


def test_nothing_to_score_yet(sealed, tmp_path):
    with pytest.raises(ForecastError, match="none of the 10 held-out runs has finished"):
        score_forecast(copied(sealed, tmp_path))


def test_the_commands(sealed, tmp_path, capsys):
    directory = copied(sealed, tmp_path)
    with pytest.raises(SystemExit, match="plum: .*sealed once"):
        run.main(["--gin_file=gin/run/study_forecast.gin", f"--gin.STUDY_DIR='{directory}'"])
    write_results(directory, planted_rows(budgets=5))
    run.main(["--gin_file=gin/run/study_score.gin", f"--gin.STUDY_DIR='{directory}'"])
    assert "mean absolute error of the best recall" in capsys.readouterr().out


def test_baselines():
    rows = pl.DataFrame(
        {
            "budget": [1.0, 1.0, 100.0, 100.0],
            "C": [1.0, 1.0, 100.0, 100.0],
            "N": [1.0, 2.0, 1.0, 2.0],
            "loss": [4.0, 5.0, 3.5, 3.0],
        }
    )
    last, line = forecast.baselines(rows, "loss", 1e4)
    assert last == 3.0
    assert line == pytest.approx(2.0)
    assert np.isfinite(line)
