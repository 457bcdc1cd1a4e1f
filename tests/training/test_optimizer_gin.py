"""gin/optimizer/: each file with gin/run/pipeline.gin makes the optimizer that it says, in every phase of training."""

import dataclasses

import pytest

from gin import config as gin
from plum_jax import run
from plum_jax.systems.generative.pipeline import Pipeline
from plum_jax.training.optimizer import Adafactor, AdamW, Muon
from plum_jax.training.parameter_groups import ParameterGroups
from plum_jax.training.schedules import InverseSquareRoot, WarmupCosine, WarmupStableDecay
from plum_jax.training.width_transfer import WidthTransfer

FILES = ["gin/run/pipeline.gin", "gin/corpus/simulator.gin", "gin/model/cpu_nano.gin"]


@pytest.fixture(autouse=True)
def clear_gin():
    yield
    gin.clear_config()


def _pipeline(*files: str, **macros: str) -> Pipeline:
    bindings = [f"{name.replace('__', '.')} = {value}" for name, value in macros.items()]
    run.configure([*FILES, *(f"gin/{file}.gin" for file in files)], ["MODEL_DIR = '/nowhere'", *bindings])
    return gin.query_parameter("%PIPELINE").scoped_configurable_fn()


def _optimizers(pipeline: Pipeline):
    return pipeline.cpt.training.optimizer, pipeline.retrieval.training.optimizer


def test_without_a_file_it_is_what_it_always_was():
    cosine = WarmupCosine(peak=2e-3, warmup_steps=100, final_fraction=0.1)
    adamw = AdamW(schedule=cosine, b1=0.9, b2=0.98, weight_decay=0.1, clip_norm=1.0)
    pipeline = _pipeline()
    assert _optimizers(pipeline) == (adamw, adamw)
    assert pipeline.decoder.logits_scale == 1.0


def test_each_optimizer_and_schedule_by_its_file():
    cosine = WarmupCosine(peak=2e-3)
    assert _optimizers(_pipeline("optimizer/adamw")) == (AdamW(cosine, momentum_dtype="bfloat16"),) * 2
    assert _optimizers(_pipeline("optimizer/muon", LEARNING_RATE="2e-3")) == (Muon(cosine),) * 2
    t5 = InverseSquareRoot(peak=1e-2, warmup_steps=1000)
    assert _optimizers(_pipeline("optimizer/adafactor")) == (Adafactor(t5),) * 2
    wsd = WarmupStableDecay(peak=2e-3, warmup_steps=100, decay_steps=50)
    assert _optimizers(_pipeline("optimizer/muon", "optimizer/wsd", DECAY_STEPS="50")) == (Muon(wsd),) * 2


def test_groups_by_a_flag_on_any_optimizer():
    rules = "(('embedding', 0.1), ('transformer/.*/attention', 0.0))"
    groups = ParameterGroups((("embedding", 0.1), ("transformer/.*/attention", 0.0)), (("embedding", 2000),))
    for files in ((), ("optimizer/muon",), ("optimizer/adafactor",)):
        pipeline = _pipeline(*files, PARAMETER_RULES=rules, FROZEN_ROWS="(('embedding', 2000),)")
        assert [optimizer.groups for optimizer in _optimizers(pipeline)] == [groups, groups]


def test_width_transfer_sets_rates_and_logits_and_leaves_the_rq_vae_alone():
    pipeline = _pipeline(
        "semantic_ids/sid_v2", "optimizer/width_transfer", BASE_D_MODEL="8", PARAMETER_RULES="(('embedding', 0.1),)"
    )
    assert pipeline.decoder.logits_scale == pytest.approx((8 / pipeline.decoder.d_model) ** 0.5)
    assert {optimizer.width_transfer for optimizer in _optimizers(pipeline)} == {WidthTransfer(8)}
    codebooks = pipeline.data.quantizer.training.optimizer
    assert codebooks == AdamW(WarmupCosine(peak=3e-3), weight_decay=0.0)
    plain = _pipeline().decoder
    assert dataclasses.replace(pipeline.decoder, logits_scale=1.0) == plain


def test_one_phase_may_differ():
    scoped = {
        "retrieval/parameter_groups__ParameterGroups__rules": "(('embedding', 0.5),)",
        "retrieval/schedules__WarmupCosine__peak": "5e-4",
    }
    for files in ((), ("optimizer/muon",)):
        cpt, retrieval = _optimizers(_pipeline(*files, **scoped))
        assert cpt.groups == ParameterGroups() and retrieval.groups.rules == (("embedding", 0.5),)
        assert (cpt.schedule.peak, retrieval.schedule.peak) == (2e-3, 5e-4)
