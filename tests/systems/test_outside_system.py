"""A system from outside the package: a class in a file of one's own, named in gin, compared like any other."""

import json
import os
import subprocess

import polars as pl
from own_csv_run import plum_command, user_environment

SYSTEM = '''
import dataclasses

import numpy as np

from plum_jax.evaluation.metrics import RankedItems
from plum_jax.evaluation.system import Ranking


@dataclasses.dataclass(frozen=True)
class LastWatchedFirst:
    """Recommends the history backwards, then all other items by their index."""

    def fit(self, stages, name):
        return Fitted(stages.split.corpus.num_items)


@dataclasses.dataclass(frozen=True)
class Fitted:
    num_items: int
    fingerprint: str = "last watched first"
    facts: dict = dataclasses.field(default_factory=lambda: {"parameters": 0, "train_seconds": 0.0})

    def rank(self, evaluation, k):
        items, unseen = (np.full((len(evaluation), k), -1, np.int32) for _ in range(2))
        for row in range(len(evaluation)):
            seen = list(dict.fromkeys(evaluation.history(row)[::-1].tolist()))
            others = [item for item in range(self.num_items) if item not in seen]
            for lists, ranked in ((items, seen + others), (unseen, others)):
                lists[row, : len(ranked[:k])] = ranked[:k]
        return Ranking(RankedItems(items, unseen))
'''
GIN = """
from __gin__ import dynamic_registration
from plum_jax.systems import popularity
import my_systems
SYSTEMS = {'popularity': @popularity.Popularity(), 'mine': @my_systems.LastWatchedFirst()}
QUANTIZER = None
FEATURES = ()
"""


def test_a_system_of_ones_own_is_compared_and_no_semantic_ids_are_made_for_it(own_csv, tmp_path):
    (tmp_path / "my_systems.py").write_text(SYSTEM)
    (tmp_path / "mine.gin").write_text(GIN)
    run = tmp_path / "run"
    command = plum_command(own_csv, run)
    # The last gin file: behind those that it overrides.
    last = max(place for place, argument in enumerate(command) if argument.startswith("--gin_file"))
    command.insert(last + 1, f"--gin_file={tmp_path / 'mine.gin'}")
    environment = {
        **user_environment(),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in map(json.loads, (run / "results.jsonl").read_text().splitlines())}
    assert list(rows) == ["popularity", "mine"]
    assert not any((run / name).exists() for name in ("sids", "features", "vocabulary", "train"))
    ranks = pl.read_parquet(run / "evaluation" / "mine.per_user.parquet")
    expected = float((ranks["rank"] < 5).fill_null(False).mean())
    assert rows["mine"]["recall@5"] == expected and rows["mine"]["users"] == len(ranks)
    assert "mine" in (run / "report.html").read_text()
