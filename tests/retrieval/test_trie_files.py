"""Saved and loaded, a trie is the same to the bit; a damaged one says what is wrong."""

import jax
import numpy as np
import pytest

from plum_jax.artifact import ArtifactError
from plum_jax.retrieval import trie_files
from plum_jax.retrieval.sorted_sids import SortedSids
from plum_jax.retrieval.trie import SidTrie


@pytest.fixture(scope="module")
def sids():
    codes = np.random.default_rng(0).integers(0, (70, 9, 300), (200, 3))
    return SortedSids.from_codes(codes, (70, 9, 300))


@pytest.mark.parametrize("sets", [[None], [np.arange(40), None]], ids=["whole table", "two sets"])
def test_loaded_is_what_was_saved(sids, sets, tmp_path):
    trie = SidTrie.build(sids, sets, window=3)
    trie_files.save(trie, tmp_path / "trie", "0123")
    loaded = trie_files.load(tmp_path / "trie")
    assert jax.tree.structure(loaded) == jax.tree.structure(trie), "the same compiled program serves both"
    for saved, read in zip(jax.tree.leaves(trie), jax.tree.leaves(loaded), strict=True):
        assert saved.dtype == read.dtype
        np.testing.assert_array_equal(saved, read)
    assert loaded.fingerprint == trie.fingerprint


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-100])


def cut_to_nothing(path):
    path.write_bytes(b"")


def change(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [cut_off, cut_to_nothing, change, remove])
def test_a_damaged_file_is_named(sids, damage, tmp_path):
    trie_files.save(SidTrie.build(sids), tmp_path / "trie")
    damage(tmp_path / "trie" / "level2.codes.npy")
    with pytest.raises(ArtifactError, match=r"level2\.codes\.npy .*make the trie again"):
        trie_files.load(tmp_path / "trie")


def test_another_artefact_is_no_trie(tmp_path):
    with pytest.raises(ArtifactError, match="expected a sid_trie artefact"):
        trie_files.load(tmp_path)
