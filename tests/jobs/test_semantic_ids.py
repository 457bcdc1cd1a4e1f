"""Semantic IDs from the command line: SID-v2 with its report, and a cell of a study of them."""

import json
import random

import pytest

from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.table import SidTable

CORPUS = """\
from __gin__ import dynamic_registration
from plum_jax.corpus import features
from plum_jax.corpus import new_items
from plum_jax.corpus import splits
from plum_jax.corpus.sources import table
include 'gin/corpus/table.gin'
table.Table.events_path = '{path}'
table.Table.user_id = 'user'
table.Table.item_id = 'item'
table.Table.time = 'time'
table.Table.text_fields = {{'title': 'title'}}
table.Table.item_features = {{'genre': 'genre'}}
FEATURES = [@features.TextEmbedding(), @features.Categorical()]
SPLIT = @new_items.HoldOutItems()
new_items.HoldOutItems:
  splitter = @splits.LeaveOneOut()
  share = 0.2
"""
SIZES = {
    "CODEBOOK_SIZES": "(6, 4)",
    "SID_STEPS": 12,
    "rqvae.RqVae.hidden_dims": "(16,)",
    "rqvae.RqVae.batch_size": 16,
    "rqvae.RqVae.restart_period": 4,
}
WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "islet", "jetty", "knoll", "lagoon")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    rows = ["user,item,time,title,genre"]
    for user in range(25):
        for time, item in enumerate(rng.sample(range(36), 7)):
            rows.append(f"u{user},i{item},{time},The {WORDS[item % 12]} {WORDS[item // 12]},genre {item % 4}")
    (directory / "events.csv").write_text("\n".join(rows) + "\n")
    (directory / "corpus.gin").write_text(CORPUS.format(path=directory / "events.csv"))
    return str(directory / "corpus.gin")


def arguments(files: list[str], settings: dict) -> list[str]:
    return [f"--gin_file={file}" for file in files] + [f"--gin.{name}={value}" for name, value in settings.items()]


def test_sid_v2_with_its_page(corpus, plum, tmp_path):
    files = ["gin/run/semantic_ids.gin", corpus, "gin/semantic_ids/sid_v2.gin", "gin/semantic_ids/balanced.gin"]
    done = plum.run(arguments(files, {**SIZES, "COLLISIONS": "'keep'", "MODEL_DIR": f"'{tmp_path}/run'"}))
    assert done.returncode == 0, done.stderr[-3000:]
    table = SidTable.load(tmp_path / "run" / "sids")
    assert table.num_items == 36 and table.codebook_sizes == (6, 4)
    codec = load_codec(tmp_path / "run" / "sids")
    assert [i.name for i in codec.encoder.inputs] == ["text", "categorical"] and codec.last_level_bias is not None
    assert "36 items" in done.stdout and "perplexity" in done.stdout
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The tree of prefixes" in page and "Semantic IDs while they are trained" in page


def test_fewer_items_than_codes_is_one_clear_line(corpus, plum, tmp_path):
    files = ["gin/run/semantic_ids.gin", corpus, "gin/semantic_ids/sid_v1.gin"]
    done = plum.run(arguments(files, {"MODEL_DIR": f"'{tmp_path}/run'"}))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    # 36 items, of which 7 are held out as new.
    assert "plum: level 0 has 256 codes, but there are only 29 items" in done.stderr
    assert not (tmp_path / "run" / "sids").exists()


@pytest.mark.slow
def test_a_cell_of_the_study_judges_old_and_new_items(corpus, plum, tmp_path):
    files = ["experiments/semantic_ids/study.gin", corpus, "experiments/semantic_ids/v2.gin"]
    settings = {
        **SIZES,
        "RETRIEVAL_STEPS": 6,
        "BATCH_SIZE": 4,
        "KS": "(5,)",
        "NUM_BEAMS": 5,
        "NUM_PIECES": 300,
        "MODEL_DIR": f"'{tmp_path}/run'",
        "semantic_ids.judge_semantic_ids.results_file": f"'{tmp_path}/results.jsonl'",
    }
    done = plum.run(arguments(files, settings))
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["protocol"] for row in rows] == ["context_only", "ordinary"]
    table = SidTable.load(tmp_path / "run" / "sids")
    for row in rows:
        assert row["sid_table"] == table.fingerprint
        assert row["users"] == 25 and 0 < row["cold_users"] < 25
        assert 0 <= row["cold_recall@5"] <= 1 and row["uniqueness"] <= 1
    assert not (tmp_path / "run" / "context_only" / "sids").exists(), "both protocols judge one table"
