"""Residual k-means: codes are the nearest under the stored codebooks, levels help, odd features are refused."""

import dataclasses

import faiss
import numpy as np
import pytest

from plum_jax.corpus.features import FeatureBlock, FeatureError, ItemFeatures
from plum_jax.semantic_ids.quality import reconstruction_error
from plum_jax.semantic_ids.quantization import QuantizerError, assign, bounded_threads, mix_blocks
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
    assert [codebook.shape for codebook in quantization.codebooks] == [(8, 13), (6, 13), (4, 13)]
    nearest_codes(quantization.latents, quantization.codebooks, quantization.codes)


def test_residual_is_what_the_levels_leave(features, split, tmp_path):
    quantization = SMALL.quantize(features, split, tmp_path)
    whole = sum(book[code] for book, code in zip(quantization.codebooks, quantization.codes.T, strict=True))
    np.testing.assert_allclose(quantization.residual(3), quantization.latents - whole, atol=1e-6)
    np.testing.assert_array_equal(quantization.residual(0), quantization.latents)
    np.testing.assert_array_equal(quantization.residual(2, np.array([5, 9])), quantization.residual(2)[[5, 9]])


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


def test_assign_of_a_single_level_is_a_plain_argmin():
    rng = np.random.default_rng(0)
    vectors, codebook = rng.normal(size=(200, 7)).astype(np.float32), rng.normal(size=(30, 7)).astype(np.float32)
    expected = np.argmin(np.square(vectors[:, None] - codebook).sum(-1), axis=1)
    np.testing.assert_array_equal(assign(vectors, [codebook])[:, 0], expected)


def test_items_without_a_block_get_its_mean_and_are_counted(features):
    mixed, imputed = mix_blocks(features)
    assert imputed == {"text": 0, "behaviour": 7}
    behaviour = mixed[:, 8:]
    np.testing.assert_allclose(behaviour[:7], np.tile(behaviour[7:].mean(0), (7, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(mixed[7:, :8], axis=1), 1, atol=1e-6)


def test_weights_choose_and_scale_blocks(features):
    mixed, _ = mix_blocks(features, {"behaviour": 3.0, "text": 0.5})
    np.testing.assert_allclose(np.linalg.norm(mixed[7:, :8], axis=1), 0.5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(mixed[7:, 8:], axis=1), 3, atol=1e-6)
    raw, imputed = mix_blocks(features, {"text": 2.0}, normalise=False)
    np.testing.assert_array_equal(raw, 2 * features.block("text").values)
    assert imputed == {"text": 0}


def one_block(values: np.ndarray, present: np.ndarray | None = None) -> ItemFeatures:
    present = np.ones(len(values), bool) if present is None else present
    return ItemFeatures((FeatureBlock("text", values.astype(np.float32), present),))


@pytest.mark.parametrize(
    ("values", "present", "message"),
    [
        (np.ones((9, 2)), None, "all 9 items have the same features"),
        (np.array([[1, 2], [np.nan, 0]]), None, "'text' has NaN or infinity at item row 1"),
        (np.array([[np.inf, 2], [1, 0]]), None, "'text' has NaN or infinity at item row 0"),
        (np.zeros((3, 2)), np.zeros(3, bool), "no item has feature block 'text'"),
    ],
)
def test_features_that_cannot_be_quantised(values, present, message):
    with pytest.raises(QuantizerError, match=message):
        mix_blocks(one_block(values, present))


def test_wrong_weights_and_sizes_say_what_is_expected(features, split, tmp_path):
    with pytest.raises(FeatureError, match=r"no feature block 'sound'; there are \['text', 'behaviour'\]"):
        mix_blocks(features, {"sound": 1.0})
    with pytest.raises(QuantizerError, match="expected weights above 0"):
        mix_blocks(features, {"text": 0.0})
    with pytest.raises(QuantizerError, match="level 1 has 256 codes, but there are only 120 items"):
        ResidualKMeans(codebook_sizes=(8, 256)).quantize(features, split, tmp_path)
    with pytest.raises(QuantizerError, match="expected codebook sizes of 1 or more"):
        ResidualKMeans(codebook_sizes=()).quantize(features, split, tmp_path)
