"""The search of CPT's rates by the command line: rows by Frank-Wolfe, a file that a run takes, proxies made once."""

import json

import numpy as np
import pytest
from own_csv_run import SIZES

from gin import config as gin
from plum_jax import run
from plum_jax.systems.generative.mixture_rates import MixtureSearch, rates_gin


def command(own_csv, model_dir, **more):
    files = ["gin/run/mixture_rates.gin", str(own_csv / "own.gin"), "gin/model/cpu_nano.gin"]
    settings = {**SIZES, "PROXY_STEPS": 4, "PROXY_ROUNDS": 2, "PROXY_TOLERANCE": 0.0, **more}
    bindings = [f"--gin.{name}={value}" for name, value in {**settings, "MODEL_DIR": f"'{model_dir}'"}.items()]
    return [*(f"--gin_file={file}" for file in files), *bindings]


def test_rounds_follow_frank_wolfe_and_the_file_is_a_runs(own_csv, tmp_path, plum):
    done = plum.run(command(own_csv, tmp_path / "run"))
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads((tmp_path / "run/mixture_rates/rounds.json").read_text())
    assert [row["round"] for row in rows] == [0, 1]
    told = [[np.array(list(row[what].values())) for what in ("rates", "excess")] for row in rows]
    for row, (rates, excess) in zip(rows, told, strict=True):
        assert rates.sum() == pytest.approx(1.0, abs=1e-5) and rates.min() > 0
        assert row["gap"] == pytest.approx(excess.max() - rates @ excess, abs=1e-4)
    for number, ((rates, excess), (moved, _)) in enumerate(zip(told, told[1:], strict=False)):
        worst = np.zeros_like(rates)
        worst[np.argmax(excess)] = 1.0
        np.testing.assert_allclose(moved, rates + 2 / (number + 4) * (worst - rates), atol=1e-5)
    best = min(rows, key=lambda row: max(row["excess"].values()))
    file = tmp_path / "run/mixture_rates/rates.gin"
    assert file.read_text() == rates_gin(best["rates"])
    try:
        files = ["gin/run/pipeline.gin", str(own_csv / "own.gin"), "gin/model/cpu_nano.gin", str(file)]
        run.configure(files, ["MODEL_DIR = '/nowhere'"])
        pipeline = gin.query_parameter("%PIPELINE").scoped_configurable_fn()
    finally:
        gin.clear_config()
    assert pipeline.cpt.rates == best["rates"] and pipeline.retrieval.rates is None

    # What is finished is read: one round more trains one proxy more.
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/mixture_rates").glob("*/losses.json")}
    done = plum.run(command(own_csv, tmp_path / "run", PROXY_ROUNDS=3))
    assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads((tmp_path / "run/mixture_rates/rounds.json").read_text())
    assert again[:2] == rows and len(again) == 3
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_one_task_alone_has_no_rates_to_choose(monkeypatch, tmp_path):
    class Stages:
        cpt_records = tmp_path

    one = [type("Task", (), {"name": "watch_history", "rate": 1.0})()]
    monkeypatch.setattr("plum_jax.feeds.token_records.read_tasks", lambda directory: one)
    with pytest.raises(ValueError, match=r"at least two tasks to choose rates of, got \['watch_history'\]"):
        MixtureSearch().choose(Stages())
