"""What the gin files of SASRec bind."""

import dataclasses

from gin import config as gin
from plum_jax import run
from plum_jax.objectives.item_losses import BinaryCrossEntropy
from plum_jax.objectives.next_token import NextToken


def test_with_its_own_loss_it_is_the_same_network_and_training():
    files = ["gin/run/pipeline.gin", "gin/corpus/simulator.gin", "gin/model/cpu_nano.gin", "gin/systems/all.gin"]
    run.configure(files, ["MODEL_DIR = '/nowhere'", "SASREC_WIDTH = 48", "SASREC_STEPS = 70"])
    try:
        systems = gin.query_parameter("%SYSTEMS")
        full, own = (systems[name].scoped_configurable_fn() for name in ("sasrec", "sasrec_bce"))
    finally:
        gin.clear_config()
    assert isinstance(full.objective, NextToken) and own.objective == BinaryCrossEntropy()
    assert own.transformer.d_model == 48 and own.training.steps == 70
    assert dataclasses.replace(own, objective=full.objective) == full
