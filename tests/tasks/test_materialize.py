"""Materialised records are the tasks' sequences, bit for bit; a killed run keeps what it finished."""

import numpy as np
import pytest
import seqio

from plum_jax import artifact, ragged
from plum_jax.feeds import token_records
from plum_jax.feeds.batches import TokenBatches
from tasks import mixtures
from tasks.histories import HistoryTemplates
from tasks.materialize import materialize
from tasks.retrieval import Retrieval, Reward
from tasks.seqio_task import sequence_task
from tasks.sid_text import SidText
from tasks.watch_history import WatchHistory

INPUTS = {"split": "1", "sid_table": "2", "vocabulary": "3"}


def make_mixture(world) -> seqio.Mixture:
    behaviour = [
        WatchHistory(HistoryTemplates(event="{sid} {channel}")).task(world.split, world.table, world.vocabulary)
    ]
    texts = SidText({"title_of_sid": "Video {sid} has title (en): {title}", "sid_of_title": "{title} is {sid}"})
    metadata = texts.tasks(world.corpus, world.table, world.vocabulary)
    return mixtures.cpt_mixture(behaviour, metadata, 0.5)


def stored(directory, name: str) -> list[tuple[list[int], list[float]]]:
    import grain

    task = {task.name: task for task in token_records.read_tasks(directory)}[name]
    source = grain.sources.ArrayRecordDataSource(task.paths)
    lengths, tokens, weights = token_records.unpack(list(source.__getitems__(list(range(len(source))))))
    return [
        (t.tolist(), w.tolist())
        for t, w in zip(ragged.Ragged(tokens, lengths).rows(), ragged.Ragged(weights, lengths).rows(), strict=True)
    ]


def test_records_are_the_tasks_sequences(world, tmp_path):
    config = Retrieval(reward=Reward("rating", scale=1 / 3), history_weight=0.7)
    task = config.task(world.split, world.table, world.vocabulary)
    materialize(lambda: task, tmp_path, config=config, inputs=INPUTS)
    dataset = task.get_dataset(sequence_length=None, split="train", shuffle=False)
    expected = [(row["targets"].tolist(), row["weights"].tolist()) for row in dataset.as_numpy_iterator()]
    assert stored(tmp_path, "retrieval") == expected
    assert any(weight % 1 for _, weights in expected for weight in weights), "weights must have fractions"


def test_mixture_counts_rates_and_batches(world, tmp_path):
    tasks = materialize(lambda: make_mixture(world), tmp_path, config={}, inputs=INPUTS, max_length=200)
    assert {task.name: task.rate for task in tasks} == {
        "sid_of_title": 0.25,
        "title_of_sid": 0.25,
        "watch_history": 0.5,
    }
    counts = {task.name: task.statistics for task in tasks}
    assert counts["watch_history"].records == 3 and counts["title_of_sid"].records == 5
    assert counts["watch_history"].tokens == sum(len(tokens) for tokens, _ in stored(tmp_path, "watch_history"))
    assert max(task.statistics.largest_token for task in tasks) < world.vocabulary.vocab_size
    batch = next(TokenBatches(tmp_path, batch_size=2, length=128).make_iterator())
    assert batch["decoder_target_tokens"].shape == (2, 128)


def test_a_current_artefact_is_kept_without_making_the_tasks(world, tmp_path):
    first = materialize(lambda: make_mixture(world), tmp_path, config={"a": 1}, inputs=INPUTS)
    again = materialize(lambda: pytest.fail("it is current"), tmp_path, config={"a": 1}, inputs=INPUTS)
    assert again == first
    with pytest.raises(ZeroDivisionError):
        materialize(lambda: 1 // 0, tmp_path, config={"a": 2}, inputs=INPUTS)
    with pytest.raises(ZeroDivisionError):
        materialize(lambda: 1 // 0, tmp_path, config={"a": 1}, inputs={**INPUTS, "split": "other"})


def test_a_killed_run_keeps_its_finished_tasks(world, tmp_path, monkeypatch):
    write_task, written = token_records.write_task, []

    def die_at_the_last(directory, records, **kwargs):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(kwargs["name"])
        return write_task(directory, records, **kwargs)

    monkeypatch.setattr(token_records, "write_task", die_at_the_last)
    with pytest.raises(KeyboardInterrupt):
        materialize(lambda: make_mixture(world), tmp_path / "a", config={}, inputs=INPUTS)
    with pytest.raises(artifact.ArtifactError):
        token_records.read_tasks(tmp_path / "a")
    rest: list[str] = []
    monkeypatch.setattr(
        token_records, "write_task", lambda d, r, **kwargs: (rest.append(kwargs["name"]), write_task(d, r, **kwargs))[1]
    )
    resumed = materialize(lambda: make_mixture(world), tmp_path / "a", config={}, inputs=INPUTS)
    assert written == ["sid_of_title", "title_of_sid"] and rest == ["watch_history"]
    uninterrupted = materialize(lambda: make_mixture(world), tmp_path / "b", config={}, inputs=INPUTS)
    assert [task.statistics for task in resumed] == [task.statistics for task in uninterrupted]


def test_errors_name_the_task_and_what_to_do(world, tmp_path):
    task = WatchHistory(HistoryTemplates(event="{sid} {title}")).task(world.split, world.table, world.vocabulary)
    with pytest.raises(
        ValueError, match=r"task watch_history: sequence 0 has \d+ tokens, .* holds 12: raise the length"
    ):
        materialize(lambda: task, tmp_path, config={}, inputs=INPUTS, max_length=12)
    with pytest.raises(artifact.ArtifactError):
        token_records.read_tasks(tmp_path)
    with pytest.raises(ValueError, match="task nothing has no sequences"):
        sequence_task("nothing", lambda: iter(()), world.vocabulary)


def test_mixtures(world):
    def task(name: str) -> seqio.Task:
        row = (ragged.repeated([5, 1], 1), ragged.repeated([1, 1], 1, np.float32))
        return sequence_task(name, lambda: iter([row]), world.vocabulary)

    mixture = mixtures.cpt_mixture([task("a")], [task("b"), task("c")], 0.6)
    assert {t.name: mixture.get_rate(t) for t in mixture.tasks} == {"a": 0.6, "b": 0.2, "c": 0.2}
    only = mixtures.cpt_mixture([task("a")], [], 0.6)
    assert [t.name for t in only.tasks] == ["a"]
    with pytest.raises(ValueError, match="0 < behaviour_rate < 1, got 1.0; drop tasks instead"):
        mixtures.cpt_mixture([task("a")], [task("b")], 1.0)
    with pytest.raises(ValueError, match="expected different tasks and a rate for each"):
        mixtures.mixture("m", [task("a"), task("a")])
    with pytest.raises(ValueError, match="expected different tasks and a rate for each"):
        mixtures.mixture("m", [])


def test_seqio_serves_the_mixture_too(world):
    mixture = make_mixture(world)
    dataset = mixture.get_dataset(sequence_length=None, split="train", shuffle=False, num_epochs=1)
    rows = list(dataset.take(4).as_numpy_iterator())
    assert all(row["targets"].dtype == np.int32 and row["weights"].dtype == np.float32 for row in rows)
    assert isinstance(mixture.output_features["targets"].vocabulary.decode(rows[0]["targets"].tolist()), str)
