"""Splits against plain loops, and the leak guard against planted leaks."""

import collections

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_corpora import corpus_of, histories

from plum_jax.corpus import splits
from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import TEST, TRAIN, VALIDATION, GlobalTime, LeaveOneOut, SplitError, UserTime

property_test = settings(max_examples=60, deadline=None)
clocks = st.sampled_from(["absolute", "relative", "order"])


def folds_by_loop(user_history, timed):
    """Leave-one-out folds of one history, and the positions of its targets, as a person would write them."""
    identity = [event if timed else position for position, event in enumerate(user_history)]
    interactions = sorted(set(identity), key=lambda one: len(identity) - identity[::-1].index(one))
    held_out = {} if len(interactions) < 3 else {interactions[-1]: TEST, interactions[-2]: VALIDATION}
    targets = {held_out[one]: len(identity) - 1 - identity[::-1].index(one) for one in held_out}
    return [held_out.get(one, TRAIN) for one in identity], targets


def split_or_assume(splitter, corpus):
    try:
        return splitter.split(corpus)
    except SplitError:
        assume(False)


@property_test
@given(st.data())
def test_leave_one_out_equals_the_loop(data):
    clock = data.draw(clocks)
    drawn = data.draw(histories(clock))
    split = split_or_assume(LeaveOneOut(), corpus_of(drawn, clock))
    by_loop = [folds_by_loop(events, clock != "order") for events in drawn]
    assert split.fold.dtype == np.int8
    assert split.fold.tolist() == [fold for folds, _ in by_loop for fold in folds]
    starts = np.cumsum([0] + [len(events) for events in drawn])
    for name, number in splits.FOLDS.items():
        expected = [start + targets[number] for start, (_, targets) in zip(starts, by_loop, strict=False) if targets]
        assert split.targets[name].tolist() == expected


@property_test
@given(histories(), st.integers(0, 7), st.integers(1, 7), st.integers(0, 2))
def test_global_time_equals_the_loop(drawn, cut, width, minimum_history):
    corpus = corpus_of(drawn)
    times = corpus.events["time"].to_list()
    folds = [(time >= cut) + (time >= cut + width) for time in times]
    targets = {}
    for name, number in splits.FOLDS.items():
        targets[name], row = [], 0
        for events in drawn:
            window = [i for i in range(len(events)) if folds[row + i] == number]
            targets[name] += [row + window[0]] if window and window[0] >= minimum_history else []
            row += len(events)
    splitter = GlobalTime(cut, cut + width, minimum_history)
    if TRAIN not in folds or not all(targets.values()):
        with pytest.raises(SplitError, match="no event is left for|has no events to split"):
            splitter.split(corpus)
        return
    split = splitter.split(corpus)
    assert split.fold.tolist() == folds
    assert all(time < cut for time in split.training_events()["time"])
    assert {name: rows.tolist() for name, rows in split.targets.items()} == targets


@property_test
@given(st.data())
def test_every_event_has_one_fold_and_histories_come_before_targets(data):
    clock = data.draw(clocks)
    splitter = data.draw(
        st.sampled_from([LeaveOneOut(), GlobalTime(0.5, 0.75)] if clock == "absolute" else [LeaveOneOut()])
    )
    corpus = corpus_of(data.draw(histories(clock)), clock)
    split = split_or_assume(splitter, corpus)
    training = split.training_events()
    held_out = np.flatnonzero(split.fold != TRAIN)
    assert sorted([*training["event"], *held_out]) == list(range(corpus.num_events))
    assert training.drop("event").equals(corpus.events[training["event"]])
    user, item = corpus.events["user"].to_numpy(), corpus.events["item"].to_numpy()
    for name, number in splits.FOLDS.items():
        evaluation = split.evaluation(name)
        assert len(evaluation) == len(set(evaluation.user)) == len(evaluation.history_offsets) - 1
        for i, target in enumerate(evaluation.target_event):
            assert (user[target], item[target]) == (evaluation.user[i], evaluation.target_item[i])
            assert split.fold[target] == number
            events = evaluation.history_events[evaluation.history_offsets[i] : evaluation.history_offsets[i + 1]]
            before = [row for row in range(target) if user[row] == user[target] and split.fold[row] < number]
            assert events.tolist() == before and before
            assert evaluation.history(i).tolist() == item[before].tolist()
            if clock != "order":  # no copy of the target stands in its own history
                copies = corpus.events[[target]].join(corpus.events[before], on=["item", "time"], how="semi")
                assert not copies.height


@property_test
@given(st.data())
def test_training_events_pass_and_every_held_out_event_is_caught(data):
    clock = data.draw(clocks)
    corpus = corpus_of(data.draw(histories(clock)), clock)
    split = split_or_assume(LeaveOneOut(), corpus)
    training = split.training_events()
    split.check_no_leak(training, "a careful reader")
    split.check_no_leak(training.sample(fraction=1.0, shuffle=True, seed=0), "a careful reader")
    if clock != "order":
        split.check_no_leak(training.drop("event"), "a careful reader without event numbers")
    event = data.draw(st.sampled_from(np.flatnonzero(split.fold != TRAIN).tolist()))
    place = data.draw(st.integers(0, training.height))
    leaked = corpus.events[[event]].with_columns(event=pl.lit(event, pl.Int64))
    planted = pl.concat([training[:place], leaked, training[place:]])
    columns = data.draw(st.sampled_from([[], ["event"], ["time"], ["event", "time"]]))
    with pytest.raises(LeakError, match="^leak: popularity was given an interaction") as caught:
        split.check_no_leak(planted.drop(columns), "popularity")
    row = planted.row(caught.value.row, named=True)
    assert caught.value.used_by == "popularity"
    assert (caught.value.user_id, caught.value.item_id) == (f"u{row['user']}", f"i{row['item']}")
    if "event" not in columns and clock == "order" or "time" not in columns and clock != "order":
        assert (row["user"], row["item"], row["time"]) == leaked.row(0)[:3]


def test_the_leak_error_says_who_what_and_where():
    split = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 3), (3, 4)], [(4, 9), (0, 10), (1, 11)]]))
    with pytest.raises(LeakError) as caught:
        split.check_no_leak(split.corpus.events, "watch-history task")
    assert str(caught.value) == (
        "leak: watch-history task was given an interaction that is held out for evaluation: user 'u0', item 'i2' (row "
        "2 of its events, event 2 of the corpus), and 3 more rows like it; it may learn from Split.training_events() "
        "only"
    )


def test_a_held_out_event_with_a_false_number_is_caught():
    """A row that claims a training event's number while it is another interaction proves nothing."""
    split = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 3), (2, 9)]]))
    test_row = pl.DataFrame({"user": [0], "item": [2], "time": [9]})
    with pytest.raises(ValueError, match="row 0 says that event 1 is user 0, item 2, but corpus 'small' has another"):
        split.check_no_leak(test_row.with_columns(event=pl.lit(1)), "codebooks")
    with pytest.raises(ValueError, match="event 99 in row 0 is no event of corpus 'small', which has 4"):
        split.check_no_leak(test_row.with_columns(event=pl.lit(99)), "codebooks")
    with pytest.raises(ValueError, match="check_no_leak of codebooks needs the column 'item'"):
        split.check_no_leak(test_row.drop("item"), "codebooks")


def test_a_repeated_watch_is_no_leak_where_time_or_number_tells_them_apart():
    split = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 3), (0, 9)]]))
    training = split.training_events()
    assert training["item"].to_list() == [0, 1]
    split.check_no_leak(training.drop("event"), "by time")
    split.check_no_leak(training.drop("time"), "by number")
    with pytest.raises(LeakError, match="item 'i0'"):
        split.check_no_leak(training.drop("event", "time"), "by nothing")


def test_a_row_written_twice_is_held_out_whole():
    """Otherwise the copy of the target would be its own history, and training would see it."""
    split = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 5), (3, 5), (2, 5)]]))
    assert split.fold.tolist() == [TRAIN, TRAIN, TEST, VALIDATION, TEST]
    assert split.evaluation("test").history(0).tolist() == [0, 1, 3]
    assert split.evaluation("validation").history(0).tolist() == [0, 1]


def test_short_histories_only_train():
    split = LeaveOneOut().split(corpus_of([[0, 1], [2, 3, 4], [], [5]], clock="order"))
    assert split.fold.tolist() == [TRAIN, TRAIN, TRAIN, VALIDATION, TEST, TRAIN]
    assert split.evaluation("test").user.tolist() == [1]
    with pytest.raises(SplitError, match="at least 3 interactions; the longest of 2 histories of corpus 'small' has 2"):
        LeaveOneOut().split(corpus_of([[0, 1], [2]], clock="order"))


def test_fractions_cut_where_that_share_of_events_is_over():
    corpus = corpus_of([[(i % 6, time) for i, time in enumerate(range(100, 110))], [(0, 50), (1, 108), (2, 109)]])
    split = GlobalTime(0.5, 0.9).split(corpus)
    by_seconds = GlobalTime(105, 109).split(corpus)
    assert split.fold.tolist() == by_seconds.fold.tolist()
    assert split.fingerprint == by_seconds.fingerprint != GlobalTime(104, 109).split(corpus).fingerprint


@pytest.mark.parametrize(
    "cuts, message",
    [
        ((108, 105), "expected validation_time before test_time, got 108"),
        ((0.9, 0.9), "expected validation_time before test_time"),
        ((1.5, 1.7), "unix seconds .an integer. or a fraction between 0 and 1, got 1.5"),
        ((100, 105), "no event is left for training: the cuts are unix 100 and 105, .* run from 100 to 109"),
        ((105, 200), "no event is left for test"),
    ],
)
def test_cuts_that_leave_nothing_are_refused(cuts, message):
    corpus = corpus_of([[(i % 6, time) for i, time in enumerate(range(100, 110))]])
    with pytest.raises(SplitError, match=message):
        GlobalTime(*cuts).split(corpus)


def test_global_time_refuses_clocks_that_users_do_not_share():
    with pytest.raises(SplitError, match="clock of corpus 'small' is 'relative': use LeaveOneOut"):
        GlobalTime().split(corpus_of([[(0, 0), (1, 5), (2, 6)]], clock="relative"))


def test_an_unknown_fold_is_refused():
    split = LeaveOneOut().split(corpus_of([[0, 1, 2]], clock="order"))
    with pytest.raises(SplitError, match=r"expected a fold of \['test', 'validation'\], got 'train'"):
        split.evaluation("train")


def test_the_fingerprint_follows_the_corpus_and_the_folds():
    rows = [[(0, 1), (1, 2), (2, 3), (3, 4)]]
    split = LeaveOneOut().split(corpus_of(rows))
    assert split.fingerprint == LeaveOneOut().split(corpus_of(rows)).fingerprint
    other_corpus = LeaveOneOut().split(corpus_of([[(5, 1), *rows[0][1:]]]))
    other_folds = GlobalTime(2, 4).split(corpus_of(rows))
    assert len({split.fingerprint, other_corpus.fingerprint, other_folds.fingerprint}) == 3


def test_amazon_beauty_splits_as_in_the_literature(shared_data):
    path = shared_data / "amazon_beauty" / "sequences.tsv"
    if not path.exists():
        pytest.skip(f"no {path}")
    rows = [line.split("\t")[1].split() for line in path.read_text().splitlines()[1:]]
    counts = collections.Counter(len(row) for row in rows)
    events = pl.DataFrame({"user": range(len(rows)), "item": [[int(i) - 1 for i in row] for row in rows]}).explode(
        "item"
    )
    corpus = Corpus(
        name="beauty",
        items=pl.DataFrame({"item_id": [str(i) for i in range(1, 12_102)]}),
        users=pl.DataFrame({"user_id": [str(u) for u in range(len(rows))]}),
        events=events.select(pl.all().cast(pl.Int32), time=pl.lit(None, pl.Int64)),
        clock="order",
    )
    split = LeaveOneOut().split(corpus)
    test = split.evaluation("test")
    assert np.bincount(split.fold).tolist() == [198_502 - 2 * 22_363, 22_363, 22_363]
    assert test.target_item[:3].tolist() == [4, 10, 18]
    assert collections.Counter(np.diff(test.history_offsets) + 1) == counts
    split.check_no_leak(split.training_events(), "nobody")


def user_time_by_loop(events, timed, validation, test):
    """Folds of one history, as a person would write them."""
    n = len(events)
    folds = [TRAIN] * n
    if n >= 3:
        tested = min(max(1, int(n * test)), n - 2)
        validated = min(max(1, int(n * validation)), n - 1 - tested)
        folds = [TRAIN] * (n - tested - validated) + [VALIDATION] * validated + [TEST] * tested
    if timed:
        for time in {time for _, time in events}:
            rows = [row for row in range(n) if events[row][1] == time]
            if len({events[row] for row in rows}) < len(rows):
                folds = [folds[rows[-1]] if row in rows else fold for row, fold in enumerate(folds)]
    return folds


@property_test
@given(st.data(), st.sampled_from([(0.1, 0.1), (0.3, 0.5), (0.05, 0.9)]), st.integers(0, 3))
def test_user_time_equals_the_loop(data, shares, minimum_history):
    clock = data.draw(clocks)
    drawn = data.draw(histories(clock))
    corpus = corpus_of(drawn, clock)
    split = split_or_assume(UserTime(*shares, minimum_history=minimum_history), corpus)
    by_loop = [user_time_by_loop(events, clock != "order", *shares) for events in drawn]
    assert split.fold.dtype == np.int8 and split.fold.tolist() == [fold for folds in by_loop for fold in folds]
    user = corpus.events["user"].to_numpy()
    assert all((np.diff(split.fold[user == one]) >= 0).all() for one in range(len(drawn)))
    for name, number in splits.FOLDS.items():
        firsts = [folds.index(number) if number in folds else -1 for folds in by_loop]
        starts = np.cumsum([0] + [len(events) for events in drawn])
        expected = [start + place for start, place in zip(starts, firsts, strict=False) if place >= minimum_history]
        assert split.targets[name].tolist() == [row for row in expected if split.fold[row] == number]
    split.check_no_leak(split.training_events(), "a careful reader")
    held_out = np.flatnonzero(split.fold != TRAIN)
    leaked = corpus.events[held_out[:1]].with_columns(event=pl.lit(int(held_out[0]), pl.Int64))
    with pytest.raises(LeakError, match="^leak: popularity"):
        split.check_no_leak(leaked, "popularity")


def test_user_time_holds_out_the_ends_of_histories():
    split = UserTime(0.2, 0.3).split(corpus_of([[0] * 10, [1, 2], [3, 4, 5]], clock="order"))
    assert split.fold.tolist() == [0] * 5 + [1] * 2 + [2] * 3 + [0, 0] + [0, 1, 2]
    assert split.targets["validation"].tolist() == [5, 13] and split.targets["test"].tolist() == [7, 14]
    copies = UserTime().split(corpus_of([[(0, 1), (1, 2), (2, 5), (3, 5), (2, 5)]]))
    assert copies.fold.tolist() == [TRAIN, TRAIN, TEST, TEST, TEST] and not len(copies.targets["validation"])


@pytest.mark.parametrize("shares", [(0.0, 0.1), (0.1, 0.0), (0.5, 0.5)])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(SplitError, match="expected validation and test as shares .* together less than 1, got 0"):
        UserTime(*shares).split(corpus_of([[0, 1, 2]], clock="order"))


def test_user_time_needs_three_events_of_one_user():
    with pytest.raises(SplitError, match="at least 3 events; the longest of 2 histories of corpus 'small' has 2"):
        UserTime().split(corpus_of([[0, 1], [2]], clock="order"))
