"""A real compile for four chips of a TPU that is not here: what must be in the program, and what the job says of it."""

import importlib.util
import json

import pytest

from plum_jax.jobs import pods
from plum_jax.pods.topology import TopologyError, topology_devices
from plum_jax.run import main
from plum_jax.training.chips import chip_named

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: .[tpu]")

SIZES = """\
from __gin__ import dynamic_registration
from plum_jax.model import config
config.DecoderConfig:
  num_layers = 3
  d_model = 256
  num_heads = 4
  num_kv_heads = 2
  head_dim = 64
  mlp_dim = 512
"""


def _checked(directory, program):
    (directory / "sizes.gin").write_text(SIZES)
    flags = {
        "MODEL_DIR": repr(str(directory / "run")),
        "TOPOLOGY": "'v6e:2x2'",
        "PROGRAMS": f"('{program}',)",
        "VOCAB_SIZE": "4096",
        "BATCH_SIZE": "8",
        "LENGTH": "256",
        "CODEBOOK_SIZES": "(16, 16)",
        "NUM_ITEMS": "100",
        "NUM_BEAMS": "4",
        "SEARCH_USERS": "8",
    }
    files = ["--gin_file=gin/run/compile.gin", f"--gin_file={directory / 'sizes.gin'}"]
    main(files + [f"--gin.{name}={value}" for name, value in flags.items()])
    found = json.loads((directory / "run" / "pod_check.json").read_text())
    (row,) = found["programs"]
    # Parameters are split over four chips, whatever reads them.
    assert row["bytes"]["parameters"] == pytest.approx(MATRICES, rel=0.01)
    assert row["fits"] and row["unknown_loops"] == []
    return found, row, (directory / "run" / f"{program}.hlo").read_text()


MATRICES = 256 * (4096 + 3 * (4 * 64 * 2 + 2 * 64 * 2 + 3 * 512))  # parameters, but for the norms


@needs_libtpu
def test_the_train_step_is_what_a_run_would_execute(tmp_path):
    found, row, program = _checked(tmp_path, "train_step")
    assert found["settings_tried"] == [{"setting": "as asked", "fits": True, "peak_bytes": row["bytes"]["peak"]}]
    assert row["bytes"]["optimizer state"] == pytest.approx(2 * MATRICES, rel=0.01)
    # On TPU attention is JAX's Pallas kernel: once forward, again under remat, once backward, in each of three layers.
    assert "tpu_custom_call" in program
    assert sorted(row["kernels"].values()) == [3, 6]
    # Weights are gathered in bfloat16, forward and backward, and gradients scattered: no more than that.
    assert row["collectives"]["all-gather"]["bytes"] < 2 * 2 * MATRICES * 1.3
    assert row["collectives"]["reduce-scatter"]["bytes"] < 2 * MATRICES * 1.1
    assert 1.0 < row["flops"]["compiled_over_model"] < 1.45


@needs_libtpu
@pytest.mark.slow
def test_the_beam_search_is_split_over_the_chips(tmp_path):
    _, row, _ = _checked(tmp_path, "beam_search")
    # Were prompts not split, each of four chips would do what all need.
    assert 0.9 < row["flops"]["compiled_over_model"] < 2.5


def test_alternatives_begin_with_the_cheapest_and_end_with_more_shards():
    from plum_jax.model.config import DecoderConfig
    from plum_jax.systems.generative.phase import Phase
    from plum_jax.training.mesh import MeshShape
    from plum_jax.training.training_config import TrainingConfig

    phase = Phase(TrainingConfig(mesh=MeshShape(data=2, fsdp=2)), batch_size=24)
    asked = pods.Setting(DecoderConfig(remat="save_attention"), phase)
    texts = [setting.text(asked) for setting in pods._alternatives(asked, 4)]
    split = "MeshShape(data=1, fsdp=4, expert=1, tensor=1)"
    assert texts == [
        "remat 'full'",
        "remat 'full', 2 microbatches",
        "remat 'full', 6 microbatches",
        f"remat 'full', {split}",
        f"remat 'full', 6 microbatches, {split}",
    ]


def test_the_verdict_says_what_would_fit():
    found = {"topology": "v6e:16x16", "chips": 256, "slices": 1}
    tried = [
        {"setting": "as asked", "fits": False, "peak_bytes": 40e9},
        {"setting": "remat 'full'", "fits": True, "peak_bytes": 3e10},
    ]
    assert pods._verdict({**found, "settings_tried": tried}) == (
        "It does not fit 256 chips of v6e:16x16: as asked it needs 40.0 GB a chip. It fits with remat 'full':"
    )
    assert "Tried without success: remat 'full'" in pods._verdict(
        {**found, "settings_tried": [tried[0], {**tried[1], "fits": False}]}
    )


@needs_libtpu
def test_topologies_and_several_slices():
    chip, devices = topology_devices("v6e:2x2", 2)
    assert chip is chip_named("v6e")
    assert sorted(device.slice_index for device in devices) == [0] * 4 + [1] * 4
    with pytest.raises(TopologyError, match="libtpu knows no topology 'v6e:2x3x5'"):
        topology_devices("v6e:2x3x5")


def test_without_libtpu_one_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TopologyError, match=r"pip install 'plum_jax\[tpu\]'"):
        topology_devices("v6e:2x2")
    with pytest.raises(ValueError, match="v6e"):
        topology_devices("v9:2x2")
