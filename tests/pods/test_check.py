"""A real compile for four chips of a TPU that is not here: what must be in the program, and what the job says of it."""

import importlib.util
import json

import pytest

from plum_jax.pods import check
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


@needs_libtpu
@pytest.mark.slow
def test_the_job_compiles_what_a_run_would_execute(tmp_path):
    (tmp_path / "sizes.gin").write_text(SIZES)
    flags = {
        "MODEL_DIR": repr(str(tmp_path / "run")),
        "TOPOLOGY": "'v6e:2x2'",
        "VOCAB_SIZE": "4096",
        "BATCH_SIZE": "8",
        "LENGTH": "256",
        "CODEBOOK_SIZES": "(16, 16)",
        "NUM_ITEMS": "100",
        "NUM_BEAMS": "4",
        "SEARCH_USERS": "8",
    }
    main(
        ["--gin_file=gin/run/compile.gin", f"--gin_file={tmp_path / 'sizes.gin'}"]
        + [f"--gin.{name}={value}" for name, value in flags.items()]
    )
    found = json.loads((tmp_path / "run" / "pod_check.json").read_text())
    step, search = found["programs"]
    assert found["settings_tried"][0]["fits"]
    # On TPU attention is JAX's Pallas kernel: once forward, again under remat, once backward, in each of three layers.
    assert "tpu_custom_call" in (tmp_path / "run" / "train_step.hlo").read_text()
    assert sorted(step["kernels"].values()) == [3, 6]
    assert step["unknown_loops"] == search["unknown_loops"] == []
    # Parameters and the two moments are split over four chips.
    matrices = 256 * (4096 + 3 * (4 * 64 * 2 + 2 * 64 * 2 + 3 * 512))
    assert step["bytes"]["parameters"] == pytest.approx(matrices, rel=0.01)
    assert step["bytes"]["optimizer state"] == pytest.approx(2 * matrices, rel=0.01)
    # Weights are gathered in bfloat16 for each layer, forward and backward, and gradients scattered: no more than that.
    gathered, scattered = step["collectives"]["all-gather"]["bytes"], step["collectives"]["reduce-scatter"]["bytes"]
    assert gathered < 2 * 2 * matrices * 1.3
    assert scattered < 2 * matrices * 1.1
    assert 1.0 < step["flops"]["compiled_over_model"] < 1.45
    assert search["flops"]["compiled_over_model"] >= 0.9


def test_alternatives_begin_with_the_cheapest_and_end_with_more_shards():
    from plum_jax.model.config import DecoderConfig
    from plum_jax.pipeline import Phase
    from plum_jax.training.mesh import MeshShape
    from plum_jax.training.trainer import TrainingConfig

    phase = Phase(TrainingConfig(mesh=MeshShape(data=2, fsdp=2)), batch_size=24)
    asked = check.Setting(DecoderConfig(remat="save_attention"), phase)
    texts = [setting.text(asked) for setting in check._alternatives(asked, 4)]
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
    assert check._verdict({**found, "settings_tried": tried}) == (
        "It does not fit 256 chips of v6e:16x16: as asked it needs 40.0 GB a chip. It fits with remat 'full':"
    )
    assert "Tried without success: remat 'full'" in check._verdict(
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
