"""Checkpoints of one program go on in the other; another architecture is refused by name."""

import dataclasses
import shutil

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_csv_run import SIZES, plum_arguments
from t5x_run import ABSENT, NANO

pytest.importorskip("t5x.models", reason=ABSENT)

from plum_jax.interop.t5x import checkpoints, decoder_only
from plum_jax.interop.t5x.installed import T5xError
from plum_jax.interop.t5x.optimizer_def import OptimizerDef
from plum_jax.interop.t5x.parameters import shapes_of
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import PackedCausal
from plum_jax.objectives.next_token import NextToken
from plum_jax.training import saved_params
from plum_jax.training.initial import initial_params
from plum_jax.training.mesh import MeshShape
from plum_jax.training.optimizer import Adafactor, AdamW, Muon
from plum_jax.training.step import initial_state, make_train_step

VOCABULARY = 40


def trained(optimizer, steps=2):
    """A small decoder's state after some steps."""
    decoder, mesh = Decoder(NANO, VOCABULARY), MeshShape(data=8).build()
    transformation = optimizer.build(10)
    state = initial_state(initial_params(decoder), transformation, jax.random.key(0), mesh)
    step = make_train_step(NextToken().on(decoder, mesh), transformation, 1, jax.random.key(0), mesh, state)
    for _ in range(steps):
        state, _ = step(state, batch())
    return decoder, state, step


def batch():
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, (8, 16)).astype(np.int32)
    return {
        "decoder_input_tokens": tokens,
        "decoder_target_tokens": np.roll(tokens, -1, axis=1),
        "decoder_loss_weights": np.ones(tokens.shape, np.float32),
        "decoder_segment_ids": np.ones_like(tokens),
        "decoder_positions": np.broadcast_to(np.arange(16, dtype=np.int32), tokens.shape),
    }


@pytest.mark.parametrize("optimizer", [AdamW(), Muon(), Adafactor()], ids=["adamw", "muon", "adafactor"])
def test_a_checkpoint_goes_to_t5x_and_comes_back_as_it_was(tmp_path, optimizer):
    decoder, state, step = trained(optimizer)
    definition = OptimizerDef(optimizer, 10)
    host = jax.device_get(state)
    written = checkpoints.write_checkpoint(
        tmp_path, decoder, definition, step=2, params=host.params, slots=host.optimizer_state
    )
    assert written.name == "checkpoint_2"
    read = checkpoints.read_checkpoint(written)
    assert read.step == 2
    jax.tree.map(np.testing.assert_array_equal, read.params, host.params)
    slots = checkpoints.slots_for(definition, read.params, read.slots)
    assert jax.tree.structure(slots) == jax.tree.structure(host.optimizer_state)
    jax.tree.map(np.testing.assert_array_equal, slots, host.optimizer_state)
    # What comes next is what would have come.
    placed = jax.tree.map(
        lambda old, new: jax.device_put(new, old.sharding), (state.params, state.optimizer_state), (read.params, slots)
    )
    again = state.replace(params=placed[0], optimizer_state=placed[1], step=jax.device_put(state.step))
    after, _ = step(again, batch())
    *_, straight = trained(optimizer, 3)[:2]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(after.params), jax.device_get(straight.params))


def test_another_optimizer_s_slots_are_not_taken(tmp_path):
    decoder, state, _ = trained(AdamW())
    host = jax.device_get(state)
    written = checkpoints.write_checkpoint(
        tmp_path, decoder, OptimizerDef(AdamW(), 10), step=2, params=host.params, slots=host.optimizer_state
    )
    read = checkpoints.read_checkpoint(written)
    assert checkpoints.slots_for(OptimizerDef(Adafactor(), 10), read.params, read.slots) is None


def test_another_architecture_is_refused_by_name():
    decoder, state, _ = trained(AdamW(), 0)
    wider = Decoder(dataclasses.replace(NANO, mlp_dim=96), VOCABULARY)
    message = (
        r"runs/x is of another decoder .*transformer/layers/mlp/down is \(2, 64, 32\), expected \(2, 96, 32\).*"
        "Take the gin/model file"
    )
    with pytest.raises(T5xError, match=message):
        checkpoints.require_architecture(state.params, shapes_of(wider), "runs/x")
    with pytest.raises(T5xError, match=r"transformer/layers/attention/query_norm is not there, expected \(2, 16\)"):
        checkpoints.require_architecture(
            state.params, shapes_of(Decoder(dataclasses.replace(NANO, qk_norm=True), VOCABULARY)), "runs/x"
        )


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(T5xError, match=r"expected a directory checkpoint_<step> of T5X, got .*neither state/"):
        checkpoints.read_checkpoint(tmp_path)


def test_a_run_s_training_goes_out_and_another_run_goes_on_with_it(finished, own_csv, plum, tmp_path):
    """plum -> T5X -> plum: the second run ends CPT with the parameters of the first, without a step of its own."""
    model_dir = tmp_path / "first"
    shutil.copytree(finished[0], model_dir)
    done = plum.run(plum_arguments(own_csv, model_dir, "--gin.PHASE='cpt'", run="to_t5x"))
    assert done.returncode == 0, done.stderr[-3000:]
    steps = SIZES["CPT_STEPS"]
    written = model_dir / "t5x" / "cpt" / f"checkpoint_{steps}"
    assert f"written for T5X: {written}" in done.stdout
    second = tmp_path / "second"
    done = plum.run(plum_arguments(own_csv, second, run="prepare"))
    assert done.returncode == 0, done.stderr[-3000:]
    arguments = plum_arguments(
        own_csv, second, f"--gin.CHECKPOINT_PATH='{written}'", "--gin_file=gin/run/from_t5x.gin", run="stages"
    )
    done = plum.run(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"cpt goes on from step {steps} of {steps}" in done.stdout
    again = plum.run(arguments)
    assert again.returncode == 1 and "has been trained here already: delete it" in again.stderr
    done = plum.run(plum_arguments(own_csv, second))
    assert done.returncode == 0, done.stderr[-3000:]
    for phase in ("cpt", "retrieval"):
        first, other = (saved_params.load_params(d / "train" / phase / "params") for d in (finished[0], second))
        jax.tree.map(np.testing.assert_array_equal, first, other)
    wrong = plum.run([*arguments, "--gin.config.DecoderConfig.mlp_dim=40", f"--gin.MODEL_DIR='{tmp_path / 'third'}'"])
    assert wrong.returncode == 1 and "is of another decoder than this configuration" in wrong.stderr


# T5X's examples/decoder_only

SIZES_OF_THEIRS = {"vocab_size": 40, "emb_dim": 32, "num_heads": 4, "num_layers": 2, "head_dim": 8, "mlp_dim": 48}


def theirs(logits_via_embedding, bias):
    from t5x.examples.decoder_only import network

    config = network.TransformerConfig(
        **SIZES_OF_THEIRS,
        mlp_activations=("gelu", "linear"),
        dropout_rate=0.0,
        logits_via_embedding=logits_via_embedding,
    )
    module = network.DecoderWrapper(config)
    tokens = jnp.asarray(batch()["decoder_input_tokens"])
    params = flax.core.unfreeze(module.init(jax.random.key(0), tokens, tokens, enable_dropout=False)["params"])
    table = params["decoder"]["relpos_bias"]["rel_embedding"]
    params["decoder"]["relpos_bias"]["rel_embedding"] = bias(table)
    logits = module.apply({"params": params}, tokens, tokens, enable_dropout=False)
    return jax.device_get(params), np.asarray(logits)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [jnp.zeros_like, lambda table: jnp.ones_like(table) * jnp.arange(4.0)[:, None]])
def test_a_decoder_only_checkpoint_whose_bias_says_nothing_is_read(tied, bias):
    params, logits = theirs(tied, bias)
    config, vocab_size, ours = decoder_only.from_decoder_only(params)
    assert config.tied_embeddings == tied and vocab_size == 40
    given = batch()
    tokens = given["decoder_input_tokens"]
    output = Decoder(config, vocab_size).apply(
        {"params": ours}, tokens, given["decoder_positions"], PackedCausal(given["decoder_segment_ids"])
    )
    np.testing.assert_allclose(np.asarray(output.values), logits, atol=2e-4)


def test_what_our_decoder_has_not_is_refused_by_name():
    params, _ = theirs(True, lambda table: table)
    with pytest.raises(T5xError, match="relative position bias .decoder/relpos_bias. that depends on the distance"):
        decoder_only.from_decoder_only(params)
    params, _ = theirs(True, jnp.zeros_like)
    layer = params["decoder"]["layers_0"]["mlp"]
    layer["wi"] = layer.pop("wi_0")
    layer.pop("wi_1")
    with pytest.raises(T5xError, match=r"an MLP without a gate \(decoder/layers_0/mlp/wi\)"):
        decoder_only.from_decoder_only(params)
    with pytest.raises(T5xError, match="expected activation to be one of"):
        decoder_only.from_decoder_only(theirs(True, jnp.zeros_like)[0], activation="tanh")
