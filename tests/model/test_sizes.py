"""The golden table of docs/models.md: parameters and FLOPs of every size."""

import pathlib
import re

import pytest

from gin import config as gin
from plum_jax import run
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import forward_flops_per_token, parameter_counts

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
COLUMNS = ("total", "activated", "embedding", "non_embedding", "activated_non_embedding")
ROWS = re.findall(r"^\| `(\w+)` \|(.*)\|$", (REPOSITORY / "docs/models.md").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize(("name", "cells"), ROWS, ids=[name for name, _ in ROWS])
def test_the_golden_table(name, cells):
    said = [int(cell.strip().replace(",", "")) for cell in cells.split("|")]
    run.configure(["gin/run/model_size.gin", f"gin/model/{name}.gin"], ["MODEL_DIR = 'somewhere'"])
    config = gin.get_configurable(DecoderConfig)()
    counts = parameter_counts(config, 48_384)
    assert said == [*(counts[column] for column in COLUMNS), round(forward_flops_per_token(config, 48_384, 1536))]


def test_every_size_has_a_row():
    assert sorted(name for name, _ in ROWS) == sorted(path.stem for path in (REPOSITORY / "gin/model").glob("*.gin"))


def test_plums_ladder_is_named_by_activated_parameters():
    golden = {name: [int(c.strip().replace(",", "")) for c in cells.split("|")] for name, cells in ROWS}
    for name, activated in {"moe_110m": 110e6, "moe_370m": 370e6, "moe_900m": 900e6, "moe_3b": 3e9}.items():
        assert golden[name][1] == pytest.approx(activated, rel=0.03)
    assert golden["moe_900m"][0] == pytest.approx(4.2e9, rel=0.05)


def test_the_command_prints_and_writes_the_sizes(tmp_path, capsys):
    run.main(
        ["--gin_file=gin/run/model_size.gin", "--gin_file=gin/model/cpu_nano.gin", f"--gin.MODEL_DIR='{tmp_path}'"]
    )
    assert re.search(r"non_embedding +18,592\n", capsys.readouterr().out)
    assert (tmp_path / "model_size.json").exists()
