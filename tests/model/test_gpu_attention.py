"""The call that a GPU's fused kernel gets is the attention of the products; what the kernel cannot do, those do."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_blockwise_attention import CONFIG, WINDOWED, _inputs, _values_and_gradients

from plum_jax.model.attention import EinsumAttention
from plum_jax.model.gpu_attention import FusedAttention
from plum_jax.objectives.kernels import attention_on


@pytest.mark.parametrize(("config", "is_local"), [(CONFIG, False), (WINDOWED, True), (WINDOWED, jnp.asarray(False))])
def test_the_fused_call_equals_the_products(config, is_local):
    inputs = _inputs(40)
    expected, expected_gradients = _values_and_gradients(EinsumAttention(), config, is_local, *inputs)
    got, gradients = _values_and_gradients(FusedAttention("xla"), config, is_local, *inputs)
    np.testing.assert_allclose(got, expected, atol=2e-5)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=5e-5)


def test_what_cudnn_cannot_do_is_done_by_products():
    """32-bit numbers, and a soft cap: the kernel, which is not on this machine, is not asked."""
    inputs = _inputs(20)
    capped = dataclasses.replace(CONFIG, attention_softcap=5.0)
    for config in (CONFIG, capped):
        expected, _ = _values_and_gradients(EinsumAttention(), config, False, *inputs)
        got, _ = _values_and_gradients(FusedAttention(), config, False, *inputs)
        np.testing.assert_array_equal(got, expected)


def test_a_mesh_of_gpus_gets_it():
    mesh = types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform="gpu", device_kind="H200")]))
    assert attention_on(mesh) == FusedAttention()


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU: benchmarks/on_gpu.py runs it there")
def test_cudnn_is_near_the_products_in_half_precision():
    inputs = _inputs(128, "bfloat16")
    expected, expected_gradients = _values_and_gradients(EinsumAttention(), CONFIG, False, *inputs)
    got, gradients = _values_and_gradients(FusedAttention(), CONFIG, False, *inputs)
    np.testing.assert_allclose(got.astype(np.float32), expected.astype(np.float32), atol=0.05)
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), atol=0.1)
