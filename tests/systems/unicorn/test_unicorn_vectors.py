"""Vectors of users: which row an event may know, and tables that cannot be read."""

import dataclasses

import numpy as np
import planted_shop
import polars as pl
import pytest

from plum_jax import artifact
from plum_jax.corpus.features import CoWatchEmbedding
from plum_jax.corpus.features.categorical import Categorical
from plum_jax.corpus.features.fields_read import fields_read
from plum_jax.corpus.features.text import TextEmbedding
from plum_jax.corpus.schema import CorpusError
from plum_jax.ranking.knowledge import KnowledgeTables
from plum_jax.systems.unicorn.inputs import Users
from plum_jax.systems.unicorn.vectors import UNKNOWN, KnowledgeVectors, UserVectors, VectorFile, write_vectors


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return planted_shop.stages(tmp_path_factory.mktemp("vectors"))


def written(path, rows, columns=("user_id", "events", "vector")):
    pl.DataFrame(rows, schema=list(columns), orient="row").write_parquet(path)
    return VectorFile(str(path))


def test_an_event_reads_the_newest_row_that_knows_only_what_came_before(stages, tmp_path, capsys):
    random, corpus = np.random.default_rng(1), stages.corpus
    rows = []
    for user in range(0, planted_shop.USERS, 3):
        for events in random.permutation(planted_shop.EVENTS + 2)[:3]:
            rows.append((f"u{user}", int(events), [float(user), float(events)]))
    rows = [rows[place] for place in random.permutation(len(rows))] + [("stranger", 0, [0.0, 0.0])]
    found = written(tmp_path / "v.parquet", rows).read(stages)
    of = {}
    for user, events, _ in rows:
        of.setdefault(user, []).append(events)
    for event, user in enumerate(corpus.events["user"]):
        before = event - int(corpus.history_offsets[user])
        known = [events for events in of.get(f"u{user}", []) if events <= before]
        row = found.of_event[event]
        if not known:
            assert row == UNKNOWN
        else:
            assert found.vectors[row].tolist() == [user, max(known)]
    for user, row in enumerate(found.of_user):
        there = of.get(f"u{user}")
        assert (row == UNKNOWN) if there is None else found.vectors[row].tolist() == [user, max(there)]
    said = capsys.readouterr().out
    assert "vectors of 40 of 120 users of planted shop, 1 rows of others" in said and "taken as known" not in said


def test_a_table_without_events_is_known_before_all_and_says_so(stages, tmp_path, capsys):
    file = written(tmp_path / "v.parquet", [("u1", [1.0]), ("u0", [0.5])], ("user_id", "vector"))
    found = file.read(stages)
    assert "no column 'events': taken as known before every event" in capsys.readouterr().out
    assert (
        found.vectors[found.of_event[0]].tolist() == [0.5] and (found.of_event[2 * planted_shop.EVENTS :] == -1).all()
    )


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [("x", [1.0])],
            ("user_id", "vector"),
            "none of its 1 users .such as 'x'. is a user of corpus 'planted shop'.*it is a table of other users",
        ),
        ([("u0", 2, [1.0]), ("u0", 2, [2.0])], ("user_id", "events", "vector"), "user 'u0' has 2 events in two rows"),
        ([("u0", [1.0]), ("u1", [1.0, 2.0])], ("user_id", "vector"), "row 2.*'u1' has a vector of another length than"),
        ([("u0", [1.0]), ("u1", [float("nan")])], ("user_id", "vector"), "row 2.*missing or not finite"),
        ([("u0", -1, [1.0])], ("user_id", "events", "vector"), "row 1.*'u0' has a number of events that is missing or"),
        ([("u0", 1.0)], ("user_id", "vector"), "expected lists of numbers, got Float64"),
        ([("u0", [1.0])], ("user", "vector"), "expected columns 'user_id', 'vector' and, best, 'events', got"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_error(stages, tmp_path, rows, columns, message):
    with pytest.raises(CorpusError, match=message):
        written(tmp_path / "v.parquet", rows, columns).read(stages)


def test_a_missing_table_and_item_vectors_of_another_width(stages, tmp_path):
    with pytest.raises(CorpusError, match="there is no such file: expected a Parquet table of user vectors"):
        VectorFile(str(tmp_path / "none.parquet")).read(stages)
    file = written(tmp_path / "v.parquet", [("u0", [1.0, 2.0, 3.0])], ("user_id", "vector"))
    rows = [(f"i{item}", [1.0, float(item)]) for item in range(planted_shop.ITEMS)]
    pl.DataFrame(rows, schema=["item_id", "vector"], orient="row").write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ValueError, match="one or more of the width of those of items, 2, got 3"):
        dataclasses.replace(file, items_path=str(tmp_path / "items.parquet")).read(stages)


def test_answers_of_a_user_model_are_vectors_before_each_event(stages, tmp_path):
    corpus = stages.corpus

    @dataclasses.dataclass(frozen=True)
    class Known:
        def read(self, stages):
            queries = np.arange(corpus.num_events * 4, dtype=np.float16).reshape(-1, 2, 2)
            return KnowledgeTables(queries, np.ones((corpus.num_items, 2), np.float32), "known", ("a", "b"))

    found = KnowledgeVectors(Known()).read(stages)
    write_vectors(stages, Known(), tmp_path / "vectors")
    write_vectors(stages, Known(), tmp_path / "vectors")
    paths = (str(tmp_path / "vectors" / f"{name}.parquet") for name in ("users", "items"))
    again = VectorFile(*paths).read(stages)
    np.testing.assert_array_equal(again.vectors[again.of_event], found.vectors[found.of_event])
    np.testing.assert_array_equal(again.vectors[again.of_user], found.vectors[found.of_user])
    np.testing.assert_array_equal(again.items, found.items)
    assert found.vectors.shape == (corpus.num_events, 4) and found.of_event.tolist() == list(range(corpus.num_events))
    assert found.of_user[1] == 2 * planted_shop.EVENTS - 1 and found.items.shape == (corpus.num_items, 2)


def test_clusters_are_of_vectors_that_training_read_and_nobody_has_one_of_his_own(stages):
    found = planted_shop.Tastes().read(stages)
    users = Users.of("cluster", found, stages.split, 4)
    of_events = users.cluster[users.of_event]
    colour = stages.corpus.events["user"].to_numpy() % 4
    assert len(set(zip(of_events.tolist(), colour.tolist(), strict=True))) == 4 and users.cluster[0] == 0
    assert users.vectors is None and users.clusters == 5
    with pytest.raises(ValueError, match="at least 500 vectors that training events read, one a cluster, got 120"):
        Users.of("cluster", found, stages.split, 500)
    with pytest.raises(ValueError, match="personalisation 'full' reads vectors of users: set UNICORN_VECTORS"):
        Users.of("full", None, stages.split, 4)
    unknown = UserVectors(found.vectors, np.full_like(found.of_event, UNKNOWN), found.of_user)
    full = Users.of("full", unknown, stages.split, 4)
    assert (full.of_event == 0).all() and not full.vectors[0].any()


def test_a_user_model_that_has_read_what_queries_are_made_of_is_refused(stages, tmp_path):
    """Of a model in memory and of its tables on disk; one that has read another text is welcome."""
    corpus = stages.corpus

    @dataclasses.dataclass(frozen=True)
    class Known:
        read_too: tuple[str, ...]

        def read(self, stages):
            queries = np.ones((corpus.num_events, 1, 2), np.float16)
            items = np.ones((corpus.num_items, 2), np.float32)
            return KnowledgeTables(queries, items, artifact.fingerprint(self.read_too), ("next",), self.read_too)

    def sources(read_too):
        directory = tmp_path / "-".join(read_too)
        write_vectors(stages, Known(read_too), directory)
        paths = (str(directory / f"{name}.parquet") for name in ("users", "items"))
        return KnowledgeVectors(Known(read_too)), VectorFile(*paths)

    for source in sources(("path", "title")):
        with pytest.raises(ValueError, match=r"queries are made of 'path'.* has read \(it has read path, title\)"):
            planted_shop.unicorn(personalisation="full", vectors=source).data(stages)
    for source in sources(("title",)):
        assert planted_shop.unicorn(personalisation="full", vectors=source).data(stages).inputs.users.width == 2


def test_blocks_say_which_columns_they_were_made_of(stages):
    builders = (TextEmbedding(), CoWatchEmbedding(), TextEmbedding(("title",), name="titles"))
    assert fields_read(builders, stages.corpus) == ("path", "title")
    assert fields_read(builders[1:], stages.corpus) == ("title",)
    assert fields_read((Categorical(("path",)),), stages.corpus) == ("path",)
