"""Answers before every event and about every user: what they are, that a kill costs a shard, whose they are."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_shops import LUM, stages

from plum_jax import artifact
from plum_jax.feeds.histories import overlapping_windows
from plum_jax.systems.lum import knowledge
from plum_jax.systems.lum.knowledge import LumKnowledge, write_moments, write_users

ASKED = {"liked": {"rating": 5}, "old shop": {"shop": "old"}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def fitted(run):
    return LUM.fit(run, "lum")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 9))
def test_every_event_is_answered_once_with_half_a_window_before_it_at_least(lengths, most):
    windows, answered = overlapping_windows(lengths, most)
    found = np.concatenate([window[first:] for window, first in zip(windows, answered, strict=True)] or [[]])
    assert found.tolist() == list(range(sum(lengths)))
    begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
    for window, first in zip(windows, answered, strict=True):
        assert len(window) <= most
        for place in range(first, len(window)):
            assert place >= min(window[place] - begins[window[place]], most // 2)


def test_the_table_of_a_ranker_holds_what_is_asked_before_each_event(run, fitted):
    tables = LumKnowledge(LUM, ASKED).read(run)
    assert tables.queries.shape == (run.corpus.num_events, 2, 16) and tables.queries.dtype == np.float16
    assert tables.condition_names == ("liked", "old shop")
    conditions = fitted.asker.conditions(list(ASKED.values()))
    offsets = run.corpus.history_offsets
    user = int(np.argmax(np.diff(offsets)))
    for event in (offsets[user], offsets[user] + 5, offsets[user] + 11, offsets[7] + 3):
        begin = offsets[np.searchsorted(offsets, event, side="right") - 1]
        expected = fitted.asker.answers(fitted.params, [np.arange(begin, event)], conditions)[0]
        np.testing.assert_allclose(tables.queries[event], expected, atol=1e-3)
    np.testing.assert_array_equal(tables.items, fitted.asker.items(fitted.params))
    assert LumKnowledge(LUM, ASKED).read(run).fingerprint == tables.fingerprint
    with pytest.raises(ValueError, match="of another corpus"):
        tables.require_for(run.corpus.num_events + 1, run.corpus.num_items)


def test_a_kill_costs_a_shard(run, fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(knowledge, "_ROWS_A_SHARD", 8)
    whole = write_moments(run, fitted, ASKED, tmp_path / "whole").read_bytes()
    done, made = [], knowledge._moments

    def dying(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return made(*arguments)

    monkeypatch.setattr(knowledge, "_moments", dying)
    with pytest.raises(KeyboardInterrupt):
        write_moments(run, fitted, ASKED, tmp_path / "killed")
    assert not (tmp_path / "killed").exists()
    monkeypatch.setattr(knowledge, "_moments", made)
    assert write_moments(run, fitted, ASKED, tmp_path / "killed").read_bytes() == whole


def test_answers_about_every_user_are_those_of_the_whole_history(run, fitted, tmp_path):
    path = write_users(run, fitted, ASKED, tmp_path / "users")
    table = pq.read_table(path)
    assert table["user_id"].to_pylist() == run.corpus.users["user_id"].to_list()
    offsets = run.corpus.history_offsets
    conditions = fitted.asker.conditions(list(ASKED.values()))
    expected = fitted.asker.answers(fitted.params, [np.arange(offsets[9], offsets[10])], conditions)[0]
    np.testing.assert_allclose(table["answers"][9].as_py(), expected.reshape(-1), atol=1e-6)
    assert artifact.read_manifest(path.parent, knowledge.USERS).inputs["corpus"] == run.corpus.fingerprint


def test_something_must_be_asked():
    with pytest.raises(ValueError, match="expected at least one condition to ask for"):
        LumKnowledge(LUM, {})
