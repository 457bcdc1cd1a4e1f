"""LUM's three steps by the public command, on somebody's CSV; a step that was killed goes on as if it was not."""

import dataclasses
import json

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from two_shops import LUM, TRAINING, stages

from plum_jax.systems.lum import system

SIZES = {
    "LUM_EPOCHS": None,
    "LUM_STEPS": 4,
    "LUM_WIDTH": 16,
    "LUM_HEADS": 1,
    "LUM_HEAD_DIM": 16,
    "LUM_LAYERS": 1,
    "LUM_HISTORY_LENGTH": 8,
    "LUM_ROW_LENGTH": 16,
    "RANK_BATCH_SIZE": 16,
    "LABEL_AT_LEAST": 3.0,
    "ASKED": "{'good': {'rating': 5}, 'bad': {'rating': 1}}",
    "RANKERS": "{'din': @din/ranker.BehaviourRanker(), 'din_lum': @din/lum/ranker.BehaviourRanker()}",
    "BASE": "{'din_lum': 'din'}",
}


def test_the_command_constructs_asks_and_uses(own_csv, plum, tmp_path):
    arguments = [
        "--gin_file=gin/run/lum.gin",
        f"--gin_file={own_csv / 'own.gin'}",
        f"--gin.MODEL_DIR='{tmp_path}'",
        "--gin.SPLIT=@splits.UserTime()",
        *(f"--gin.{name}={value}" for name, value in SIZES.items()),
    ]
    done = plum.run(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row["name"]: row for row in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    assert {*rows} == {"lum", "din", "din_lum"} and rows["din_lum"]["base"] == "din"
    assert "recall@10" in rows["lum"] and "auc" in rows["din_lum"]
    asked = pq.read_table(tmp_path / "knowledge/lum/lum_moments.parquet")
    assert sorted(asked["event"].to_pylist()) == list(range(100))
    users = pq.read_table(tmp_path / "users/lum/lum_users.parquet")
    assert len(users) == 10 and len(users["answers"][0].as_py()) == 2 * 16
    wrong = plum.run([*arguments, "--gin.ASKED={'dear': {'price': 5}}"])
    assert wrong.returncode == 1 and "expected values of fields among ['rating'], got ['price']" in wrong.stderr
    other = plum.run([*arguments, "--gin.LUM_CONDITIONS=('weather',)"])
    assert other.returncode == 1 and "has no field 'weather' of events; it has gap, hour, weekday" in other.stderr


@pytest.mark.slow
def test_a_killed_construction_goes_on_as_the_one_that_was_not(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    evaluated, curve_on = [], system.curve_on

    def dying(*arguments):
        evaluate = curve_on(*arguments)

        def evaluate_or_die(params):
            evaluated.append(1)
            if len(evaluated) == 4:
                raise Killed
            return evaluate(params)

        return evaluate_or_die

    training = dataclasses.replace(TRAINING, steps=12, checkpoint_period=3, evaluation_period=4)
    lum = dataclasses.replace(LUM, training=training)
    whole = lum.fit(stages(tmp_path / "whole"), "lum")
    monkeypatch.setattr(system, "curve_on", dying)
    evaluated.append(1)
    with pytest.raises(Killed):
        lum.fit(stages(tmp_path / "killed"), "lum")
    resumed = lum.fit(stages(tmp_path / "killed"), "lum")
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    assert resumed.fingerprint == whole.fingerprint
