"""Residual k-means: codes are the nearest under the stored codebooks, levels help, odd features are refused."""

import dataclasses

import faiss
import numpy as np
import pytest

from plum_jax.semantic_ids.assignment import bounded_threads
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.quality import reconstruction_error
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans

SMALL = ResidualKMeans(codebook_sizes=(8, 6, 4), iterations=10)


def nearest_codes(latents: np.ndarray, codebooks: tuple[np.ndarray, ...], codes: np.ndarray) -> None:
    """Asserts that no other code is nearer, by all distances in float64."""
    residual = latents.astype(np.float64)
    for codebook, chosen in zip(codebooks, codes.T, strict=True):
        distances = np.square(residual[:, None] - codebook[None].astype(np.float64)).sum(-1)
        assert (distances[np.arange(len(codes)), chosen] <= distances.min(1) + 1e-5).all()
        residual -= codebook[chosen]


def test_codes_are_the_nearest_under_the_stored_codebooks(features, split, tmp_path):
    quantization = SMALL.quantize(features, split, tmp_path)
    assert quantization.codes.shape == (120, 3)
    assert quantization.codes.dtype == np.int32
    assert [codebook.shape for codebook in quantization.codec.codebooks] == [(8, 13), (6, 13), (4, 13)]
    nearest_codes(quantization.latents, quantization.codec.codebooks, quantization.codes)
    assert quantization.report == {"imputed_items": {"text": 0, "behaviour": 7}}


def test_residual_is_what_the_levels_leave(features, split, tmp_path):
    quantization = SMALL.quantize(features, split, tmp_path)
    codec, latents, codes = quantization.codec, quantization.latents, quantization.codes
    whole = sum(book[code] for book, code in zip(codec.codebooks, codes.T, strict=True))
    np.testing.assert_allclose(codec.residual(latents, codes, 3), latents - whole, atol=1e-6)
    np.testing.assert_array_equal(codec.residual(latents, codes, 0), latents)
    errors = codec.assign(latents).squared_error
    np.testing.assert_allclose(errors[:, -1], np.square(latents - whole).sum(1), rtol=1e-5, atol=1e-9)


def test_every_level_lowers_the_error(features, split, tmp_path):
    errors = reconstruction_error(SMALL.quantize(features, split, tmp_path))
    assert 1 > errors[0] > errors[1] > errors[2] > 0


def test_as_many_codes_as_items_leave_nothing(features, split, tmp_path):
    quantizer = ResidualKMeans(codebook_sizes=(120,), iterations=2)
    assert reconstruction_error(quantizer.quantize(features, split, tmp_path))[0] < 1e-9


def test_same_seed_same_codes_and_the_thread_pool_is_left_as_it_was(features, split, tmp_path):
    before = faiss.omp_get_max_threads()
    first, second = (SMALL.quantize(features, split, tmp_path).codes for _ in range(2))
    np.testing.assert_array_equal(first, second)
    other = dataclasses.replace(SMALL, seed=1).quantize(features, split, tmp_path).codes
    assert (first != other).any()
    assert faiss.omp_get_max_threads() == before
    with bounded_threads(1):
        assert faiss.omp_get_max_threads() == 1


def test_wrong_sizes_say_what_is_expected(features, split, tmp_path):
    with pytest.raises(QuantizerError, match="level 1 has 256 codes, but there are only 120 items"):
        ResidualKMeans(codebook_sizes=(8, 256)).quantize(features, split, tmp_path)
    with pytest.raises(QuantizerError, match="expected codebook sizes of 1 or more"):
        ResidualKMeans(codebook_sizes=()).quantize(features, split, tmp_path)
