"""Assignment: the nearest code by all distances in double precision, whatever rows stand together."""

import hypothesis
import numpy as np
from hypothesis import strategies as st

from plum_jax.semantic_ids.assignment import assign


def by_hand(latents: np.ndarray, codebooks: list[np.ndarray], bias: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    residual, codes, errors = latents.astype(np.float64), [], []
    for level, codebook in enumerate(codebooks):
        distances = np.square(residual[:, None] - codebook.astype(np.float64)).sum(-1)
        if bias is not None and level == len(codebooks) - 1:
            distances = distances - bias
        codes.append(np.argmin(distances, axis=1))
        residual = residual - codebook[codes[-1]]
        errors.append(np.square(residual).sum(-1))
    return np.stack(codes, axis=1), np.stack(errors, axis=1)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 9), st.booleans())
def test_codes_and_errors_equal_counting_by_hand(seed, num_items, dim, biased):
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(num_items, dim)).astype(np.float32)
    codebooks = [rng.normal(scale=s, size=(w, dim)).astype(np.float32) for w, s in ((17, 1.0), (1, 0.3), (40, 0.2))]
    bias = rng.normal(size=40).astype(np.float32) if biased else None
    codes, errors = by_hand(latents, codebooks, bias)
    found = assign(latents, codebooks, bias)
    np.testing.assert_array_equal(found.codes, codes)
    np.testing.assert_allclose(found.squared_error, errors, rtol=1e-4, atol=1e-5)
    assert found.codes.dtype == np.int32


def test_a_row_does_not_depend_on_its_neighbours_nor_on_threads():
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(5000, 24)).astype(np.float32)
    codebooks = [rng.normal(size=(300, 24)).astype(np.float32), rng.normal(size=(200, 24)).astype(np.float32)]
    whole = assign(latents, codebooks)
    parts = [assign(latents[start : start + 777], codebooks, threads=1) for start in range(0, 5000, 777)]
    np.testing.assert_array_equal(whole.codes, np.concatenate([part.codes for part in parts]))
    np.testing.assert_array_equal(whole.squared_error, np.concatenate([part.squared_error for part in parts]))


def test_no_items_have_no_codes():
    assert assign(np.zeros((0, 3), np.float32), [np.ones((4, 3), np.float32)]).codes.shape == (0, 1)
