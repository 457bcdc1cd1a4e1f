"""The three kinds of task: tokens and weights by hand, prompts equal training, leaks caught."""

import dataclasses
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from rendered import records, sids

from plum_jax import artifact
from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.splits import Before, LeaveOneOut
from plum_jax.semantic_ids.field_tokens import Buckets, Categories
from tasks.cpt import CptTasks
from tasks.histories import HistoryTemplates
from tasks.retrieval import Retrieval, Reward, read_prompts, write_prompts
from tasks.sid_text import SidText
from tasks.watch_history import WatchHistory


def test_sid_text_both_ways(world):
    texts = SidText({"title_of_sid": "Video {sid} has title (en): {title}", "sid_of_title": "{title} is {sid}"})
    forth, back = texts.tasks(world.corpus, world.table, world.vocabulary)
    words = world.vocabulary
    with_title = [0, 1, 2, 4, 5]
    assert [tokens for tokens, _ in records(forth)] == [
        [*words.encode("Video"), *sids(world, n), *words.encode(f"has title (en): {world.corpus.items['title'][n]}"), 1]
        for n in with_title
    ]
    assert [tokens for tokens, _ in records(back)] == [
        [*words.encode(f"{world.corpus.items['title'][n]} is"), *sids(world, n), 1] for n in with_title
    ]
    assert all(weights == [1.0] * len(tokens) for tokens, weights in records(forth) + records(back))
    assert (forth.name, back.name) == ("title_of_sid", "sid_of_title")
    assert forth.num_input_examples("train") == 5


def test_sid_text_does_not_speak_of_items_held_out(world):
    texts = SidText({"title_of_sid": "Video {sid} has title (en): {title}"})
    learnt = np.arange(world.corpus.num_items) != 2
    (task,) = texts.tasks(world.corpus, world.table, world.vocabulary, learnt)
    (everything,) = texts.tasks(world.corpus, world.table, world.vocabulary)
    expected = records(everything)
    del expected[2]
    assert records(task) == expected


def test_sid_text_defaults_cover_every_text_and_category(world):
    made = SidText().tasks(world.corpus, world.table, world.vocabulary)
    assert [task.name for task in made] == [
        *("title_of_sid", "sid_of_title", "channel_of_sid", "sid_of_channel", "topics_of_sid", "sid_of_topics")
    ]
    texts = SidText().texts(world.corpus)
    assert "title: Song Mix is item" in texts and "Item has topics: dance, music" in texts


def test_watch_history_by_hand(world):
    task = WatchHistory(HistoryTemplates(layout="wh = {history} || {target}", event="{sid} {channel}")).task(
        world.split, world.table, world.vocabulary
    )
    encode = world.vocabulary.encode
    channels = world.corpus.items["channel"]
    expected = []
    for history, target in (([0, 1, 2], 3), ([5], 4), ([1], 2)):
        events = [token for item in history for token in sids(world, item) + encode(channels[item])]
        expected.append([*encode("wh ="), *events, *encode("||"), *sids(world, target), 1])
    assert [tokens for tokens, _ in records(task)] == expected
    assert all(weights == [1.0] * len(tokens) for tokens, weights in records(task))


def test_a_day_weighs_its_own_events_and_speaks_of_the_items_that_have_come(world):
    # Of the first user's four training events two were learnt before; item 3, which has a channel alone, has come.
    events = np.arange(world.corpus.num_events) < 2
    items = np.arange(world.corpus.num_items)
    split = dataclasses.replace(world.split, before=Before(events, items != 3))
    task = WatchHistory().task(split, world.table, world.vocabulary)
    start = world.vocabulary.control_id("<history>")
    first, *others = records(task)
    assert first[0] == [start, *sids(world, 0, 1, 2, 3), 1]
    assert first[1] == [0.0] * 7 + [1.0] * 7
    # A first event is context for all, as it is for who begins.
    assert all(weights == [0.0] * 4 + [1.0] * 4 for _, weights in others)
    (retrieval, *_) = records(Retrieval(HistoryTemplates()).task(split, world.table, world.vocabulary))
    assert retrieval == (first[0], [0.0] * 7 + [1.0] * 6 + [0.0])

    def names(split) -> list[str]:
        mixture = CptTasks().mixture(split, world.table, world.vocabulary, 64)
        return sorted(task.name for task in mixture.tasks)

    assert names(split) == ["channel_of_sid", "sid_of_channel", "watch_history"]
    nothing = dataclasses.replace(world.split, before=Before(events, items >= 0))
    assert names(nothing) == ["watch_history"]


def test_retrieval_weights_by_hand(make_world):
    world = make_world([[0, 1, 2, 3, 4, 5]], (Buckets("rating", (2.0, 4.0)),))
    config = Retrieval(
        HistoryTemplates(layout="{user} <history> {history} {target}", event="{sid} {rating}", user="{region}"),
        history_length=3,
        history_weight=0.5,
        eos_weight=0.25,
        reward=Reward("rating", scale=0.2),
    )
    ((tokens, weights),) = records(config.task(world.split, world.table, world.vocabulary))
    words, ratings = world.vocabulary, world.corpus.events["rating"].to_numpy()
    r = [float(rating) * 0.2 for rating in ratings]

    def event(item: int) -> list[int]:
        return [*sids(world, item), words.encode_field("rating", ratings[item])]

    user = words.encode("PH")
    history = [token for item in (0, 1, 2) for token in event(item)]
    assert tokens == [*user, words.control_id("<history>"), *history, *sids(world, 3), words.eos_id]
    # The first event has nothing before it; the rating of an event is not predicted.
    expected = [0.0] * (len(user) + 1 + 4)
    expected += [0.5 * r[1]] * 3 + [0] + [0.5 * r[2]] * 3 + [0] + [r[3]] * 3 + [0.25 * r[3]]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_without_history_weight_each_event_is_one_example(world):
    config = Retrieval(history_weight=0.0)
    found = records(config.task(world.split, world.table, world.vocabulary))
    assert len(found) == 3 + 1 + 1
    assert all(sum(weights) == 3 and weights[-4:-1] == [1.0] * 3 for _, weights in found)


def test_context_is_the_request_and_the_item_watched_last(world):
    config = Retrieval(
        HistoryTemplates(
            layout="{history} || {context} || {target}", context="device {device} | channel {channel} | sid {sid}"
        )
    )
    prompt = config.prompts(world.split, "test", world.table, world.vocabulary)["prompt"][0].to_list()
    words = world.vocabulary
    context = [*words.encode("device WEB | channel Ibiza | sid"), *sids(world, 4)]
    assert prompt == [*sids(world, 0, 1, 2, 3, 4), *words.encode("||"), *context, *words.encode("||")]


@pytest.mark.parametrize("history_length", [2, 3, 20])
def test_prompts_are_what_training_shows_before_the_target(make_world, history_length):
    """The validation prompt of a user is the training sequence of a user who watched two items more."""
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 6, int(rng.integers(3, 9))).tolist() for _ in range(12)]
    # No field token whose value depends on the corpus as a whole, and times that only depend on the place.
    longest = max(map(len, histories))
    fields = (Buckets("hours_since_previous_watch", (1.0, 50.0)), Buckets("rating", (2.0, 4.0)))
    config = Retrieval(
        HistoryTemplates(
            layout="<user> {user} <history> {history} || <context_video> {context} {target}",
            event="{sid} {rating} {hours_since_previous_watch} "
            "{hours_since_final_watch:.2f}h {watch_ratio:.2%} {title}",
            user="{age} years {gender}",
            context="{device} {sid} {channel}",
        ),
        history_length=history_length,
    )
    evaluated = make_world([*histories, [0] * (longest + 2)], fields)
    prompts = config.prompts(evaluated.split, "validation", evaluated.table, evaluated.vocabulary)
    longer = make_world([*([*history[:-1], 0, 1] for history in histories), [0] * (longest + 2)], fields)
    found = [tokens for tokens, _ in records(config.task(longer.split, longer.table, longer.vocabulary))]
    eos = evaluated.vocabulary.eos_id
    for row in prompts.head(len(histories)).iter_rows(named=True):
        sequence = [*row["prompt"], *sids(evaluated, row["target_item"]), eos]
        assert sequence in found, evaluated.vocabulary.decode(sequence)


@pytest.mark.parametrize("with_field_tokens", [False, True])
def test_watch_next_is_the_prompt_of_who_has_watched_one_item_and_told_nothing(make_world, with_field_tokens):
    tokens = (Buckets("rating", (2.5,)), Categories("gender", ("male",))) if with_field_tokens else ()
    told = make_world([[0, 1, 2], [5, 4, 3], [1, 2, 3], [2, 3, 4], [4, 5, 1], [3, 0, 5]], tokens)
    # Everybody's fields, and all that is known of a watch but its time, are gone.
    nothing = told.corpus.users.with_columns(
        pl.lit(None, told.corpus.users[name].dtype).alias(name) for name in ("age", "gender", "region")
    )
    columns = ("rating", "watch_ratio", "watch_time", "device")
    events = told.corpus.events.with_columns(
        pl.lit(None, told.corpus.events[name].dtype).alias(name) for name in columns
    )
    corpus = dataclasses.replace(told.corpus, users=nothing, events=events)
    split, table = LeaveOneOut().split(corpus), dataclasses.replace(told.table, corpus_fingerprint=corpus.fingerprint)
    task = Retrieval(
        HistoryTemplates(
            layout="<user> {user} {history} || {context} || {target}",
            event="{sid} {rating} {channel} {watch_ratio:.2%} "
            "{hours_since_final_watch:.2f}h {hours_since_previous_watch}",
            user="region {region} | user {age} years {gender}",
            context="device {device} <context_video> {sid} {title}",
        ),
        history_length=1,
    )
    asked = task.watch_next_prompts(told.split, told.table, told.vocabulary)
    assert asked["item"].to_list() == list(range(6))
    prompts = task.prompts(split, "validation", table, told.vocabulary)
    items = [corpus.events["item"][3 * user] for user in prompts["user"]]
    assert sorted(items) == list(range(6)), "each item is somebody's only one"
    for item, prompt in zip(items, prompts["prompt"], strict=True):
        assert asked["prompt"][item].to_list() == prompt.to_list(), told.vocabulary.decode(prompt)
    sid = told.vocabulary.encode_sid(table.codes[4]).tolist()
    assert str(sid)[1:-1] in str(asked["prompt"][4].to_list()) and "Café" in told.vocabulary.decode(asked["prompt"][4])


@pytest.mark.parametrize(
    "layout", ["<history> {history} {target}", "{user} <history> {history} next: <target> {target}"]
)
def test_a_server_can_make_prompts_of_items_alone(world, layout):
    task = Retrieval(HistoryTemplates(layout=layout), history_length=3)
    recipe = task.prompt_recipe(world.split, world.table, world.vocabulary)
    evaluation = world.split.evaluation("test")
    for row, prompt in enumerate(task.prompts(world.split, "test", world.table, world.vocabulary)["prompt"]):
        newest = evaluation.history(row)[-recipe["history_length"] :].tolist()
        assert recipe["before"] + sids(world, *newest) + recipe["after"] == prompt.to_list()


@pytest.mark.parametrize("more", [{"event": "{sid} {rating}"}, {"user": "{age}"}, {"layout": "<history> {target}"}])
def test_no_recipe_where_a_prompt_takes_more_than_items(world, more):
    task = Retrieval(HistoryTemplates(**{"layout": "{user} {history} {target}", **more}))
    assert task.prompt_recipe(world.split, world.table, world.vocabulary) is None


def test_prompts_of_both_folds(world):
    config = Retrieval(history_length=2)
    validation = config.prompts(world.split, "validation", world.table, world.vocabulary)
    history = world.vocabulary.control_id("<history>")
    assert validation.rows() == [
        (0, [history, *sids(world, 2, 3)], 4, [0, 1, 2, 3]),
        (1, [history, *sids(world, 5, 4)], 3, [4, 5]),
    ]
    test = config.prompts(world.split, "test", world.table, world.vocabulary)
    assert test.rows() == [
        (0, [history, *sids(world, 3, 4)], 5, [0, 1, 2, 3, 4]),
        (1, [history, *sids(world, 4, 3)], 0, [3, 4, 5]),
    ]
    assert test.schema == {"user": pl.Int32, "prompt": pl.List(pl.Int32), "target_item": pl.Int32} | {
        "seen_items": pl.List(pl.Int32)
    }


def test_prompts_are_written_once(world, tmp_path, monkeypatch):
    directory = tmp_path / "prompts"
    arguments = (world.split, "test", world.table, world.vocabulary)
    write_prompts(directory, Retrieval(), *arguments)
    expected = Retrieval().prompts(*arguments)
    assert read_prompts(directory).equals(expected)
    made = artifact.read_manifest(directory, "prompts")
    monkeypatch.setattr(Retrieval, "prompts", lambda *_: pytest.fail("they are current"))
    write_prompts(directory, Retrieval(), *arguments)
    monkeypatch.undo()
    write_prompts(directory, Retrieval(history_length=1), *arguments)
    assert artifact.read_manifest(directory, "prompts").fingerprint != made.fingerprint


@pytest.mark.parametrize("config", [Retrieval(name="fine_tuning"), WatchHistory(name="fine_tuning")])
def test_a_planted_leak_is_caught(world, monkeypatch, config):
    leaking = dataclasses.replace(world.split, fold=world.split.fold.copy())
    everything = world.corpus.events.with_row_index("event").with_columns(pl.col("event").cast(pl.Int64))
    monkeypatch.setattr(type(leaking), "training_events", lambda self: everything)
    with pytest.raises(LeakError, match="leak: fine_tuning was given .*user 'u0', item 'i4'"):
        config.task(leaking, world.table, world.vocabulary)


def test_rewards(world):
    corpus = world.corpus
    events = np.array([1, 3])
    ratings = corpus.events["rating"].to_numpy()[events]
    np.testing.assert_array_equal(Reward()(corpus, events), [1, 1])
    np.testing.assert_allclose(Reward("rating", scale=0.2)(corpus, events), ratings * 0.2, rtol=1e-6)
    low = Reward("rating", scale=-1.0, minimum=0.5)
    np.testing.assert_array_equal(low(corpus, events), [0.5, 0.5])
    with pytest.raises(ValueError, match="has no number 'stars'; valid are .*rating"):
        Reward("stars")(corpus, events)
    holes = dataclasses.replace(
        corpus, events=corpus.events.with_columns(rating=pl.Series([None, None] + [4.0] * 10, dtype=pl.Float32))
    )
    with pytest.raises(ValueError, match="'rating' of event 1 is missing; set Reward.missing"):
        Reward("rating")(holes, events)
    np.testing.assert_allclose(Reward("rating", scale=0.25, missing=0.1)(holes, events), [0.1, 1.0], rtol=1e-6)


def test_global_time_split_trains_before_the_cut_only(world):
    from plum_jax.corpus.splits import GlobalTime

    split = GlobalTime(0.5, 0.75).split(world.corpus)
    held_out = set(np.flatnonzero(split.fold != 0).tolist())
    found = records(Retrieval(history_weight=0.0).task(split, world.table, world.vocabulary))
    per_user = split.training_events().group_by("user").len()["len"].to_list()
    assert held_out and len(found) == sum(max(0, n - 1) for n in per_user)


def test_repeated_user_without_enough_events_gives_no_sequence(make_world):
    world = make_world([[0, 1, 2], [3]])
    with pytest.raises(ValueError, match="task retrieval has no sequences"):
        Retrieval().task(world.split, world.table, world.vocabulary)


def test_prompts_and_configs_do_not_import_tensorflow():
    modules = "retrieval, watch_history, sid_text, mixtures, materialize, fields"
    code = f"import sys; from tasks import {modules}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_leave_one_out_is_what_these_tests_assume(world):
    assert isinstance(world.split.config, LeaveOneOut)
    assert world.split.fold.tolist() == [0, 0, 0, 0, 1, 2, 0, 0, 1, 2, 0, 0]
