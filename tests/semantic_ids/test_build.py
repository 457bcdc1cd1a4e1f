"""The stage: made once, made again when something changed, never half."""

import dataclasses
import json

import numpy as np
import pytest

from plum_jax import artifact
from plum_jax.corpus.leaks import LeakError
from plum_jax.semantic_ids import build
from plum_jax.semantic_ids.build import build_sid_table
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.residual_kmeans import ResidualKMeans
from plum_jax.semantic_ids.table import SidTable

QUANTIZER = ResidualKMeans(codebook_sizes=(6, 6, 16), iterations=5)


def test_the_stage_leaves_table_report_and_codebooks(split, features, tmp_path):
    table = build_sid_table(split, features, QUANTIZER, "keep", tmp_path / "sids")
    assert SidTable.load(tmp_path / "sids").fingerprint == table.fingerprint
    assert table.corpus_fingerprint == split.corpus.fingerprint
    assert table.item_ids.tolist() == split.corpus.items["item_id"].to_list()
    report = json.loads((tmp_path / "sids" / "quality.json").read_text())
    assert report["quantizer"] == {"imputed_items": {"text": 0, "behaviour": 7}}
    assert set(report["prefix_purity"]) == {"genre", "tags"}
    assert set(report["prefix_cosine"]) == {"text", "behaviour"}
    assert report["co_watch_prefix_overlap"]["by_prefix"][0] > report["co_watch_prefix_overlap"]["at_random"][0]
    assert len(report["reconstruction_error"]) == 3
    codec = load_codec(tmp_path / "sids")
    assert [codebook.shape for codebook in codec.codebooks] == [(6, 13), (6, 13), (16, 13)]
    np.testing.assert_array_equal(codec.assign(codec.encode(features)).codes, table.codes)


@pytest.mark.parametrize("policy", ["extra_digit", "reassign"])
def test_policies_make_sids_unique(split, features, tmp_path, policy):
    table = build_sid_table(split, features, QUANTIZER, policy, tmp_path / "sids")
    assert len(table.items_of_sid().sids) == table.num_items
    assert not table.item_rank.any()
    assert table.collision_policy == policy


def test_a_current_table_is_read_and_a_stale_one_made_again(split, features, tmp_path, monkeypatch):
    calls = []
    resolve = build.resolve
    monkeypatch.setattr(build, "resolve", lambda *args: calls.append(args) or resolve(*args))
    first = build_sid_table(split, features, QUANTIZER, "keep", tmp_path / "sids")
    again = build_sid_table(split, features, QUANTIZER, "keep", tmp_path / "sids")
    assert len(calls) == 1
    assert again.fingerprint == first.fingerprint
    build_sid_table(split, features, QUANTIZER, "extra_digit", tmp_path / "sids")
    build_sid_table(split, features, dataclasses.replace(QUANTIZER, seed=3), "extra_digit", tmp_path / "sids")
    assert len(calls) == 3


def test_the_same_seed_gives_the_same_table(split, features, tmp_path):
    tables = [build_sid_table(split, features, QUANTIZER, "reassign", tmp_path / name) for name in ("a", "b")]
    assert tables[0].fingerprint == tables[1].fingerprint


def test_a_stage_killed_while_it_writes_leaves_no_table(split, features, tmp_path, monkeypatch):
    def die(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Codec, "write_files", die)
    with pytest.raises(KeyboardInterrupt):
        build_sid_table(split, features, QUANTIZER, "keep", tmp_path / "sids")
    with pytest.raises(artifact.ArtifactError, match="no manifest.json"):
        SidTable.load(tmp_path / "sids")
    monkeypatch.undo()
    build_sid_table(split, features, QUANTIZER, "keep", tmp_path / "sids")
    assert SidTable.load(tmp_path / "sids").num_items == 120


def test_popularity_counts_training_events_only(split, monkeypatch):
    popularity = split.item_popularity
    assert popularity.sum() == (split.fold == 0).sum()
    held_out = split.corpus.events[np.flatnonzero(split.fold == 2)[:1]]
    leaky = split.training_events().drop("event").vstack(held_out)
    monkeypatch.setattr(type(split), "training_events", lambda _: leaky)
    with pytest.raises(LeakError, match="item popularity was given an interaction that is held out"):
        _ = dataclasses.replace(split).item_popularity
