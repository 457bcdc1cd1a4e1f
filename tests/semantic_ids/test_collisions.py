"""Collision policies: unique SIDs where promised, the popular item keeps its own, the nearest free code is taken."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from plum_jax.semantic_ids.codec import Codec, LinearEncoder
from plum_jax.semantic_ids.collisions import CollisionError, resolve
from plum_jax.semantic_ids.quantization import Quantization


def quantized(latents: np.ndarray, codebooks: tuple[np.ndarray, ...]) -> Quantization:
    codec = Codec(LinearEncoder(()), codebooks)
    return Quantization(codec.assign(latents).codes, codec.codebook_sizes, codec, latents, {})


settings = hypothesis.settings(max_examples=50, deadline=None)


@st.composite
def quantizations(draw: st.DrawFn) -> tuple[Quantization, np.ndarray]:
    """Few prefixes with many items, but never more than the last level holds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.sampled_from([(24,), (3, 24), (2, 2, 24)]))
    num_items = draw(st.integers(1, 24))
    latents = rng.normal(size=(num_items, 3)).astype(np.float32)
    # A narrow last codebook, so that the nearest code is often the same.
    scales = (1.0,) * (len(sizes) - 1) + (0.2,)
    codebooks = tuple(
        (scale * rng.normal(size=(size, 3))).astype(np.float32) for size, scale in zip(sizes, scales, strict=True)
    )
    popularity = rng.integers(0, 4, num_items)
    return quantized(latents, codebooks), popularity


def reassign_by_hand(quantization: Quantization, popularity: np.ndarray) -> np.ndarray:
    """The policy as its sentence says it: one item after the other."""
    codes = quantization.codes.copy()
    by_popularity = sorted(range(len(codes)), key=lambda i: (-popularity[i], i))
    taken, displaced = set(), []
    for item in by_popularity:
        sid = tuple(codes[item])
        (displaced.append(item) if sid in taken else taken.add(sid))
    codebook = quantization.codec.codebooks[-1]
    residual = quantization.codec.residual(quantization.latents, quantization.codes, codes.shape[1] - 1)
    for item in displaced:
        nearest_first = np.argsort(np.square(residual[item].astype(float) - codebook).sum(-1))
        free = [code for code in nearest_first if (*codes[item, :-1], code) not in taken]
        codes[item, -1] = free[0]
        taken.add(tuple(codes[item]))
    return codes


@settings
@hypothesis.given(quantizations())
def test_reassign_equals_its_description(example):
    quantization, popularity = example
    resolution = resolve(quantization, "reassign", popularity)
    np.testing.assert_array_equal(resolution.codes, reassign_by_hand(quantization, popularity))
    assert len(np.unique(resolution.codes, axis=0)) == len(resolution.codes)
    assert resolution.report["moved_items"] == (resolution.codes != quantization.codes).any(1).sum()
    np.testing.assert_array_equal(resolution.codes[:, :-1], quantization.codes[:, :-1])


@settings
@hypothesis.given(quantizations())
def test_extra_digit_counts_the_items_of_a_sid_most_popular_first(example):
    quantization, popularity = example
    resolution = resolve(quantization, "extra_digit", popularity)
    assert len(np.unique(resolution.codes, axis=0)) == len(resolution.codes)
    assert resolution.codebook_sizes == (*quantization.codebook_sizes, resolution.codes[:, -1].max() + 1)
    np.testing.assert_array_equal(resolution.codes[:, :-1], quantization.codes)
    groups: dict[tuple, list[int]] = {}
    for item in sorted(range(len(popularity)), key=lambda i: (-popularity[i], i)):
        groups.setdefault(tuple(quantization.codes[item]), []).append(item)
    for items in groups.values():
        assert resolution.codes[items, -1].tolist() == list(range(len(items)))


@settings
@hypothesis.given(quantizations())
def test_keep_changes_nothing_and_counts(example):
    quantization, popularity = example
    resolution = resolve(quantization, "keep", popularity)
    np.testing.assert_array_equal(resolution.codes, quantization.codes)
    _, counts = np.unique(quantization.codes, axis=0, return_counts=True)
    assert resolution.report == {"policy": "keep", "sharing_items_before": counts[counts > 1].sum()}


def crowd(num_items: int, last_size: int) -> Quantization:
    """All items on one SID."""
    codebooks = (np.zeros((2, 2), np.float32), np.zeros((last_size, 2), np.float32))
    codec = Codec(LinearEncoder(()), codebooks)
    codes = np.tile(np.int32([1, 0]), (num_items, 1))
    return Quantization(codes, (2, last_size), codec, np.zeros((num_items, 2), np.float32), {})


def test_a_full_last_level_is_used_up_and_then_refused():
    resolution = resolve(crowd(9, 9), "reassign", np.arange(9))
    assert sorted(resolution.codes[:, 1]) == list(range(9))
    assert resolution.codes[8, 1] == 0  # the most popular one keeps its SID
    with pytest.raises(
        CollisionError, match="10 items share prefix 'A1', but the last level has 9 codes.*'extra_digit'"
    ):
        resolve(crowd(10, 9), "reassign", np.arange(10))


def test_unknown_policies_are_refused():
    with pytest.raises(CollisionError, match="of keep, extra_digit, reassign, got 'ignore'"):
        resolve(crowd(2, 2), "ignore", np.arange(2))


def test_ids_without_a_codec_go_to_the_first_free_code():
    random = Quantization(np.int32([[1, 2]] * 4), (2, 5), None, None, {})
    resolution = resolve(random, "reassign", np.array([0, 3, 2, 1]))
    assert resolution.codes[:, 1].tolist() == [3, 2, 0, 1]
