"""What the living catalogue rests on: codes depend on the row and the codec alone, and codecs are told apart."""

import numpy as np
import pytest

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.semantic_ids.assignment import assign
from plum_jax.semantic_ids.codec import Codec, LinearEncoder
from plum_jax.semantic_ids.inputs import BlockInput


def nearest_in_double_precision(
    latents: np.ndarray, codebooks: list[np.ndarray], bias: np.ndarray | None
) -> np.ndarray:
    codes, residual = [], latents.copy()
    for level, codebook in enumerate(codebooks):
        squared = np.square(residual[:, None].astype(np.float64) - codebook).sum(axis=-1)
        last = level == len(codebooks) - 1
        codes.append((squared - bias if last and bias is not None else squared).argmin(axis=1))
        residual = residual - codebook[codes[-1]]
    return np.stack(codes, axis=1)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 100])
def test_codes_that_are_nearly_as_near_do_not_hang_on_the_rows_around(rows, biased):
    """Every codeword has a twin a few roundings away: single precision alone decides by the place in the product."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(120, 96)).astype(np.float32)
    bias = rng.normal(size=32).astype(np.float32) * 1e-6 if biased else None
    codebooks = []
    for _ in range(2):
        half = 0.1 * rng.normal(size=(16, 96))
        codebooks.append(np.concatenate([half, half + 1e-7 * rng.normal(size=half.shape)]).astype(np.float32))
    whole = assign(latents, codebooks, bias)
    np.testing.assert_array_equal(whole.codes, nearest_in_double_precision(latents, codebooks, bias))
    parts = [assign(latents[start : start + rows], codebooks, bias) for start in range(0, 120, rows)]
    np.testing.assert_array_equal(np.concatenate([part.codes for part in parts]), whole.codes)
    np.testing.assert_array_equal(np.concatenate([part.squared_error for part in parts]), whole.squared_error)


def test_codes_at_the_same_distance_go_to_the_first():
    codebook = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], np.float32)
    codes = assign(np.array([[2, 0], [1, 1], [0, 0]], np.float32), [codebook]).codes
    assert codes[:, 0].tolist() == [0, 0, 0]


def test_one_code_is_a_codebook():
    assert assign(np.ones((3, 2), np.float32), [np.zeros((1, 2), np.float32)]).codes.tolist() == [[0]] * 3


def test_a_codec_is_told_by_all_that_decides_codes():
    """Scale and normalisation decide codes as the codebooks do."""
    books = (np.eye(3, dtype=np.float32),)
    facts = [("text", False, 1.0), ("text", True, 1.0), ("text", False, 2.0), ("title", False, 1.0)]
    mean = np.zeros(3, np.float32)
    codecs = [
        Codec(LinearEncoder((BlockInput(name, normalise, mean, scale),)), books) for name, normalise, scale in facts
    ]
    codecs.append(Codec(codecs[0].encoder, books, np.zeros(3, np.float32)))
    assert len({codec.fingerprint for codec in codecs}) == len(codecs)


def test_a_rotation_leaves_a_row_as_it_is_wherever_it_stands():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 64)).astype(np.float32)
    rotation = np.linalg.qr(rng.normal(size=(64, 64)))[0].astype(np.float32)
    encoder = LinearEncoder((BlockInput("text", True, np.zeros(64, np.float32), 1.0),), rotation)

    def encode(rows: np.ndarray) -> np.ndarray:
        return encoder(ItemFeatures((FeatureBlock("text", rows, np.ones(len(rows), bool)),)))

    whole = encode(values)
    for rows in (1, 3, 17, 100):
        parts = [encode(values[start : start + rows]) for start in range(0, 500, rows)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
