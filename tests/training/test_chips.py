"""The table of chips against what libtpu calls them, and the measured peak against a product in numpy."""

import time

import jax
import numpy as np
import pytest

from plum_jax.training import chips


def test_every_kind_names_one_chip():
    kinds = [kind for chip in chips.CHIPS for kind in chip.device_kinds]
    assert len(set(kinds)) == len(kinds)
    assert chips.chip_named("v6e").peak_flops == 918e12
    with pytest.raises(ValueError, match=r"expected a chip among \['v4', 'v5e', 'v5p', 'v6e'\], got 'v7'"):
        chips.chip_named("v7")


def test_the_cpus_peak_is_no_slower_than_a_product_in_numpy_on_one_core():
    assert chips.chip_of(jax.devices()[0]) is None
    one = np.ones((512, 512), np.float32)
    began = time.perf_counter()
    one @ one
    lowest = 2 * 512**3 / (time.perf_counter() - began) / 20  # cold, and on a machine that others use too
    assert chips.peak_flops_per_second() > lowest
