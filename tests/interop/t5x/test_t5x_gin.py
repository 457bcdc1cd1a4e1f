"""The gin files of gin/t5x/ are read by T5X's own reader, and say in their heads what must be set."""

import re
import sys

import pytest
from t5x_run import ABSENT, REPOSITORY

pytest.importorskip("t5x.models", reason=ABSENT)

from gin import config as gin

PROGRAMS = {"cpt": "train", "finetune": "train", "eval": "eval", "infer": "infer"}
WORKS = {"train": "train", "eval": "evaluate", "infer": "infer"}


@pytest.fixture
def t5x_gin(monkeypatch):
    """gin as `python -m t5x.<program>` has it: the program is `__main__`, and one of its functions configurable."""

    def read(name, bindings=()):
        import importlib

        program = importlib.import_module(f"t5x.{PROGRAMS[name]}")
        monkeypatch.setitem(sys.modules, "__main__", program)
        monkeypatch.chdir(REPOSITORY)
        gin.clear_config()
        files = [f"gin/t5x/{name}.gin", "gin/model/cpu_nano.gin"]
        gin.parse_config_files_and_bindings(files, list(bindings), finalize_config=False)
        return program

    yield read
    gin.clear_config()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_s_files_parse_and_name_what_is_required(t5x_gin, name):
    t5x_gin(name)
    required = {
        scope for (scope, selector), values in gin._CONFIG.items() if str(values.get("value")) == "%gin.REQUIRED"
    }
    head = "".join(re.findall(r"^#.*\n", (REPOSITORY / f"gin/t5x/{name}.gin").read_text(), flags=re.MULTILINE))
    said = re.search(r"Required to be set: ([^.]*)\.", head)
    assert said and required == {*re.findall(r"[A-Z_]{3,}", said[1])}


def test_model_and_mixture_are_of_one_run(t5x_gin, finished):
    t5x_gin("finetune", [f"RUN_DIR = '{finished[0]}'", "MODEL_DIR = 'x'", "TRAIN_STEPS = 7", "LENGTH = 64"])
    from t5x import utils

    from plum_jax.interop.t5x.sid_model import SidModel

    model = gin.get_configurable(SidModel)()
    assert model.optimizer_def.config.steps == 7 and model.module.config.d_model == 32
    with gin.config_scope("train"):
        config = gin.get_configurable(utils.DatasetConfig)()
    assert re.fullmatch(r"plum_retrieval_\w{16}", config.mixture_or_task_name)
    assert config.task_feature_lengths == {"targets": 64, "weights": 64}
    utils.verify_matching_vocabs(config, model)
    with gin.config_scope("infer_eval"):
        prompts = gin.get_configurable(utils.DatasetConfig)()
    utils.verify_matching_vocabs(prompts, model)
