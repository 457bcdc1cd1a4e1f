"""Windows by their definition, and epochs of two kinds that go on where they were."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.feeds.array_batches import ArrayBatches, MixedEpochs
from plum_jax.feeds.windows import Windows


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 23), min_size=1, max_size=4),
    st.integers(1, 8),
    st.integers(1, 8),
    st.none() | st.integers(0, 12),
)
def test_windows_are_those_of_the_definition(lengths, length, stride, more):
    reach = None if more is None else length + more
    windows = Windows("sliding", length, min(stride, length), reach)
    expected, latest, first = [], [], 0
    for count in lengths:
        own = np.arange(first, first + count)
        reached = own[len(own) - min(len(own), reach or len(own)) :].tolist()
        if count:
            latest.append(own[-length:].tolist())
        for end in range(len(reached), 0, -windows.stride):
            expected.append(reached[max(0, end - length) : end])
            if end <= length:
                break
        first += count
    assert [window.tolist() for window in windows.sliding(lengths)] == expected
    assert [window.tolist() for window in windows.latest(lengths)] == latest
    if reach is None:
        assert {*itertools.chain.from_iterable(expected)} == {*range(sum(lengths))}


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"kind": "all"}, r"expected kind of windows to be one of .*'mixed'\), got 'all'"),
        ({"length": 10, "stride": 11}, "stride of 1 to length 10, so that no event is left out, got 11"),
        ({"length": 100, "reach": 50}, "reach of at least length 100, or None, got 50"),
    ],
)
def test_windows_that_are_none_are_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        Windows(**settings_)


def test_epochs_of_two_kinds_take_turns_and_go_on_where_they_were():
    parts = [ArrayBatches({"x": np.arange(start, start + count)}, 2, seed=3) for start, count in ((0, 4), (100, 6))]
    mixed = MixedEpochs(*parts)
    assert mixed.steps_per_epoch == 2.5 and len(mixed.arrays["x"]) == 10
    iterator = mixed.make_iterator()
    batches = [next(iterator)["x"].tolist() for _ in range(12)]
    alone = [[next(part)["x"].tolist() for _ in range(6)] for part in (p.make_iterator() for p in parts)]
    assert batches == alone[0][:2] + alone[1][:3] + alone[0][2:4] + alone[1][3:6] + alone[0][4:6]
    for stop in range(12):
        again = mixed.make_iterator()
        again.set_state({"batch": stop})
        assert next(again)["x"].tolist() == batches[stop]
        assert again.get_state() == {"batch": stop + 1}
    with pytest.raises(ValueError, match=r"one batch_size and the same columns, got \[2, 1\]"):
        MixedEpochs(parts[0], ArrayBatches({"x": np.arange(2)}, 1))
