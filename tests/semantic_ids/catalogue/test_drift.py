"""Drift: new items of the same kind are fine whatever the number of codes, others are not; figures against oracles."""

import numpy as np
import pytest
import scipy.spatial.distance
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax import artifact
from plum_jax.semantic_ids.catalogue.drift import drift, drift_table, jensen_shannon
from plum_jax.semantic_ids.codec import Codec, LinearEncoder
from plum_jax.semantic_ids.fit_statistics import FitStatistics, left_out_error
from plum_jax.semantic_ids.inputs import BlockInput
from plum_jax.semantic_ids.residual_kmeans import fit_codebooks

DIM = 24
CENTRES = np.random.default_rng(7).normal(size=(15, DIM))
NOTHING_PLACED = {"unshared_items": 0}


def draw(num_items: int, seed: int, shift: float = 0.0, kinds: int = 15) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = CENTRES[rng.integers(0, kinds, num_items)] + 0.5 * rng.normal(size=(num_items, DIM)) + shift
    return values.astype(np.float32)


def fitted(latents: np.ndarray, sizes: tuple[int, ...]) -> Codec:
    encoder = LinearEncoder((BlockInput("text", False, np.zeros(latents.shape[1], np.float32), 1.0),))
    return Codec(encoder, fit_codebooks(latents, sizes, iterations=20))


def report_of(old: np.ndarray, new: np.ndarray, sizes: tuple[int, ...], placed: dict | None = None) -> dict:
    codec = fitted(old, sizes)
    statistics = FitStatistics.of_fit(codec, old, codec.assign(old).codes, np.ones(len(old), bool))
    assignment = codec.assign(new)
    report = drift(statistics, assignment.codes, assignment.squared_error[:, -1], placed or NOTHING_PLACED)
    assert report is not None
    return report


@pytest.mark.parametrize("sizes", [(8, 8, 8), (64, 64, 64), (256, 128, 64)])
def test_new_items_of_the_same_kind_are_fine(sizes):
    """With 256 codes for 1200 items a new item's error is much larger; an old one that is left out tells so."""
    report = report_of(draw(1200, 0), draw(500, 1), sizes)
    assert report["verdict"] == "fine", drift_table(report)
    assert report["error"]["ratio"] == pytest.approx(1, abs=0.2)
    codec = fitted(draw(1200, 0), sizes)
    in_sample, new = (codec.assign(draw(*what)).squared_error[:, -1].mean() for what in ((1200, 0), (500, 1)))
    assert sizes[0] == 8 or new > 1.2 * in_sample, "which would have said watch"


def test_items_of_another_kind_ask_for_new_codebooks():
    report = report_of(draw(1200, 0), draw(500, 1, shift=1.0), (16, 16, 16))
    assert report["verdict"] == "retrain"
    assert report["error"]["ratio"] > 1.5 and report["large_errors"] > 0.1
    assert report["advice"].startswith("retrain the codebooks, and the model on their IDs: the error is ")
    assert "retrain: retrain the codebooks" in drift_table(report)


def test_a_hundred_items_of_one_kind_are_to_be_watched_not_a_reason_to_retrain():
    report = report_of(draw(1200, 0), draw(100, 1, kinds=1), (16, 16, 16))
    assert report["verdict"] == "watch"
    assert "codes of level A are used otherwise" in report["advice"]


@pytest.mark.parametrize("crowded, verdict", [(0, "fine"), (20, "watch"), (50, "retrain")])
def test_codebooks_that_are_full_ask_for_larger_ones(crowded, verdict):
    placed = {"unshared_items": 100, "crowded_items": crowded}
    report = report_of(draw(1200, 0), draw(500, 1), (16, 16, 16), placed)
    assert report["verdict"] == verdict
    assert report["crowded"] == crowded / 500 and report["unshared"]["new"] == 0.2


def test_codes_that_no_old_item_has():
    codes = np.array([[0, 1], [0, 2], [0, 0]], np.int32)
    statistics = FitStatistics(10, (np.array([10]), np.array([4, 6, 0, 0])), 0.1, 1.0, 0.5, np.linspace(0, 1, 101))
    report = drift(statistics, codes, np.array([0.5, 0.995, 0.2], np.float32), NOTHING_PLACED)
    assert report is not None
    assert report["levels"][1]["on_unused_codes"] == pytest.approx(1 / 3)
    assert report["large_errors"] == pytest.approx(1 / 3)
    assert report["error"]["new"] == pytest.approx(np.mean([0.5, 0.995, 0.2]))
    assert drift(statistics, codes[:0], np.zeros(0, np.float32), NOTHING_PLACED) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_jensen_shannon_is_scipy_s(pairs):
    old, new = np.asarray(pairs).T + np.eye(1, len(pairs), dtype=int)  # neither is empty
    expected = scipy.spatial.distance.jensenshannon(old, new, base=2) ** 2
    assert jensen_shannon(old, new) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("bias", [False, True])
def test_the_error_of_an_item_left_out_is_that_of_codebooks_made_without_it(bias):
    """Codebooks of means, levels one after the other; each item is taken out of the means of its codes by hand."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(40, 3)).astype(np.float32)
    codebooks, residual = [], latents.astype(np.float64)
    codes = np.zeros((40, 2), np.int32)
    for level, size in enumerate((5, 4)):
        centres = fit_codebooks(residual.astype(np.float32), (size,), iterations=50)[0]
        for _ in range(100):  # until every codeword is the mean of the items that are nearest to it
            codes[:, level] = np.square(residual[:, None] - centres).sum(axis=-1).argmin(axis=1)
            centres = np.stack([residual[codes[:, level] == code].mean(axis=0) for code in range(size)])
        codebooks.append(centres.astype(np.float32))
        residual = residual - centres[codes[:, level]]
    last_level_bias = np.array([0.0, 0.4, -0.2, 0.1], np.float32) if bias else None
    codec = Codec(LinearEncoder(()), tuple(codebooks), last_level_bias)
    counts = [np.bincount(codes[:, level]) for level in range(2)]
    learnt = np.arange(40) % 5 != 0
    found = left_out_error(codec, latents, codes, learnt, counts)
    for item in range(40):
        left, own = latents[item].astype(np.float64), latents.astype(np.float64)
        for level in range(2):
            centres = codebooks[level].astype(np.float64).copy()
            others = (codes[:, level] == codes[item, level]) & (np.arange(40) != item)
            allowed = np.ones(len(centres), bool)
            if learnt[item] and others.any():
                centres[codes[item, level]] = own[others].mean(axis=0)
            elif learnt[item]:
                allowed[codes[item, level]] = False
            score = np.square(left - centres).sum(axis=1)
            if level == 1 and last_level_bias is not None:
                score = score - last_level_bias
            own = own - codebooks[level].astype(np.float64)[codes[:, level]]
            left = left - centres[np.where(allowed, score, np.inf).argmin()]
        assert found[item] == pytest.approx(np.square(left).sum(), rel=1e-3), item


def test_statistics_are_read_as_they_were_written(tmp_path):
    latents = draw(300, 0)
    codec = fitted(latents, (8, 8))
    codes = codec.assign(latents).codes
    written = FitStatistics.of_fit(codec, latents, codes, np.ones(300, bool))
    written.write_files(tmp_path)
    read = FitStatistics.load(tmp_path)
    np.testing.assert_array_equal(read.error_quantiles, written.error_quantiles)
    for level in range(2):
        np.testing.assert_array_equal(read.code_counts[level], np.bincount(codes[:, level], minlength=8))
    assert (read.num_items, read.error, read.variance) == (300, written.error, written.variance)
    with pytest.raises(artifact.ArtifactError, match=r"has no fit_statistics.json"):
        FitStatistics.load(tmp_path / "elsewhere")
