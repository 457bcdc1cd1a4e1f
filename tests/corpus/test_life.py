"""Births, deaths and days: what was known when, and nothing of later."""

import dataclasses

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.life import ALWAYS, DAY, Calendar, alive, births
from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.sources.as_of import AsOf
from plum_jax.corpus.sources.lives import Lives
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import NOT_LEARNT, TEST, TRAIN, Day, SplitError


def corpus_of(rows: list[tuple[int, int, int]], items: int, **columns: list[int | None]) -> Corpus:
    """Of (user, item, time); columns of the items besides."""
    users = 1 + max(user for user, _, _ in rows)
    return Corpus(
        name="days",
        items=pl.DataFrame({"item_id": [f"i{n}" for n in range(items)], **columns}),
        users=pl.DataFrame({"user_id": [f"u{n}" for n in range(users)]}),
        events=pl.DataFrame(
            sorted(rows, key=lambda row: (row[0], row[2])),
            schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64},
            orient="row",
        ),
    )


# Three users, five items, the last of which nobody takes; item 3 is first taken at 40.
ROWS = [(0, 0, 10), (1, 1, 12), (0, 1, 20), (1, 2, 25), (0, 3, 40), (1, 3, 41), (2, 0, 45), (0, 2, 60), (2, 3, 70)]


def test_an_item_is_born_when_it_is_published_or_first_taken():
    assert births(corpus_of(ROWS, 5)).tolist() == [10, 12, 25, 40, ALWAYS]
    published = corpus_of(ROWS, 5, publish_time=[5, None, None, 50, 90])
    assert births(published).tolist() == [5, 12, 25, 40, 90]  # taken before it was published: it was there
    mortal = corpus_of(ROWS, 5, end_time=[50, None, 51, None, None])
    assert alive(mortal, 50).tolist() == [False, True, True, True, True]
    assert alive(published, 50).all()


def test_what_was_known_at_a_moment_does_not_depend_on_what_came_later(tmp_path):
    whole = corpus_of(ROWS, 5)
    whole.save(tmp_path / "whole", config=None, inputs={})
    known = AsOf(str(tmp_path / "whole"), 45).read()
    assert known.items["item_id"].to_list() == ["i0", "i1", "i2", "i3", "i4"]
    assert known.users["user_id"].to_list() == ["u0", "u1"] and known.num_events == 6
    earlier = AsOf(str(tmp_path / "whole"), 26).read()
    assert earlier.items["item_id"].to_list() == ["i0", "i1", "i2", "i4"]
    assert earlier.events["item"].to_list() == [0, 1, 1, 2]
    later = corpus_of([*ROWS, (3, 1, 71), (1, 2, 80)], 5)
    later.save(tmp_path / "later", config=None, inputs={})
    assert AsOf(str(tmp_path / "later"), 45).read().fingerprint == known.fingerprint


def test_days_are_of_equally_many_events_or_of_a_span():
    times = [*range(80), *np.linspace(1000, 9000, 20).astype(int).tolist()]
    corpus = corpus_of([(0, 0, time) for time in times], 1)
    cuts = Calendar(base=0.8, days=4).cuts(corpus)
    assert np.diff(np.searchsorted(times, cuts)).tolist() == [5, 5, 5, 5] and cuts[-1] == 9001
    cuts = Calendar(base=500, days=3, span=3000 / DAY).cuts(corpus)
    assert cuts.tolist() == [500, 3500, 6500, 9500]


def test_bad_days_are_one_error_each():
    times = [*range(80), *range(3 * DAY, 3 * DAY + 20)]
    corpus = corpus_of([(0, 0, time) for time in times], 1)
    with pytest.raises(CorpusError, match="day 2 of 4 .1970-01-02T00:01:20 to .*has no event of corpus 'days'.*SPAN"):
        Calendar(base=80, days=4, span=1.0).cuts(corpus_of([(0, 0, time) for time in [*times, 90, 2 * DAY + 90]], 1))
    with pytest.raises(CorpusError, match="the base .* has no event"):
        Calendar(base=0, days=1).cuts(corpus)
    with pytest.raises(CorpusError, match="day 1 of 2"):  # of one second: it cannot be divided
        Calendar(base=80, days=2).cuts(corpus_of([(0, 0, 1), (0, 0, 90), (0, 0, 90)], 1))
    with pytest.raises(CorpusError, match="the clock of corpus 'days' is 'relative'"):
        Calendar().cuts(dataclasses.replace(corpus, clock="relative"))
    with pytest.raises(CorpusError, match="one day or more"):
        Calendar(days=0).cuts(corpus)
    with pytest.raises(CorpusError, match="a fraction of the events, got 1.5"):
        Calendar(base=1.5).cuts(corpus)


def test_a_day_learns_its_events_once_and_the_texts_of_what_has_come():
    corpus = corpus_of(ROWS, 5)
    split = Day(learnt_until=20, train_until=40, judged_from=45).split(corpus)
    times = corpus.events["time"].to_numpy()
    assert (split.fold == np.where(times < 40, TRAIN, np.where(times < 45, NOT_LEARNT, TEST))).all()
    assert split.before is not None and (split.before.events == (times < 20)).all()
    assert split.spoken_items.tolist() == [False] * 5  # item 3 had come before 45, which the day before knew of
    assert Day(learnt_until=20, train_until=40, judged_from=40).split(corpus).spoken_items.tolist()[3]
    assert Day(None, 40, 45).split(corpus).spoken_items.all()
    # User 2 has nothing before 45; the gap's events are in the histories.
    evaluation = split.evaluation("test")
    assert evaluation.user.tolist() == [0] and evaluation.history(0).tolist() == [0, 1, 3]
    assert len(split.evaluation("validation")) == 0
    with pytest.raises(LeakError):
        split.check_no_leak(corpus.events.filter(pl.col("time") == 40), "a test")
    others = Day(learnt_until=26, train_until=40, judged_from=45)
    with pytest.raises(SplitError, match="no event of corpus 'days' is left to learn from"):
        others.split(corpus)
    with pytest.raises(SplitError, match="nobody in corpus 'days' has an event from unix 80 on"):
        Day(20, 40, 80).split(corpus)
    with pytest.raises(SplitError, match="learnt_until <= train_until"):
        Day(30, 20, 40).split(corpus)


def test_splits_that_differ_in_what_was_learnt_before_differ():
    corpus = corpus_of(ROWS, 5)
    splits = [Day(None, 40, 45), Day(20, 40, 45), Day(21, 40, 45)]
    assert len({day.split(corpus).fingerprint for day in splits}) == 3


def test_items_of_any_source_come_and_go():
    source = Simulator(num_users=200, num_items=100)
    whole, living = source.read(), Lives(source, born=0.3, gone=0.2, after=0.5, seed=1)
    corpus = living.read()
    assert corpus.fingerprint == living.read().fingerprint
    assert corpus.fingerprint != dataclasses.replace(living, seed=2).read().fingerprint
    items = corpus.items
    came, went = items["publish_time"].is_not_null(), items["end_time"].is_not_null()
    assert 15 < came.sum() < 45 and 8 < went.sum() < 35
    both = items.filter(came & went)
    assert (both["publish_time"] <= both["end_time"]).all()
    assert items["publish_time"].min() >= whole.events["time"].quantile(0.45)
    lives = corpus.events.join(items.with_row_index("item").cast({"item": pl.Int32}), on="item")
    assert not lives.filter(pl.col("time") < pl.col("publish_time")).height
    assert not lives.filter(pl.col("time") >= pl.col("end_time")).height
    # All other events are there: those of items that neither come nor go, whole.
    stays = whole.events.filter(~(came | went).gather(whole.events["item"]))
    assert corpus.events.filter(~(came | went).gather(corpus.events["item"])).equals(stays)
    with pytest.raises(CorpusError, match="shares born and gone"):
        Lives(source, born=1.5).read()
