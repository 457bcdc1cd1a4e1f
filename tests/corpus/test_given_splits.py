"""Data that come split, against plain loops; both forms of a log, lists of items, and what is refused."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from small_corpora import corpus_of, histories

from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources import table
from plum_jax.corpus.splits import FOLDS, TEST, TRAIN, VALIDATION, Given, GivenItems, SplitError

property_test = settings(max_examples=60, deadline=None)
NUMBER = {"train": TRAIN, "validation": VALIDATION, "test": TEST}


def folded(drawn, folds, clock="absolute"):
    """A corpus whose events have these folds."""
    corpus = corpus_of(drawn, clock)
    return dataclasses.replace(corpus, events=corpus.events.with_columns(fold=pl.Series(folds, dtype=pl.String)))


def check_targets_by_loop(split):
    """One target a user: the first of the fold with anything before it that is of an earlier fold; that is history."""
    users = split.corpus.events["user"].to_list()
    for name, number in FOLDS.items():
        expected = {}
        for row, user in enumerate(users):
            before = [r for r in range(row) if users[r] == user and split.fold[r] < number]
            if split.fold[row] == number and before and user not in expected:
                expected[user] = (row, before)
        evaluation = split.evaluation(name)
        assert evaluation.target_event.tolist() == [row for row, _ in expected.values()]
        offsets = evaluation.history_offsets
        found = [evaluation.history_events[a:b].tolist() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
        assert found == [before for _, before in expected.values()]


def check_guard(split, data):
    """Training events pass, any held-out one is caught."""
    split.check_no_leak(split.training_events(), "a careful reader")
    event = data.draw(st.sampled_from(np.flatnonzero(split.fold != TRAIN).tolist()))
    planted = split.corpus.events[[event]].with_columns(event=pl.lit(event, pl.Int64))
    with pytest.raises(LeakError, match="^leak: popularity"):
        split.check_no_leak(planted, "popularity")


@property_test
@given(st.data())
def test_given_folds_are_kept_and_torn_interactions_refused(data):
    clock = data.draw(st.sampled_from(["absolute", "relative", "order"]))
    drawn = data.draw(histories(clock))
    names = data.draw(st.lists(st.sampled_from(list(NUMBER)), min_size=sum(map(len, drawn)), max_size=99))
    names = names[: sum(map(len, drawn))]
    assume(set(names) == set(NUMBER))
    corpus = folded(drawn, names, clock)
    one = corpus.events.group_by("user", "item", "time").agg(pl.col("fold").n_unique())
    if clock != "order" and one["fold"].max() > 1:
        with pytest.raises(SplitError, match="a held-out interaction may not be in another fold; keep it in one"):
            Given().split(corpus)
        return
    try:
        split = Given().split(corpus)
    except SplitError as error:
        assert "a target needs a history" in str(error)
        assume(False)
    assert split.fold.tolist() == [NUMBER[name] for name in names]
    check_targets_by_loop(split)
    check_guard(split, data)


@property_test
@given(st.data())
def test_without_a_validation_fold_the_last_training_interaction_is_taken(data):
    drawn = data.draw(histories(min_events=3))
    test = [bool(i % 4 == 3) for events in drawn for i in range(len(events))]
    corpus = folded(drawn, ["late" if late else "early" for late in test])
    try:
        split = Given(train="early", validation=None, test=["late"]).split(corpus)
    except SplitError:
        assume(False)
    assert (split.fold == TEST).tolist() == test
    rows = list(corpus.events.select("user", "item", "time").iter_rows())
    for user in range(len(drawn)):
        early = [r for r, row in enumerate(rows) if row[0] == user and not test[r]]
        ends = [r for r in early if rows[r] not in rows[r + 1 :]]  # the last row of each interaction
        taken = [r for r in early if len(ends) > 1 and rows[r] == rows[ends[-1]]]
        assert [r for r in early if split.fold[r] == VALIDATION] == taken
    check_targets_by_loop(split)


@property_test
@given(st.data())
def test_items_listed_for_a_fold_take_their_events_there(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("lists")
    corpus = corpus_of(data.draw(histories(min_events=3)))
    fold_of_item = data.draw(st.lists(st.sampled_from([TRAIN, VALIDATION, TEST]), min_size=6, max_size=6))
    assume({VALIDATION, TEST} <= set(fold_of_item))
    for number in (VALIDATION, TEST):
        ids = [f"i{item}\n" for item, of in enumerate(fold_of_item) if of == number]
        (directory / f"{number}.txt").write_text("".join(ids))
    try:
        split = GivenItems(test=f"{directory}/{TEST}.txt", validation=f"{directory}/{VALIDATION}.txt").split(corpus)
    except SplitError as error:
        assert "history" in str(error) or "left for training" in str(error)
        assume(False)
    assert split.fold.tolist() == [fold_of_item[item] for item in corpus.events["item"]]
    assert split.learnt_items.tolist() == [of == TRAIN for of in fold_of_item]
    assert not split.item_popularity[~split.learnt_items].any()
    check_targets_by_loop(split)
    check_guard(split, data)


LOG = [
    ("u1", "a", 1, "fit"),
    ("u1", "b", 2, "fit"),
    ("u1", "c", 3, "dev"),
    ("u1", "a", 4, "eval"),
    ("u2", "b", 1, "fit"),
]
LOG += [("u2", "d", 2, "dev"), ("u2", "a", 3, "eval"), ("u2", "c", 4, "eval")]
NAMED = Given(train="fit", validation="dev", test="eval")


def csv_of(rows, titles=False):
    return "".join(
        f"{row}\n"
        for row in (
            "user_id,item_id,when,part" + ",title" * titles,
            *(",".join(map(str, row)) + f",film {row[1]}" * titles for row in rows),
        )
    )


@pytest.mark.parametrize("titles", [False, True])
def test_a_column_and_a_file_for_each_fold_say_the_same(tmp_path, titles):
    text = {"text_fields": ("title",)} if titles else {}
    (tmp_path / "log.csv").write_text(csv_of(LOG, titles))
    paths = {}
    for name in ("fit", "dev", "eval"):
        paths[name] = f"{name}.csv"
        (tmp_path / paths[name]).write_text(csv_of([row for row in LOG if row[3] == name], titles))
    common = {"data_dir": str(tmp_path), "name": "log", "time": "when", **text}
    column = NAMED.split(table.Table(events_path="log.csv", fold="part", **common).read())
    source = table.Table(events_path=paths, **common)
    files = NAMED.split(source.read())
    assert list(source.inputs()) == [str(tmp_path / path) for path in paths.values()]
    for split in (column, files):
        ids = split.corpus.items["item_id"]
        said = [
            (evaluation.fold, split.corpus.users["user_id"][int(user)], ids[int(item)], [ids[int(i)] for i in history])
            for evaluation in map(split.evaluation, FOLDS)
            for user, item, history in zip(
                evaluation.user, evaluation.target_item, map(evaluation.history, range(len(evaluation))), strict=True
            )
        ]
        assert sorted(said) == [
            ("test", "u1", "a", ["a", "b", "c"]),
            ("test", "u2", "a", ["b", "d"]),  # of two test events the first; the other is held out
            ("validation", "u1", "c", ["a", "b"]),
            ("validation", "u2", "d", ["b"]),
        ]
        if titles:
            assert split.corpus.items.sort("item_id")["title"].to_list() == ["film a", "film b", "film c", "film d"]


def test_files_of_folds_with_one_user_a_row_and_no_times(tmp_path):
    (tmp_path / "train.dat").write_text("1 a b c\n2 b a\n")
    (tmp_path / "test.dat").write_text("1 d e\n2 c\n")
    lines = {name: (tmp_path / f"{name}.dat").read_text().splitlines() for name in ("train", "test")}
    for name, rows in lines.items():
        (tmp_path / f"{name}.tsv").write_text("".join(row.replace(" ", "\t", 1) + "\n" for row in rows))
    source = table.Table(
        events_path={"train": str(tmp_path / "train.tsv"), "test": str(tmp_path / "test.tsv")},
        layout="users",
        events_columns=["user_id", "item_id"],
    )
    split = Given(validation=None).split(source.read())
    assert split.fold.tolist() == [TRAIN, TRAIN, VALIDATION, TEST, TEST, TRAIN, VALIDATION, TEST]
    assert [split.corpus.items["item_id"][int(i)] for i in split.evaluation("test").target_item] == ["d", "c"]


def test_a_bad_row_names_the_file_of_its_fold(tmp_path):
    (tmp_path / "fit.csv").write_text(csv_of(LOG[:2]))
    (tmp_path / "eval.csv").write_text(csv_of([*LOG[6:], ("u3", "unheard", 9, "eval")]))
    (tmp_path / "items.csv").write_text("item_id\na\nb\nc\n")
    paths = {"fit": str(tmp_path / "fit.csv"), "eval": str(tmp_path / "eval.csv")}
    with pytest.raises(CorpusError, match=r"eval.csv, row 4, field 'item_id': unknown item: 'unheard' is not among"):
        table.Table(events_path=paths, items_path=str(tmp_path / "items.csv"), time="when").read()
    (tmp_path / "fit.csv").write_text(csv_of([LOG[0], ("u1", "b", 2, "")]))
    with pytest.raises(CorpusError, match=r"fit.csv, row 3, field 'part': missing fold: expected the name of a fold"):
        table.Table(events_path=paths["fit"], fold="part", time="when").read()
    for wrong, message in (
        ({"fold": "part", "time": "when"}, "goes without `fold`: the file says the fold"),
        ({"gap": "when"}, "goes without `gap`: a gap across two files is not known: use `time`"),
    ):
        with pytest.raises(CorpusError, match=message):
            table.Table(events_path=paths, **wrong).read()


@pytest.mark.parametrize(
    "splitter, message",
    [
        (Given(), r"corpus 'small' has a fold 'dev' \(1 events\), which splits.Given does not name \(train='train'"),
        (Given("fit", "dev", ("eval", "dev")), "names the fold 'dev' twice"),
        (
            Given("fit", ["dev", "valid"], "eval"),
            r"no event is of the fold 'valid' .*; the folds are \['dev', 'eval', 'fit'\]; validation=None takes each",
        ),
        (Given("eval", "fit", "dev"), "no user of corpus 'small' has an event for validation after one of an earlier"),
    ],
)
def test_names_that_do_not_fit_the_data_are_refused(splitter, message):
    corpus = folded([[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]], ["fit", "fit", "dev", "eval", "eval"])
    with pytest.raises(SplitError, match=message):
        splitter.split(corpus)


def test_a_corpus_without_folds_is_refused():
    with pytest.raises(SplitError, match="does not say which event is of which fold: set table.Table.fold"):
        Given().split(corpus_of([[0, 1, 2]], clock="order"))


def test_targets_older_than_training_are_said(capsys):
    corpus = folded([[0, 1, 2, 3, 4], [0, 1, 2]], ["train", "test", "validation", "test", "train", *NUMBER], "order")
    split = Given().split(corpus)
    assert split.evaluation("test").history(0).tolist() == [0]
    said = "small: 1 of 2 {} targets are older than training events of the same user; their histories hold what came "
    assert capsys.readouterr().out == "".join(said.format(name) + "before\n" for name in ("validation", "test"))


def test_lists_of_items_that_do_not_fit_are_refused(tmp_path, capsys):
    corpus = corpus_of([[0, 1, 2, 3], [1, 4, 2]], clock="order")
    (tmp_path / "new.txt").write_text("i2\n\n i3\ngone\n")
    (tmp_path / "other.txt").write_text("i3\n")
    (tmp_path / "foreign.txt").write_text("x\ny\n")
    new, other, foreign = (str(tmp_path / f"{name}.txt") for name in ("new", "other", "foreign"))
    split = GivenItems(new).split(corpus)
    assert capsys.readouterr().out == f"{new}: 1 of 3 ids (such as 'gone') are no items of small\n"
    assert split.fold.tolist() == [TRAIN, VALIDATION, TEST, TEST, TRAIN, VALIDATION, TEST]
    for splitter, message in (
        (GivenItems(new, other), f"item 'i3' is in both {new} and {other}: leave it in one"),
        (GivenItems(foreign), r"none of its 2 lines \(such as \['x', 'y'\]\) is an item of corpus 'small'"),
        (GivenItems(f"{new}.gone"), "expected a text file with one item id a line"),
    ):
        with pytest.raises(SplitError, match=message):
            splitter.split(corpus)
