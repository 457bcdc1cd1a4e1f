"""Balanced assignment: an even last level, the other levels untouched, and one rule for old and new items."""

import json

import numpy as np
import pytest

from plum_jax.semantic_ids.balance import BalancedLastLevel
from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.inputs import QuantizerError
from plum_jax.semantic_ids.random_ids import RandomIds
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans

QUANTIZER = ResidualKMeans(codebook_sizes=(6, 8), iterations=5)


def test_a_bias_makes_uneven_clusters_even():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1, (900, 2)), rng.normal(3, 1, (100, 2))])
    centres = np.array([[0.0, 0], [3, 3], [9, 9]])  # the third is nearest to nothing
    distances = np.square(points[:, None] - centres).sum(-1)
    assert (np.bincount(distances.argmin(1), minlength=3) == 0).any()
    bias = BalancedLastLevel(temperature=0.02).bias(distances)
    counts = np.bincount((distances - bias).argmin(1), minlength=3)
    assert counts.min() > 300 and counts.max() < 367


def test_the_last_level_becomes_even_and_the_others_stay(features, split, tmp_path):
    plain = QUANTIZER.quantize(features, split, tmp_path)
    balanced = BalancedLastLevel()(plain)
    np.testing.assert_array_equal(balanced.codes[:, 0], plain.codes[:, 0])
    before, after = (np.bincount(q.codes[:, 1], minlength=8) for q in (plain, balanced))
    assert after.std() < 0.5 * before.std()
    moved = balanced.report["balanced_last_level"]["moved_items"]
    assert moved == (balanced.codes != plain.codes).any(1).sum() > 0


def test_the_rule_is_saved_with_the_table_and_holds_for_new_items(features, split, tmp_path):
    table = build_sid_table(split, features, QUANTIZER, "keep", tmp_path / "sids", balance=BalancedLastLevel())
    codec = load_codec(tmp_path / "sids")
    one_by_one = [codec.assign(codec.encode(features.take(np.array([item])))).codes[0] for item in range(120)]
    np.testing.assert_array_equal(one_by_one, table.codes)
    report = json.loads((tmp_path / "sids" / "quality.json").read_text())
    assert report["quantizer"]["balanced_last_level"]["moved_items"] > 0


def test_what_cannot_be_balanced_is_refused(features, split, tmp_path):
    with pytest.raises(QuantizerError, match="random IDs and IDs from a file have none"):
        BalancedLastLevel()(RandomIds(codebook_sizes=(4, 4)).quantize(features, split, tmp_path))
    plain = QUANTIZER.quantize(features, split, tmp_path)
    with pytest.raises(QuantizerError, match="balanced already"):
        BalancedLastLevel()(BalancedLastLevel()(plain))
    with pytest.raises(QuantizerError, match="expected a temperature above 0"):
        BalancedLastLevel(temperature=0)(plain)
