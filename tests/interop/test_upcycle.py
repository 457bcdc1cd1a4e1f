"""An upcycled decoder computes what the dense one did, and its experts are copies."""

import dataclasses

import numpy as np
import pytest
from published_families import our_logits
from test_export import SMALL, random_params

from plum_jax.interop.pretrained import InteropError
from plum_jax.interop.upcycle import upcycle
from plum_jax.model.config import MixtureOfExperts

MOE = MixtureOfExperts(num_experts=4, experts_per_token=2, mlp_dim=20, dispatch="dropless")


@pytest.mark.parametrize("scan_layers", [True, False])
def test_the_upcycled_decoder_has_the_dense_one_s_logits(scan_layers):
    dense = dataclasses.replace(SMALL, scan_layers=scan_layers)
    params = random_params(dense)
    config, experts = upcycle(dense, params, MOE, seed=0)
    stack = experts["transformer"]["layers" if scan_layers else "layer_0"]
    assert "mlp" not in stack and "mlp" in params["transformer"]["layers" if scan_layers else "layer_0"]
    np.testing.assert_allclose(our_logits(config, experts), our_logits(dense, params), atol=1e-5)
    assert config.moe == MOE


def test_without_normalised_weights_the_mlp_begins_smaller():
    config, experts = upcycle(SMALL, random_params(SMALL), MOE, seed=0)
    unnormalised = dataclasses.replace(config, moe=dataclasses.replace(MOE, normalise_weights=False))
    assert np.abs(our_logits(unnormalised, experts) - our_logits(config, experts)).max() > 0.01


def test_experts_are_copies_until_noise_parts_them():
    params = random_params(SMALL)
    dense = params["transformer"]["layers"]["mlp"]["gate_up"]
    copies = upcycle(SMALL, params, MOE, seed=0)[1]["transformer"]["layers"]["moe"]
    assert copies["gate_up"].shape == (2, 4, 16, 2, 20) and copies["router"].shape == (2, 16, 4)
    for expert in range(4):
        np.testing.assert_array_equal(copies["gate_up"][:, expert], dense)
    assert copies["router"].std() == pytest.approx(0.02, rel=0.2)
    parted = upcycle(SMALL, params, MOE, seed=0, noise=0.1)[1]["transformer"]["layers"]["moe"]["gate_up"]
    added = parted - copies["gate_up"]
    assert added.std() == pytest.approx(0.1 * dense.std(), rel=0.1)
    assert abs(np.corrcoef(added[:, 0].ravel(), added[:, 1].ravel())[0, 1]) < 0.1


def test_experts_of_another_size_and_experts_again_are_refused():
    params = random_params(SMALL)
    with pytest.raises(InteropError, match=r"\(mlp_dim=20, shared_mlp_dim=0\), got mlp_dim=10, shared_mlp_dim=0"):
        upcycle(SMALL, params, dataclasses.replace(MOE, mlp_dim=10), seed=0)
    config, experts = upcycle(SMALL, params, MOE, seed=0)
    with pytest.raises(InteropError, match="got one with experts"):
        upcycle(config, experts, MOE, seed=0)
