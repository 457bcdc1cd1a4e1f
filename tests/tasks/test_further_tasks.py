"""Masked watches, two items in a sentence, plain text: by hand, without leaks, and one error for what cannot be."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from rendered import records, sids

from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.schema import CorpusError
from tasks.cpt import CptTasks
from tasks.masked_history import MaskedHistory
from tasks.plain_text import PlainText
from tasks.sid_pairs import SidPairs, neighbours
from tasks.sid_text import SidText
from tasks.templates import TemplateError

LENGTH = 64
HISTORIES = [[0, 1, 2, 3, 4, 5, 1], [5, 4, 3, 2, 1], [0, 1, 0, 1, 5]]


@pytest.fixture(scope="module")
def songs(make_world):
    return make_world(HISTORIES)


def made(further, world):
    return further.tasks(world.split, world.table, world.vocabulary, LENGTH)


def test_masked_items_are_asked_for_at_the_end_in_order(songs):
    task = MaskedHistory(mask="(hidden)", share=0.4, history_length=3, seed=1)
    (only,) = made(task, songs)
    words, levels = songs.vocabulary, 3
    mask, target = words.encode("(hidden)"), words.control_id("<target>")
    of_sid = {tuple(sids(songs, item)): item for item in (0, 1, 2, 3, 5)}
    seen = []
    for tokens, weights in records(only):
        place = tokens.index(target)
        answers = [of_sid[tuple(tokens[i : i + levels])] for i in range(place + 1, len(tokens) - 1, levels)]
        assert tokens[0] == words.control_id("<history>") and tokens[-1] == words.eos_id
        assert weights == [0.0] * (place + 1) + [1.0] * (len(tokens) - place - 1)
        shown, at, hidden = [], 1, iter(answers)
        while at < place:
            if tokens[at : at + len(mask)] == mask:
                shown.append(next(hidden))
                at += len(mask)
            else:
                shown.append(of_sid[tuple(tokens[at : at + levels])])
                at += levels
        assert next(hidden, None) is None and 1 <= len(answers) < len(shown)
        seen.append(shown)
    # Training events are all but the last two; items 3 and 4 have one ID.
    train = [[3 if item == 4 else item for item in history[:-2]] for history in HISTORIES]
    pieces = [history[max(0, end - 4) : end] for history in train for end in range(len(history), 1, -3)]
    assert sorted(seen) == sorted(piece for piece in pieces if len(piece) > 1)
    assert records(only) == records(made(task, songs)[0])


def test_two_items_in_a_sentence_are_neighbours_in_training(songs):
    pairs = neighbours(songs.split, 2)
    # 0->1 twice; 1->2, 2->3, 3->4 (first user), 5->4, 4->3 (second), 1->0 (third).
    assert pairs.tolist() == [[0, 1], [1, 0], [1, 2], [2, 3], [3, 4], [4, 3], [5, 4]]
    assert neighbours(songs.split, 1).tolist() == [[0, 1], [1, 0], [2, 3], [3, 4], [4, 3], [5, 4]]
    text = "{title} ({sid}) then {other_sid}: {other_title:.4}"
    (task,) = made(SidPairs({"pair": text}), songs)
    words, titles = songs.vocabulary, songs.corpus.items["title"].to_list()
    expected = [
        [
            *words.encode(f"{titles[a]} ("),
            *sids(songs, a),
            *words.encode(") then"),
            *sids(songs, b),
            *words.encode(f": {titles[b][:4]}"),
            1,
        ]
        for a, b in pairs
        if titles[a] and titles[b]
    ]
    assert [tokens for tokens, _ in records(task)] == expected


def test_plain_text_is_a_document_a_line_cut_into_rows(songs, tmp_path):
    long = " ".join(["Rain on the roof"] * 40)
    (tmp_path / "a.txt").write_text(f"Night Drive\n\n{long}\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Café del Mar", encoding="utf-8")
    text = PlainText((str(tmp_path / "a.txt"), str(tmp_path / "b.txt")))
    words = songs.vocabulary
    documents = [[*words.encode(one), words.eos_id] for one in ("Night Drive", long, "Café del Mar")]
    rows = [tokens for tokens, _ in records(made(text, songs)[0])]
    assert len(documents[1]) > 2 * LENGTH and max(map(len, rows)) == LENGTH
    assert rows == [one[start : start + LENGTH] for one in documents for start in range(0, len(one), LENGTH)]
    assert text.texts(songs.corpus) == ["Night Drive", long, "Café del Mar"]
    before = text.inputs()
    (tmp_path / "b.txt").write_text("Ibiza", encoding="utf-8")
    assert text.inputs() != before


def test_the_mixture_has_all_kinds_at_their_rates(songs, tmp_path):
    (tmp_path / "a.txt").write_text("Night Drive\n")
    tasks = CptTasks(
        sid_text=SidText({"title_of_sid": "{sid} has title: {title}"}),
        further=(MaskedHistory(mask="?"), SidPairs(), PlainText((str(tmp_path / "a.txt"),))),
        behaviour_rate=0.5,
        text_rate=0.2,
    )
    mixture = tasks.mixture(songs.split, songs.table, songs.vocabulary, LENGTH)
    rates = {task.name: mixture.get_rate(task) for task in mixture.tasks}
    usual = dict.fromkeys(("watch_history", "masked_history", "title_of_sid", "next_of_sid"), pytest.approx(0.2))
    assert rates == usual | {"plain_text": pytest.approx(0.2)}
    assert "After item people take item" in tasks.texts(songs.corpus)
    # A run without further tasks is what it was.
    usual = CptTasks(tasks.watch_history, tasks.sid_text)
    assert usual.config == (tasks.watch_history, tasks.sid_text, 0.5) and not usual.inputs


def test_what_cannot_be_trained_on_is_one_error(songs, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("fine\nCaf\xe9".encode("latin-1"))
    for further, error, message in (
        (
            MaskedHistory(),
            TemplateError,
            "mask template of task masked_history: '<mask>' has <mask>, which is no control",
        ),
        (MaskedHistory(mask="?", event="{genre}"), TemplateError, "has no field 'genre'; valid are"),
        (
            MaskedHistory(mask="?", layout="{masked} {history}"),
            TemplateError,
            "have {history}, {masked} in this order",
        ),
        (SidPairs({"p": "{sid} {other_genre}"}), TemplateError, "has no field 'other_genre'; valid are"),
        (SidPairs({"p": "{other_other_sid}"}), TemplateError, "has no field 'other_other_sid'"),
        (PlainText((str(tmp_path / "empty.txt"),)), ValueError, "task plain_text has no sequences"),
        (PlainText(("nowhere.txt",)), CorpusError, "nowhere.txt: there is no such file"),
        (PlainText((str(tmp_path / "latin.txt"),)), CorpusError, "row 2: expected UTF-8"),
    ):
        with pytest.raises(error) as raised:
            made(further, songs)
        assert message in str(raised.value), str(raised.value)
    with pytest.raises(ValueError, match="share of masked events above 0"):
        MaskedHistory(share=1.0)
    blank = SidText({"title_of_sid": "{sid} {title}"})
    learnt = np.zeros(songs.corpus.num_items, bool)
    with pytest.raises(ValueError, match="task title_of_sid has no sequences"):
        blank.tasks(songs.corpus, songs.table, songs.vocabulary, learnt)


@pytest.mark.parametrize("further", [MaskedHistory(mask="?"), SidPairs()])
def test_a_leak_planted_in_the_histories_is_caught(songs, monkeypatch, further):
    leaking = dataclasses.replace(songs.split, fold=songs.split.fold.copy())
    everything = songs.corpus.events.with_row_index("event").with_columns(pl.col("event").cast(pl.Int64))
    monkeypatch.setattr(type(leaking), "training_events", lambda self: everything)
    with pytest.raises(LeakError):
        further.tasks(leaking, songs.table, songs.vocabulary, LENGTH)[0].get_dataset(
            split="train", sequence_length=None
        )
