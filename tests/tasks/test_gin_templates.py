"""The templates in gin/tasks read as the paper prints them, and fit the corpora that they are for."""

import pathlib

import numpy as np
import pytest

from gin import config as gin
from plum_jax import run
from plum_jax.semantic_ids.field_tokens import Buckets, Categories, Hashed
from plum_jax.systems.generative.phase import Phase
from plum_jax.systems.generative.pipeline import VocabularyConfig
from plum_jax.systems.item_history import ItemHistory
from tasks.histories import HistoryTemplates
from tasks.retrieval import Retrieval, Reward
from tasks.sid_text import SidText
from tasks.watch_history import WatchHistory

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def configured():
    def configure(name: str, kind: type) -> object:
        files = ["gin/run/pipeline.gin", "gin/corpus/ml_100k.gin", "gin/model/cpu_nano.gin", f"gin/tasks/{name}.gin"]
        run.configure(files, ["MODEL_DIR = 'somewhere'"])
        return gin.get_configurable(kind)()

    yield configure
    gin.clear_config()


def texts(task, world) -> list[str]:
    dataset = task.get_dataset(sequence_length=None, split="train", shuffle=False)
    return [world.vocabulary.decode(row["targets"]) for row in dataset.as_numpy_iterator()]


def test_plum_item_templates(configured, world):
    made = configured("plum_templates", SidText).tasks(world.corpus, world.table, world.vocabulary)
    read = {task.name: texts(task, world) for task in made}
    assert read["title_of_sid"][0] == "Video <A0><B0><C0> has title (en): Song Mix"
    assert read["topics_of_sid"][1] == "The topics in video <A0><B1><C2> are: dance, music"
    assert read["sid_of_title"][2] == "The video with title (en): Night Drive is <A1><B3><C1>"
    assert read["sid_of_topics"][-1] == "A video with the topics: weather is <A3><B2><C1>"


def test_plum_watch_history_and_prompt(configured, world):
    events = world.corpus.events
    time = events["time"].to_numpy()

    def watch(row: int, sid: str, channel: str, last: int) -> str:
        hours = (time[last] - time[row]) / 3600
        ratio, seconds = events["watch_ratio"][row], events["watch_time"][row]
        return f"{sid} {channel} {100 * ratio:.2f}% {seconds:.2f}s {hours:.2f}h"

    history = [("<A0><B0><C0>", "Radio One"), ("<A0><B1><C2>", "Sweetnotes"), ("<A1><B3><C1>", "Radio One")]
    task = configured("plum_templates", WatchHistory).task(world.split, world.table, world.vocabulary)
    three = " ".join(watch(row, *item, 2) for row, item in enumerate(history))
    assert texts(task, world)[0] == f"wh = {three} || <A2><B0><C3>"

    retrieval = configured("plum_templates", Retrieval)
    assert (retrieval.history_weight, retrieval.eos_weight) == (0.0, 1.0)
    prompt = retrieval.prompts(world.split, "validation", world.table, world.vocabulary)["prompt"][0].to_list()
    four = [watch(row, *item, 3) for row, item in enumerate([*history, ("<A2><B0><C3>", "Sweetnotes")])]
    device = events["device"][4]
    assert world.vocabulary.decode(prompt) == (
        f"{' '.join(four)} || region PH | user 20 years female | device small {device} || <context> "
        "| channel Sweetnotes | title | sid <A2><B0><C3> ||"
    )


def test_compact_movielens_is_one_token_a_field(configured, make_world):
    fields = configured("compact_movielens", VocabularyConfig).field_tokens
    assert [type(field) for field in fields] == [Buckets, Buckets, Categories, Categories]
    retrieval = configured("compact_movielens", Retrieval)
    assert (retrieval.templates.event, retrieval.templates.user) == ("{sid} {rating}", "{age} {gender} {occupation}")
    world = make_world([[0, 1, 2, 3, 4, 5]], fields)
    events = Retrieval(
        HistoryTemplates(
            layout="<user> {user} <history> {history} {target}", event="{sid} {rating}", user="{age} {gender}"
        )
    )
    (prompt,) = events.prompts(world.split, "test", world.table, world.vocabulary)["prompt"].to_list()
    assert len(prompt) == 4 + 5 * 4
    ratings = world.corpus.events["rating"].to_numpy()[:5]
    names = [world.vocabulary.token_name(token) for token in prompt]
    assert names[:4] == ["<user>", "<age:1>", "<gender:other>", "<history>"]
    assert names[7::4] == [f"<rating:{rating:.0f}>" for rating in ratings - 1]


def test_tigers_prompt_is_a_token_for_the_user_and_then_the_items(make_world):
    files = ["gin/run/pipeline.gin", "gin/corpus/ml_100k.gin", "gin/model/cpu_nano.gin", "gin/systems/tiger.gin"]
    run.configure(files, ["MODEL_DIR = 'somewhere'"])
    try:
        fields = gin.get_configurable(VocabularyConfig)().field_tokens
        retrieval = gin.get_configurable(Retrieval)()
    finally:
        gin.clear_config()
    assert fields == (Hashed("user_id", 2000),) and retrieval.history_length == 20
    world = make_world([[0, 1, 2, 3], [1, 2, 3, 0]], fields)
    prompts = retrieval.prompts(world.split, "test", world.table, world.vocabulary)["prompt"].to_list()
    for prompt, user in zip(prompts, world.corpus.users["user_id"], strict=True):
        names = [world.vocabulary.token_name(token) for token in prompt]
        assert names[:3] == ["<user>", f"<user_id:{fields[0].place(user)}>", "<history>"]
        assert len(names) == 3 + 3 * 3


def test_compact_is_the_default(configured):
    assert configured("compact_templates", Retrieval) == Retrieval(
        HistoryTemplates(layout="<history> {history} {target}")
    )
    assert configured("compact_templates", SidText) == SidText()
    assert np.isclose(configured("compact_templates", Retrieval).reward.scale, 1.0)


def test_rewards_targets_and_rates_are_said_by_macros():
    files = ["gin/run/pipeline.gin", "gin/corpus/simulator.gin", "gin/systems/item_history.gin"]
    flags = ["MODEL_DIR = 'somewhere'", "REWARD_USE = 'sampling'", "TARGETS = 3", "RATE_UNIT = 'tokens'"]
    flags += ["retrieval.Reward.column = 'watch_ratio'", "retrieval.Retrieval.history_weight = 0.0"]
    run.configure(files, flags)
    try:
        retrieval, phase = gin.get_configurable(Retrieval)(), gin.get_configurable(Phase)()
        with gin.config_scope("item_history"):
            items = gin.get_configurable(ItemHistory)()
    finally:
        gin.clear_config()
    assert (retrieval.reward_use, retrieval.targets, phase.rate_unit) == ("sampling", 3, "tokens")
    assert retrieval.reward == items.reward == Reward("watch_ratio")
