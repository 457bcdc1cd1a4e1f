"""Oracles of the trainer: resumed = uninterrupted, accumulated = whole, sharded = single, other inputs refused."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.language.samples import read_samples, write_samples
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.next_token import NextTokenLoss
from plum_jax.training import checkpoints, metrics_log, saved_params, speed, trainer
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import Adafactor, AdamW, Muon
from plum_jax.training.schedules import Constant, WarmupCosine
from plum_jax.training.step import initial_state, make_train_step
from plum_jax.training.training_config import TrainingConfig

VOCAB, BATCH, LENGTH = 24, 8, 12
CONFIG = DecoderConfig(num_layers=2, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=32, dropout_rate=0.1)
DECODER = Decoder(CONFIG, VOCAB)
TRAINING = TrainingConfig(
    steps=12, checkpoint_period=4, log_period=3, optimizer=AdamW(WarmupCosine(peak=1e-2, warmup_steps=2))
)


class CountingFeed:
    """Batch n is a function of n; `fail_at` raises before that batch, as a kill would."""

    def __init__(self, fail_at: int | None = None):
        self.fail_at = fail_at

    def make_iterator(self):
        return CountingIterator(self.fail_at)


class CountingIterator:
    def __init__(self, fail_at):
        self.n, self.fail_at = 0, fail_at

    def __next__(self):
        if self.n == self.fail_at:
            raise KeyboardInterrupt
        rng = np.random.default_rng(self.n)
        self.n += 1
        tokens = rng.integers(1, VOCAB, (BATCH, LENGTH), dtype=np.int32)
        weights = rng.random((BATCH, LENGTH), dtype=np.float32) * (rng.random((BATCH, LENGTH)) < 0.7)
        return {
            "decoder_input_tokens": np.roll(tokens, 1, axis=1),
            "decoder_target_tokens": tokens,
            "decoder_loss_weights": weights.astype(np.float32),
            "decoder_segment_ids": np.ones((BATCH, LENGTH), np.int32),
            "decoder_positions": np.tile(np.arange(LENGTH, dtype=np.int32), (BATCH, 1)),
        }

    def get_state(self):
        return {"n": self.n}

    def set_state(self, state):
        self.n = state["n"]


def _init(key):
    tokens = jnp.zeros((1, LENGTH), jnp.int32)
    return DECODER.init(key, tokens, tokens, jnp.ones((1, LENGTH, LENGTH), bool))["params"]


def _train(directory, config=TRAINING, fail_at=None, **overrides):
    arguments = {"init_params": _init, "objective": NextTokenLoss(DECODER), "fingerprints": {"sid_table": "a"}}
    return trainer.train(config, directory=directory, feed=CountingFeed(fail_at), **{**arguments, **overrides})


def _losses(directory):
    return [(row["step"], row["loss"]) for row in metrics_log.read_metrics(directory) if "loss" in row]


def _assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    "kill_at", [pytest.param(1, marks=pytest.mark.slow), 6, pytest.param(11, marks=pytest.mark.slow)]
)
def test_resumed_equals_uninterrupted(tmp_path, kill_at):
    whole = _train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed", fail_at=kill_at)
    resumed = _train(tmp_path / "killed")
    _assert_equal(whole, resumed)
    assert _losses(tmp_path / "whole") == _losses(tmp_path / "killed")
    assert [step for step, _ in _losses(tmp_path / "whole")] == [3, 4, 6, 8, 9, 12]


def test_what_is_sampled_at_evaluations_is_the_uninterrupted_run_s(tmp_path):
    config = dataclasses.replace(TRAINING, evaluation_period=2, tensorboard=False)

    def train(directory, fail_at=None):
        def sampler(params, step):
            write_samples(directory, step, [{"sum": float(jax.tree.reduce(lambda a, x: a + x.sum(), params, 0.0))}])

        return _train(directory, config, fail_at, sampler=sampler)

    train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", fail_at=7)  # after the evaluation of step 6, which is behind the checkpoint of 4
    train(tmp_path / "killed")
    rows = read_samples(tmp_path / "whole")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert read_samples(tmp_path / "killed") == rows


def test_the_average_of_the_parameters_is_what_is_evaluated_and_returned(tmp_path):
    """Against the average worked out from the parameters of a run without one; killed and resumed, to the bit."""
    config = dataclasses.replace(TRAINING, evaluation_period=1, tensorboard=False)
    steps, seen = [], []
    _train(tmp_path / "plain", config, evaluators={"v": lambda params: steps.append(jax.device_get(params)) or {}})
    averaging = dataclasses.replace(config, ema_decay=0.4)
    evaluators = {"v": lambda params: seen.append(jax.device_get(params)) or {}}
    whole = _train(tmp_path / "average", averaging, evaluators=evaluators)
    average = jax.device_get(nn.unbox(jax.jit(_init)(jax.random.fold_in(jax.random.key(TRAINING.seed), 0))))
    for count, (params, found) in enumerate(zip(steps, seen, strict=True)):
        decay = min(0.4, (1 + count) / (10 + count))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, average, params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), average, found)
    _assert_equal(whole, seen[-1])
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed", averaging, fail_at=6)
    _assert_equal(whole, _train(tmp_path / "killed", averaging))
    with pytest.raises(ValueError, match="an ema_decay of at least 0 and less than 1, got 1"):
        TrainingConfig(ema_decay=1)


def test_a_finished_run_is_not_run_again(tmp_path):
    first = _train(tmp_path)
    _assert_equal(first, _train(tmp_path, fail_at=0))


def test_other_inputs_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, fail_at=6)
    with pytest.raises(checkpoints.CheckpointMismatch, match="sid_table: trained with a, this run has b"):
        _train(tmp_path, fingerprints={"sid_table": "b"})
    params = _train(tmp_path)
    with pytest.raises(checkpoints.CheckpointMismatch, match="sid_table"):
        saved_params.load_params(tmp_path / "params", {"sid_table": "b"})
    _assert_equal(params, saved_params.load_params(tmp_path / "params", {"sid_table": "a"}))


def test_accumulated_equals_whole(tmp_path):
    config = dataclasses.replace(TRAINING, steps=3)
    objective = NextTokenLoss(Decoder(dataclasses.replace(CONFIG, dropout_rate=0.0), VOCAB))
    whole = _train(tmp_path / "1", config, objective=objective)
    cut = _train(tmp_path / "4", dataclasses.replace(config, microbatches=4), objective=objective)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, cut)


@pytest.mark.parametrize(
    ("mesh", "optimizer", "ema_decay"),
    [
        (MeshShape(data=2, fsdp=2, tensor=2), TRAINING.optimizer, 0.0),
        pytest.param(MeshShape(data=1, fsdp=8), TRAINING.optimizer, 0.5, marks=pytest.mark.slow),
        (MeshShape(data=1, fsdp=8), Adafactor(Constant(1e-2)), 0.0),
        (MeshShape(data=2, fsdp=2, tensor=2), Muon(Constant(1e-2)), 0.5),
    ],
    ids=str,
)
def test_sharded_equals_single(mesh, optimizer, ema_decay):
    batch = next(CountingFeed().make_iterator())
    results = []
    for shape, devices in [(MeshShape(), jax.devices()[:1]), (mesh, jax.devices())]:
        built = shape.build(devices)
        transformation = TrainingConfig(10, optimizer, ema_decay).transformation()
        state = initial_state(_init, transformation, jax.random.key(0), built)
        step = make_train_step(NextTokenLoss(DECODER), transformation, 1, jax.random.key(0), built, state)
        for _ in range(2):
            state, metrics = step(state, batch)
        results.append((jax.device_get(state.evaluated), jax.device_get(metrics["loss"])))
        embedding = state.evaluated["embedding"]
        assert len(embedding.sharding.device_set) == len(devices)
    (single, single_loss), (sharded, sharded_loss) = results
    np.testing.assert_allclose(single_loss[0], sharded_loss[0], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), single, sharded)


def test_fsdp_splits_the_parameters():
    built = MeshShape(data=1, fsdp=4, tensor=2).build()
    state = initial_state(_init, AdamW().build(10), jax.random.key(0), built)
    qkv = state.params["transformer"]["layers"]["attention"]["qkv"]
    assert qkv.addressable_shards[0].data.size == qkv.size // 8
    moment = state.optimizer_state[1][0].mu["transformer"]["layers"]["attention"]["qkv"]
    assert moment.addressable_shards[0].data.size == moment.size // 8


def test_the_best_parameters_are_kept_and_patience_stops(tmp_path):
    values = iter([0.1, 0.5, 0.2, 0.3, 0.9])
    seen = []

    def evaluate(params):
        seen.append(jax.device_get(params["embedding"]))
        return {"recall@10": next(values)}

    config = dataclasses.replace(TRAINING, evaluation_period=2, select_by="validation/recall@10", patience=2)
    params = _train(tmp_path, config, evaluators={"validation": evaluate})
    assert len(seen) == 4  # the best is the second; two more without improvement end the run
    np.testing.assert_array_equal(params["embedding"], seen[1])
    with pytest.raises(ValueError, match=r"expected select_by to be one of \['validation/recall@10'\], got 'recall'"):
        config = dataclasses.replace(config, select_by="recall")
        _train(tmp_path / "other", config, evaluators={"validation": lambda params: {"recall@10": 0.0}})


def test_the_speed_that_is_logged_is_of_training_and_leaves_evaluation_out(tmp_path, monkeypatch):
    clock = iter(range(1000))  # every look at the clock is a second later; an evaluation takes 100 more
    late = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: float(next(clock)) + late[0])

    def evaluate(params):
        late[0] += 100.0
        return {"recall@10": 0.1}

    config = dataclasses.replace(TRAINING, steps=6, log_period=3, evaluation_period=4, checkpoint_period=100)
    _train(tmp_path, config, evaluators={"validation": evaluate}, tokens_per_step=1000)
    rows = [row for row in metrics_log.read_metrics(tmp_path) if "tokens_per_second" in row]
    assert [row["step"] for row in rows] == [3, 6]
    assert all(3000 / 20 < row["tokens_per_second"] <= 3000 for row in rows)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    def objective(params, batch, rng):
        return jnp.float32(jnp.nan) * params["embedding"].sum(), jnp.float32(1), {}

    with pytest.raises(FloatingPointError, match="step 1 of .*the loss is nan"):
        _train(tmp_path, objective=objective)


def test_metrics_cut_short_by_a_kill_are_read_up_to_there(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0}) + '\n{"step": 2, "lo')
    assert metrics_log.read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]
