"""What is told of an event is true of what was before it, and of nothing else; rows hold it segment by segment."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from small_m6 import TEXTS, corpus, tokens_of, writer_of

from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.splits import TRAIN
from plum_jax.ranking.past import SHRUNK_BY
from plum_jax.systems.m6rec.pretraining import text_of
from plum_jax.systems.m6rec.rows import CANDIDATE, MASK, NOTHING, USER
from plum_jax.systems.m6rec.templates import Wording, ago, listed, profile
from plum_jax.systems.m6rec.writer import Text


def test_sentences_are_those_of_the_papers_figure_and_in_its_manner():
    assert profile({"gender": "F", "age": 25, "city": None}) == "This is a female user, age 25."
    assert profile({"zip_code": "1"}) == "This is a user, zip code 1."
    shop = Wording("product", "clicked", "purchased", "returned")
    assert shop.behaviour(10 * 3600 + 59, float("nan")) == "Ten hours ago, the user clicked"
    assert shop.behaviour(3 * 3600, 1.0) == "Three hours ago, the user purchased"
    assert shop.item("Ray-Ban New Wayfarer", ()) == "a product named Ray-Ban New Wayfarer."
    assert ago(59) == "Just now" and ago(60) == "One minute ago" and ago(13 * 60) == "13 minutes ago"
    assert ago(86_400) == "One day ago" and ago(400 * 86_400) == "One year ago" and ago(None) == "Before"
    assert Wording().item("Heat", ("Crime", "War")) == "a movie named Heat, of Crime and War."
    assert Wording().standing(0.04) == "The movie's rating is high, among the top 5%."
    assert Wording().standing(0.0) == "The movie's rating is high, among the top 1%."
    assert Wording().standing(1.0) == "The movie's rating is low, among the top 100%."
    assert Wording().habit(0.5, float("nan")) == "The user liked 5 of 10 movies."
    assert listed(["A"]) == "A" and listed(["A", "B", "C"]) == "A, B and C"
    assert Wording().answer("Heat", "Action") == "SYSTEM: You may like Heat, an Action movie."


def test_nothing_is_told_of_the_events_own_rating_or_of_what_came_later():
    data, writer = corpus(), writer_of()
    random = np.random.default_rng(1)
    for event in (0, 7, 14, 15, 38):
        user, time = data.events["user"][event], data.events["time"][event]
        later = ((pl.col("user") == user) & (pl.int_range(pl.len()) >= event)) | (
            (pl.col("user") != user) & (pl.col("time") >= time)
        )
        other = data.events.with_columns(
            rating=pl.when(later)
            .then(pl.Series(random.integers(1, 6, data.num_events)).cast(pl.Float32))
            .otherwise("rating"),
        )
        # Folds are shares of a user's events, whatever they are.
        changed = writer_of(dataclasses.replace(data, events=other))
        before, after = writer.offer(event), changed.offer(event)
        assert before.user == after.user
        # How an item stands is told among all training events; which items stand higher than others is not.
        assert before.candidate[:2] == after.candidate[:2] and before.candidate[3:] == after.candidate[3:]


def test_statistics_are_counts_over_earlier_events():
    writer = writer_of()
    events, label, fold = writer.corpus.events, writer.events.label, writer.events.split.fold
    user, item, time = (events[name].to_numpy() for name in ("user", "item", "time"))
    kinds, past = writer.categories, writer.past
    training = [row for row in range(len(label)) if fold[row] == TRAIN]

    def mean_before(event):
        rows = [row for row in training if item[row] == item[event] and time[row] < time[event]]
        overall = label[training].mean()
        return (label[rows].sum() + SHRUNK_BY * overall) / (len(rows) + SHRUNK_BY) if rows else None

    means = [mean_before(row) for row in range(len(label))]
    known = [means[row] for row in training if means[row] is not None]
    for event in range(len(label)):
        before = [row for row in range(event) if user[row] == user[event]]
        shared = [len({*kinds[item[row]]} & {*kinds[item[event]]}) for row in before]
        expected = {
            "standing": None if means[event] is None else np.mean([mean > means[event] + 1e-12 for mean in known]),
            "liked": label[before].mean() if before else None,
            "liked_kind": np.dot(shared, label[before]) / sum(shared) if sum(shared) else None,
        }
        for name, value in expected.items():
            assert np.isclose(getattr(past, name)[event], np.nan if value is None else value, equal_nan=True), name


def test_behaviours_are_the_last_ones_before_and_a_training_event_is_told_of_training_events():
    writer = writer_of()
    assert writer.user(20) == ("This is a user.",)  # the third user's first event
    told = writer.user(29)
    assert len(told) == 1 + 2 * TEXTS.history_length
    assert told[-1] == writer.items[writer.item_of(28)] and told[1].startswith("One hour ago, the user ")
    writer.check_learnt(np.array([25]))
    with pytest.raises(LeakError, match="M6-Rec was given"):
        writer.check_learnt(np.array([29]))


def test_texts_of_pretraining_are_made_of_the_event_and_what_was_before():
    writer = writer_of()
    filled = text_of(writer, 25, 0)
    assert MASK in filled.user and filled.user[0] == MASK
    assert [*filled.candidate, *filled.user[1:]] == [*writer.user(25)]
    going = text_of(writer, 25, 1)
    assert going.user + going.candidate == writer.user(25) and len(going.candidate) == 4
    ending = text_of(writer, 25, 2).candidate[-1]
    assert ending == f"Now, the user {'liked' if writer.events.label[25] else 'disliked'} it."
    for number in range(3, 40, 4):
        for event in (22, 25, 33):
            text = text_of(writer, event, number)
            assert writer.titles[writer.item_of(event)] in " ".join(text.candidate)


def test_a_reason_is_the_category_that_most_liked_behaviours_share():
    writer = writer_of()
    reasons = 0
    for event in range(writer.corpus.num_events):
        own = writer.categories[writer.item_of(event)]
        explained, asked = writer.explanation(event), writer.conversation(event)
        liked = [writer.item_of(row) for row in writer.behaviours(event) if writer.events.label[row] == 1]
        assert (explained is None) == (not own) and (asked is None) == (not own or not liked)
        if own:
            counts = {name: sum(name in writer.categories[item] for item in liked) for name in own}
            named = max(own, key=counts.get)
            assert explained.candidate[1].endswith(f"because it is a {named} movie.")
            reasons += counts[named] > 0
    assert reasons > 10


def test_rows_hold_a_text_and_leave_out_the_oldest_behaviours():
    tokens, writer = dataclasses.replace(tokens_of(), length=200), writer_of()
    text = writer.offer(29)
    rows = tokens.rows([text])
    count = int((rows.side > 0).sum())
    assert count == tokens.count(text)
    sides = rows.side[0, :count]
    assert (np.diff(sides) >= 0).all() and set(sides) == {USER, CANDIDATE}
    assert not rows.tokens[0, count:].any() and (rows.side[0, count:] == NOTHING).all()
    ids = rows.tokens[0]
    assert ids[0] == tokens.special("user_begin") and ids[count - 1] == tokens.special("end")
    said = tokens.pieces.decode([int(i) for i in ids[:count] if i < tokens.vocab_size])
    assert said == " ".join((*text.user, *text.candidate))
    # A segment has one number, and the latest behaviour the same one beside a longer history.
    shorter = dataclasses.replace(tokens, length=count - 1)
    cut = shorter.rows([text])
    oldest = [*tokens.segment(text.user[1]), *tokens.segment(text.user[2])]
    assert int((cut.side > 0).sum()) == count - len(oldest)
    start = int((cut.side == USER).sum()) - 8
    np.testing.assert_array_equal(cut.segment[0, start : start + 8], rows.segment[0, start + len(oldest) :][:8])
    assert tokens.fits(text) and shorter.fits(text) and not dataclasses.replace(tokens, length=12).fits(text)
    with pytest.raises(ValueError, match="raise M6_LENGTH to"):
        dataclasses.replace(tokens, length=12).rows([text])
    with pytest.raises(ValueError, match="lower M6_HISTORY_LENGTH"):
        dataclasses.replace(tokens, length=600).rows([Text((*text.user, *["a movie"] * 100), text.candidate)])


def test_words_of_the_templates_are_pieces():
    tokens = tokens_of()
    for text in ("The user is now recommended", "ago, the user liked", "a movie named"):
        words = text.replace(",", " ,").split()
        assert [tokens.pieces.piece(i).strip("▁") for i in tokens.segment(text)] == words


def test_fields_that_are_not_there_are_named():
    with pytest.raises(CorpusError, match="no text field 'name' of items.*set M6_TITLE"):
        writer_of(texts=dataclasses.replace(TEXTS, title="name"))
    with pytest.raises(CorpusError, match="no feature 'kind' of items.*set M6_CATEGORY"):
        writer_of(texts=dataclasses.replace(TEXTS, category="kind"))
    with pytest.raises(ValueError, match="history_length and title_words of at least 1"):
        dataclasses.replace(TEXTS, history_length=0)
