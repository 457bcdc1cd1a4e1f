"""Packed = separate, resumed = uninterrupted, rates and epochs exact."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plum_jax import artifact
from plum_jax.feeds import array_batches, batches, packing, shuffling, token_records

Record = tuple[tuple[int, ...], tuple[float, ...]]


def write(directory: pathlib.Path, tasks: dict[str, list[Record]], rates: dict[str, float] | None = None) -> None:
    for name, records in tasks.items():
        arrays = [(np.array(tokens), np.array(weights)) for tokens, weights in records]
        token_records.write_task(directory / name, arrays, name=name, config={"task": name}, inputs={})
    token_records.write_manifest(directory, rates=rates or dict.fromkeys(tasks, 1.0), config={}, inputs={})


def make_records(rng: np.random.Generator, count: int, longest: int, marker: int) -> list[Record]:
    """Records that begin with `marker` and their own number, so that each can be recognised in a batch."""
    records = []
    for number in range(count):
        tail = rng.integers(0, 50, int(rng.integers(0, longest - 1)))
        tokens = (marker, 1000 + number, *tail.tolist())
        weights = rng.choice(np.array([0.0, 0.25, 1.0, 3.5], np.float32), len(tokens))
        records.append((tokens, tuple(weights.tolist())))
    return records


def sequences(batch: batches.Batch, start_token: int = 0) -> list[Record]:
    """The sequences in a batch; asserts that inputs, segments, positions and padding are laid out as promised."""
    found = []
    for row in range(len(batch["decoder_positions"])):
        inputs, targets, weights, segments, positions = (
            batch[f"decoder_{key}"][row]
            for key in ("input_tokens", "target_tokens", "loss_weights", "segment_ids", "positions")
        )
        last = segments.max()
        length = int((segments > 0).sum())
        np.testing.assert_array_equal(segments[:length], np.sort(segments[:length]))
        for values in (inputs, targets, weights, segments, positions):
            assert not values[length:].any(), "padding must be zero"
        for segment in range(1, last + 1):
            inside = segments == segment
            n = int(inside.sum())
            np.testing.assert_array_equal(positions[inside], np.arange(n))
            np.testing.assert_array_equal(inputs[inside], np.concatenate([[start_token], targets[inside][:-1]]))
            found.append((tuple(targets[inside].tolist()), tuple(weights[inside].tolist())))
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.booleans(), st.integers(1, 9))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packed_sequences_are_the_separate_ones(tmp_path, seed, count, pack, window):
    records = make_records(np.random.default_rng(seed), count, longest=12, marker=7)
    write(tmp_path / "records", {"task": records})
    feed = batches.TokenBatches(
        tmp_path / "records",
        batch_size=3,
        length=12,
        seed=seed,
        num_epochs=1,
        pack=pack,
        packing_window=window,
        start_token=seed % 3,
    )
    fed = list(feed.make_iterator())
    assert all(value.shape == (3, 12) for batch in fed for value in batch.values())
    assert {key: value.dtype for key, value in fed[0].items()} == {
        "decoder_input_tokens": np.int32,
        "decoder_target_tokens": np.int32,
        "decoder_loss_weights": np.float32,
        "decoder_segment_ids": np.int32,
        "decoder_positions": np.int32,
    }
    found = [sequence for batch in fed for sequence in sequences(batch, seed % 3)]
    assert collections.Counter(found) == collections.Counter(records)
    if not pack:
        assert all(batch["decoder_segment_ids"].max() <= 1 for batch in fed)


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize(("mixture", "shards"), [(True, 1), (False, 1), (True, 2)])
def test_resumed_is_uninterrupted(tmp_path, pack, mixture, shards):
    rng = np.random.default_rng(3)
    tasks = {"a": make_records(rng, 23, 10, 1)} | ({"b": make_records(rng, 7, 5, 2)} if mixture else {})
    write(tmp_path / "records", tasks, {"a": 0.7, "b": 0.3} if mixture else None)
    feed = batches.TokenBatches(
        tmp_path / "records", batch_size=4, length=16, seed=5, pack=pack, packing_window=11, feed_shards=shards
    )
    iterator = feed.make_iterator()
    states, uninterrupted = [], []
    for _ in range(40):
        states.append(json.loads(json.dumps(iterator.get_state())))
        uninterrupted.append(next(iterator))
    assert max(state["shards"]["0"]["row"] for state in states) > 0, (
        "the test must also resume in the middle of a window"
    )
    for start in rng.permutation(40)[:12].tolist():
        resumed = feed.make_iterator()
        next(resumed)
        resumed.set_state(states[start])
        assert resumed.get_state() == states[start]
        for expected in uninterrupted[start : start + 3]:
            actual = next(resumed)
            for key, value in expected.items():
                np.testing.assert_array_equal(actual[key], value, err_msg=f"{key} after resuming at {start}")


def test_every_epoch_has_each_record_once_in_another_order(tmp_path):
    records = make_records(np.random.default_rng(0), 24, 6, 1)
    write(tmp_path / "records", {"task": records})
    feed = batches.TokenBatches(tmp_path / "records", batch_size=4, length=6, pack=False, packing_window=24)
    iterator = feed.make_iterator()
    epochs = [[sequence for _ in range(6) for sequence in sequences(next(iterator))] for _ in range(3)]
    for epoch in epochs:
        assert collections.Counter(epoch) == collections.Counter(records)
    assert epochs[0] != epochs[1] != epochs[2]
    assert sequences(next(feed.make_iterator())) == epochs[0][:4]
    other_seed = batches.TokenBatches(tmp_path / "records", 4, 6, seed=1, pack=False, packing_window=24)
    assert sequences(next(other_seed.make_iterator())) != epochs[0][:4]


@pytest.mark.parametrize("size", [7, 70_000])
def test_shuffle_small_and_large(size):
    import grain

    numbers = grain.MapDataset.range(100, 100 + size)
    order = shuffling.shuffled(numbers, seed=3)
    first, few = [order[i] for i in range(size)], range(min(size, 50))
    assert sorted(first) == list(range(100, 100 + size))
    assert [order[size + i] for i in few] != first[: len(few)], "another order in the second epoch"
    assert [shuffling.shuffled(numbers, 4)[i] for i in few] != first[: len(few)], "another order for another seed"
    assert [shuffling.shuffled(numbers, 3)[i] for i in few] == first[: len(few)]
    share = order[1::2].repeat()
    assert [share[i] for i in range(3)] == first[1:6:2]


def test_mixture_rates_are_exact(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "records", {"a": make_records(rng, 5, 4, 1), "b": make_records(rng, 50, 4, 2)}, {"a": 1, "b": 3})

    def share_of_a(rates: dict[str, float] | None) -> float:
        feed = batches.TokenBatches(tmp_path / "records", 10, 4, rates=rates, pack=False, packing_window=50)
        iterator = feed.make_iterator()
        found = [tokens[0] for _ in range(40) for tokens, _ in sequences(next(iterator))]
        return float(np.mean(np.array(found) == 1))

    assert share_of_a(None) == 0.25
    assert share_of_a({"a": 0.6, "b": 0.4}) == 0.6
    assert share_of_a({"a": 1.0}) == 1.0


def test_once_feeds_each_record_of_all_tasks_once_whatever_the_rates(tmp_path):
    rng = np.random.default_rng(0)
    tasks = {"a": make_records(rng, 37, 9, 1), "b": make_records(rng, 5, 4, 2), "c": make_records(rng, 1, 4, 3)}
    write(tmp_path / "records", tasks, {"a": 1.0, "b": 8.0, "c": 1.0})
    feed = batches.TokenBatches(tmp_path / "records", 4, 12, seed=3, once=True, packing_window=8)
    found = [batch for batch in feed.make_iterator()]
    records = [record for records in tasks.values() for record in records]
    assert collections.Counter(s for batch in found for s in sequences(batch)) == collections.Counter(records)
    assert feed.count() == len(found)
    with pytest.raises(ValueError, match="once: shards end at different steps"):
        dataclasses.replace(feed, feed_shards=2, rates={"a": 1.0, "b": 1.0}).make_iterator([0])


def test_shards_share_the_records(tmp_path):
    records = make_records(np.random.default_rng(0), 20, 6, 1)
    write(tmp_path / "records", {"task": records})
    feed = batches.TokenBatches(tmp_path / "records", 4, 12, num_epochs=1, feed_shards=2)
    found = [sequence for batch in feed.make_iterator() for sequence in sequences(batch)]
    assert collections.Counter(found) == collections.Counter(records)
    with pytest.raises(ValueError, match="num_epochs=1: shards end at different steps"):
        feed.make_iterator([1])


def test_a_batch_is_the_same_however_many_processes_read_its_shards(tmp_path):
    rng = np.random.default_rng(0)
    write(tmp_path / "records", {"a": make_records(rng, 20, 6, 1), "b": make_records(rng, 9, 4, 2)})
    feed = batches.TokenBatches(tmp_path / "records", 8, 12, packing_window=5, feed_shards=4)
    whole, halves = feed.make_iterator(), [feed.make_iterator([0, 1]), feed.make_iterator([2, 3])]
    for number in range(20):
        batch, parts = next(whole), [next(half) for half in halves]
        for key, rows in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), rows, err_msg=str(number))
    # The states of both halves together are the state of the whole, and any other share goes on from there.
    states = [half.get_state()["shards"] for half in halves]
    assert whole.get_state() == {"shards": {**states[0], **states[1]}}
    third = feed.make_iterator([3])
    third.set_state(whole.get_state())
    np.testing.assert_array_equal(next(third)["decoder_positions"], next(whole)["decoder_positions"][6:])


def test_rows_of_a_window_do_not_come_by_length(tmp_path):
    write(tmp_path / "records", {"task": [((1,) * n, (1.0,) * n) for n in range(20, 60)]})
    feed = batches.TokenBatches(tmp_path / "records", 40, 60, num_epochs=1)
    lengths = next(feed.make_iterator())["decoder_positions"].max(axis=1)
    longest_first = np.sort(lengths)[::-1]
    assert not np.array_equal(lengths, longest_first)


def test_rates_may_be_shares_of_tokens(tmp_path):
    """Half of the tokens from each of two tasks, of which one has records four times as long."""
    weights = (1.0,) * 40
    tasks = {name: [((mark,) * n, weights[:n])] * 50 for name, mark, n in (("long", 1, 40), ("short", 2, 10))}
    write(tmp_path / "records", tasks)
    for unit, expected in (("tokens", 0.5), ("sequences", 0.8)):
        feed = batches.TokenBatches(tmp_path / "records", 20, 40, rate_unit=unit, packing_window=100)
        made = feed.make_iterator()
        seen = collections.Counter(int(t) for _ in range(60) for t in next(made)["decoder_target_tokens"].ravel())
        assert seen[1] / (seen[1] + seen[2]) == pytest.approx(expected, abs=0.01), unit
    with pytest.raises(ValueError, match="expected a rate_unit of 'sequences' or 'tokens', got 'words'"):
        batches.TokenBatches(tmp_path / "records", 2, 40, rate_unit="words")


def test_steps_per_epoch(tmp_path):
    write(tmp_path / "records", {"task": [((1, 2, 3, 4), (1.0,) * 4)] * 12})
    assert batches.TokenBatches(tmp_path / "records", 2, 8).steps_per_epoch == 3
    assert batches.TokenBatches(tmp_path / "records", 2, 8, pack=False).steps_per_epoch == 6


def test_errors_say_what_to_do(tmp_path):
    rng = np.random.default_rng(0)
    write(
        tmp_path / "records", {"a": [((1, 2, 3), (1.0,) * 3), ((1,) * 9, (1.0,) * 9)], "b": make_records(rng, 3, 4, 2)}
    )
    with pytest.raises(ValueError, match="task a .*record 1 has 9 tokens, but a row has 8: raise the length"):
        batches.TokenBatches(tmp_path / "records", 2, 8)
    with pytest.raises(ValueError, match=r"positive rates for tasks among \['a', 'b'\], got {'c': 1}"):
        batches.TokenBatches(tmp_path / "records", 2, 9, rates={"c": 1})
    with pytest.raises(ValueError, match="num_epochs=1 is meaningless for a mixture"):
        batches.TokenBatches(tmp_path / "records", 2, 9, num_epochs=1)
    with pytest.raises(ValueError, match="self.batch_size=3 must be divisible by self.feed_shards=2"):
        batches.TokenBatches(tmp_path / "records", 3, 9, feed_shards=2)
    with pytest.raises(ValueError, match="the mixture of .* has no tasks: name some in rates"):
        batches.TokenBatches(tmp_path / "records", 2, 9, rates={})
    with pytest.raises(ValueError, match="task a .* has 2 records, expected one for each of 3 feed shards"):
        batches.TokenBatches(tmp_path / "records", 3, 9, feed_shards=3)
    with pytest.raises(artifact.ArtifactError, match="expected a token_records artefact"):
        batches.TokenBatches(tmp_path / "nothing", 2, 9)
    with pytest.raises(ValueError, match="task empty has no records"):
        write(tmp_path / "other", {"empty": []})
    with pytest.raises(ValueError, match="task bad: record 0: expected finite weights >= 0"):
        write(tmp_path / "other", {"bad": [((1,), (float("nan"),))]})
    assert not (tmp_path / "other" / "bad").exists()


def test_statistics_count_what_was_written(tmp_path):
    write(tmp_path / "records", {"a": [((1, 2, 3000), (0.0, 0.5, 2.0)), ((1,), (1.0,))]})
    (task,) = token_records.read_tasks(tmp_path / "records")
    assert task.statistics == token_records.TaskStatistics(
        records=2,
        tokens=4,
        unique_tokens=3,
        max_length=3,
        longest_record=0,
        weighted_tokens=3,
        weight_sum=3.5,
        largest_token=3000,
        content=task.statistics.content,
    )


def test_fingerprint_follows_content(tmp_path):
    def fingerprint(name: str, records: list[Record]) -> str:
        write(tmp_path / name, {"a": records})
        return batches.TokenBatches(tmp_path / name, 1, 8).fingerprint

    one = fingerprint("one", [((1, 2), (1.0, 1.0)), ((3,), (1.0,))])
    assert fingerprint("same", [((1, 2), (1.0, 1.0)), ((3,), (1.0,))]) == one
    assert fingerprint("other_bounds", [((1,), (1.0,)), ((2, 3), (1.0, 1.0))]) != one
    assert fingerprint("other_weight", [((1, 2), (1.0, 0.5)), ((3,), (1.0,))]) != one


def test_best_fit_by_hand():
    # Of 6 5 4 3 3 2 in rows of 10: 6+4 and 5+3+2 fill up, the second 3 stands alone.
    rows = packing.best_fit_rows(np.array([3, 6, 2, 5, 3, 4]), 10)
    assert rows.tolist() == [1, 0, 1, 1, 2, 0]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_best_fit_never_overfills_and_leaves_at_most_one_row_under_half(lengths):
    rows = packing.best_fit_rows(np.array(lengths), 30)
    filled = np.bincount(rows, weights=lengths)
    assert filled.max() <= 30
    assert (filled <= 15).sum() <= 1
    assert set(rows.tolist()) == set(range(rows.max() + 1))


def test_array_batches_reshuffle_and_resume():
    arrays = {"x": np.arange(10), "y": np.arange(20.0).reshape(10, 2)}
    feed = array_batches.ArrayBatches(arrays, batch_size=3, seed=1)
    iterator = feed.make_iterator()
    fed, states = [], []
    for _ in range(9):
        states.append(json.loads(json.dumps(iterator.get_state())))
        fed.append(next(iterator))
    for batch in fed:
        np.testing.assert_array_equal(batch["y"], arrays["y"][batch["x"]])
    epochs = [np.concatenate([batch["x"] for batch in fed[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert all(len(set(epoch)) == 9 for epoch in epochs), "no row twice in an epoch"
    assert epochs[0] != epochs[1]
    resumed = feed.make_iterator()
    resumed.set_state(states[5])
    np.testing.assert_array_equal(next(resumed)["x"], fed[5]["x"])
    with pytest.raises(ValueError, match="self.batch_size=11"):
        array_batches.ArrayBatches(arrays, batch_size=11)


def test_feeding_does_not_import_tensorflow():
    code = "import sys, plum_jax.feeds.batches; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shares_of_the_records_are_apart_whatever_the_seed_and_all_together(tmp_path):
    records = {"task": [((mark,) * 3, (1.0,) * 3) for mark in range(1, 51)]}
    write(tmp_path / "records", records)

    def marks(share: tuple[float, float], seed: int) -> set[int]:
        feed = batches.TokenBatches(tmp_path / "records", 4, 12, seed=seed, share=share, num_epochs=1)
        return {int(mark) for batch in feed.make_iterator() for mark in batch["decoder_target_tokens"].ravel()} - {0}

    trained, judged = marks((0.0, 0.8), 0), marks((0.8, 1.0), 1)
    assert len(trained) == 40 and len(judged) == 10
    assert trained | judged == set(range(1, 51))
    assert max(judged) - min(judged) > 15  # drawn from all of them
    assert trained == marks((0.0, 0.8), 5)
    with pytest.raises(ValueError, match="expected a share"):
        batches.TokenBatches(tmp_path / "records", 2, 12, share=(0.5, 0.5))
