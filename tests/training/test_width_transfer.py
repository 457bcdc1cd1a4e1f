"""The coordinate check: with width transfer activations change alike at every width, with one rate they do not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plum_jax.model.config import DecoderConfig
from plum_jax.training.coordinate_check import slopes
from plum_jax.training.optimizer import Adafactor, AdamW, Muon
from plum_jax.training.schedules import Constant
from plum_jax.training.width_transfer import WidthTransfer, transferable


def _check(optimizer, widths):
    transferred = slopes(dataclasses.replace(optimizer, width_transfer=WidthTransfer(32)), widths)
    one_rate = slopes(optimizer, widths)
    assert set(transferred) == {"layer_0", "layer_1", "logits"}
    # Part of the logits' change comes from tables as they were initialised; it fades with width, as it does in muP.
    assert all(-0.3 < slope < 0.15 for slope in transferred.values()), transferred
    assert all(slope > 0.3 for slope in one_rate.values()), one_rate


@pytest.mark.slow
def test_activations_change_alike_at_every_width():
    _check(AdamW(Constant(3e-3)), [32, 128])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [AdamW(Constant(3e-3)), Muon(Constant(3e-3))], ids=["AdamW", "Muon"])
def test_over_four_widths_and_for_muon(optimizer):
    _check(optimizer, [32, 64, 128, 256])


def _update(optimizer, params):
    transformation = optimizer.build(10)
    gradients = jax.tree.map(jnp.ones_like, params)
    return jax.jit(transformation.update)(gradients, jax.jit(transformation.init)(params), params)[0]


def test_rates_are_multiplied_by_kind_and_weight_decay_is_not():
    rng = np.random.default_rng(0)
    shapes = {"qkv": (64, 2, 3, 8), "out": (2, 1, 8, 64)}
    layer = {"attention": {name: jnp.asarray(rng.normal(size=shape), "float32") for name, shape in shapes.items()}}
    layer["mlp_norm"] = {"scale": jnp.ones(64)}
    layer["moe"] = {"router": jnp.ones((64, 4))}
    params = {"embedding": jnp.asarray(rng.normal(size=(5, 64)), "float32"), "transformer": {"layer_0": layer}}
    wanted = {  # base 16, width 64: qkv, out, router, embedding, norm
        AdamW(Constant(1.0), weight_decay=0.0): (1 / 4, 1 / 4, 1 / 4, 1 / 2, 1.0),
        Muon(Constant(1.0), weight_decay=0.0): (1 / 4, 1 / 2, 1 / 4, 1 / 2, 1.0),
        Adafactor(Constant(1.0)): (1 / 2, 1 / 2, 1 / 2, 1.0, 1.0),
    }
    for optimizer, multipliers in wanted.items():
        plain = _update(optimizer, params)
        scaled = _update(dataclasses.replace(optimizer, width_transfer=WidthTransfer(16)), params)
        ratios = jax.tree.map(lambda a, b: float(jnp.mean(a / b)), scaled, plain)
        inner = ratios["transformer"]["layer_0"]
        found = (inner["attention"]["qkv"], inner["attention"]["out"], inner["moe"]["router"], ratios["embedding"])
        assert (*found, inner["mlp_norm"]["scale"]) == pytest.approx(multipliers, rel=1e-4), optimizer
    decayed = AdamW(Constant(1.0), b1=0.0, weight_decay=0.5, width_transfer=WidthTransfer(16))
    difference = (
        _update(decayed, params)["embedding"]
        - _update(dataclasses.replace(decayed, weight_decay=0.0), params)["embedding"]
    )
    np.testing.assert_allclose(difference, -0.5 * params["embedding"], atol=1e-6)


def test_what_cannot_transfer_is_refused():
    with pytest.raises(ValueError, match="expected scale_embeddings=True"):
        transferable(DecoderConfig(scale_embeddings=False), 32)
    with pytest.raises(ValueError, match="WidthTransfer is for decoders, and encoder/kernel is not a parameter of one"):
        _update(AdamW(width_transfer=WidthTransfer(32)), {"encoder": {"kernel": jnp.ones((2, 2))}})
