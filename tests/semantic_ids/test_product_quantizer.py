"""Product quantisation: codes are the nearest of each part, the rotation keeps distances, OPQ is no worse than PQ."""

import numpy as np

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.semantic_ids.product_quantizer import ProductQuantizer
from plum_jax.semantic_ids.quality import reconstruction_error


def test_each_level_is_the_nearest_of_its_own_part(features, split, tmp_path):
    quantization = ProductQuantizer(codebook_sizes=(8, 6, 4), rotate=False).quantize(features, split, tmp_path)
    latents = quantization.latents
    assert latents.shape == (120, 15)  # 13 dimensions, filled up to three parts of 5
    for level, codebook in enumerate(quantization.codec.codebooks):
        part = slice(5 * level, 5 * level + 5)
        outside = np.delete(codebook, np.arange(15)[part], axis=1)
        assert not outside.any()
        distances = np.square(latents[:, None, part].astype(float) - codebook[:, part]).sum(-1)
        assert (distances[np.arange(120), quantization.codes[:, level]] <= distances.min(1) + 1e-5).all()


def test_rotation_keeps_distances_and_lowers_the_error(split, tmp_path):
    # All variance in the first third: without a rotation two levels of three have nothing to tell apart.
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=(120, 4)), 0.01 * rng.normal(size=(120, 8))], axis=1).astype(np.float32)
    features = ItemFeatures((FeatureBlock("text", values, np.ones(120, bool)),))
    plain, turned = (
        ProductQuantizer(codebook_sizes=(16, 16, 16), normalise=False, rotate=rotate).quantize(
            features, split, tmp_path
        )
        for rotate in (False, True)
    )
    lengths = [np.linalg.norm(q.latents[:, None] - q.latents, axis=-1) for q in (plain, turned)]
    np.testing.assert_allclose(lengths[0], lengths[1], atol=1e-4)
    assert reconstruction_error(turned)[-1] < 0.7 * reconstruction_error(plain)[-1]


def test_same_seed_same_codes(features, split, tmp_path):
    first, second = (ProductQuantizer(codebook_sizes=(8, 8)).quantize(features, split, tmp_path) for _ in range(2))
    np.testing.assert_array_equal(first.codes, second.codes)
