"""What a run has written, in SeqIO's registry: by a name that says which records it stands for."""

import numpy as np
import polars as pl
import pytest
import seqio

from plum_jax.feeds import token_records
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks import mixtures, registered
from tasks.feature_converter import DecoderFeatures
from tasks.materialize import materialize
from tasks.prompt_vocabulary import PromptVocabulary
from tasks.retrieval import Retrieval
from tasks.seqio_vocabulary import SeqioSidVocabulary
from tasks.watch_history import WatchHistory

LENGTH = 48


@pytest.fixture(scope="module")
def records(world, tmp_path_factory):
    directory = tmp_path_factory.mktemp("records") / "cpt"
    behaviour = WatchHistory().task(world.split, world.table, world.vocabulary)
    retrieval = Retrieval().task(world.split, world.table, world.vocabulary)
    inputs = {"vocabulary": world.vocabulary.fingerprint}
    materialize(lambda: mixtures.cpt_mixture([behaviour], [retrieval]), directory, config="x", inputs=inputs)
    return directory


def test_a_mixture_by_name_has_the_records_as_they_were_written(world, records):
    name = registered.register_records(records, world.vocabulary, phase="cpt", length=LENGTH)
    assert name.startswith("plum_cpt_") and name in seqio.MixtureRegistry.names()
    assert registered.register_records(records, world.vocabulary, phase="cpt", length=LENGTH) == name
    mixture = seqio.get_mixture_or_task(name)
    assert mixture.output_features["targets"].vocabulary == SeqioSidVocabulary(world.vocabulary)
    tasks = token_records.read_tasks(records)
    assert {task.name: mixture.get_rate(task) for task in mixture.tasks} == {f"{name}.{t.name}": t.rate for t in tasks}
    for task in tasks:
        one = seqio.get_mixture_or_task(f"{name}.{task.name}")
        rows = [dict(row) for row in one.get_dataset(None, shuffle=False).as_numpy_iterator()]
        assert len(rows) == one.num_input_examples("train") == task.statistics.records
        assert sum(float(row["weights"].sum()) for row in rows) == pytest.approx(task.statistics.weight_sum)
        assert rows[0]["weights"].dtype == np.float32
        again = [row["targets"].tolist() for row in one.get_dataset(None, shuffle=True, seed=1).as_numpy_iterator()]
        assert sorted(again) == sorted(row["targets"].tolist() for row in rows)


def test_the_mixture_is_packed_for_a_model_and_shared_out_to_hosts(world, records):
    name = registered.register_records(records, world.vocabulary, phase="cpt", length=LENGTH)
    lengths = {"targets": LENGTH, "weights": LENGTH}
    seen = []
    for index in range(2):
        batches = seqio.get_dataset(
            name,
            lengths,
            dataset_split="train",
            shuffle=False,
            num_epochs=1,
            feature_converter=DecoderFeatures(pack=True, bos_id=world.vocabulary.start_id),
            shard_info=seqio.ShardInfo(index, 2),
        )
        seen.append([row["decoder_target_tokens"].tolist() for row in batches.as_numpy_iterator()])
    assert seen[0] and seen[1] and seen[0] != seen[1]


def test_records_of_another_vocabulary_are_refused(world, records):
    other = SidVocabulary(world.vocabulary.text, world.vocabulary.codebook_sizes, ("<history>",))
    with pytest.raises(
        registered.MixtureError, match="made with vocabulary .*, this one is .*: take records and vocab"
    ):
        registered.register_records(records, other, phase="cpt", length=LENGTH)


def test_a_record_that_no_row_holds_is_refused_and_not_trimmed(world, records):
    with pytest.raises(registered.MixtureError, match=r"record \d+ has \d+ tokens, but a row has 4: raise LENGTH"):
        registered.register_records(records, world.vocabulary, phase="cpt", length=4)


def frame():
    return pl.DataFrame(
        {"prompt": [[5, 6], [7]], "target_item": [1, 0]}, schema_overrides={"prompt": pl.List(pl.Int32)}
    )


def test_a_name_of_one_s_own_stands_for_one_thing(world):
    given = ({"test": frame()}, {"test": np.zeros((2, 3), np.int32)}, world.vocabulary)
    assert registered.register_prompts(*given, metrics=[], fingerprint="a", name="mine") == "mine"
    assert registered.register_prompts(*given, metrics=[], fingerprint="a", name="mine") == "mine"
    with pytest.raises(registered.MixtureError, match="the name 'mine' stands for records a .* and now for b"):
        registered.register_prompts(*given, metrics=[], fingerprint="b", name="mine")


def test_rows_count_through_the_folds(world):
    folds = {"validation": frame(), "test": frame()}
    targets = {fold: np.arange(6, dtype=np.int32).reshape(2, 3) for fold in folds}
    name = registered.register_prompts(folds, targets, world.vocabulary, metrics=[], fingerprint="rows")
    task = seqio.get_mixture_or_task(name)
    rows = [dict(row) for row in task.get_dataset(None, split="test", shuffle=False).as_numpy_iterator()]
    assert [row["row"] for row in rows] == [2, 3]
    assert [row["inputs"].tolist() for row in rows] == [[5, 6], [7]] and rows[1]["targets"].tolist() == [3, 4, 5]
    assert task.postprocess_fn("anything", example=rows[0], is_target=True) == 2


def test_a_prompt_that_is_typed_is_read_by_the_names_of_its_tokens(world):
    vocabulary = PromptVocabulary(world.vocabulary)
    tokens = [world.vocabulary.control_id("<history>"), *world.vocabulary.encode_sid(world.table.codes[:2]).ravel()]
    written = world.vocabulary.decode(tokens)
    assert vocabulary.encode(written) == tokens
    assert vocabulary.encode_tf(written).numpy().tolist() == tokens
    words = world.vocabulary.encode("Dance <A99> Music")
    assert vocabulary.encode("Dance <A99> Music") == words, "what is no token's name is text"
    assert vocabulary == SeqioSidVocabulary(world.vocabulary) and hash(vocabulary) == hash(
        SeqioSidVocabulary(world.vocabulary)
    )
