"""The table answers what it knows as the teacher does, the student all else, and queries without sense are refused."""

import dataclasses

import numpy as np
import planted_queries
import polars as pl
import pytest

from plum_jax import artifact
from plum_jax.query_understanding.bag import BagClassifier, Student
from plum_jax.query_understanding.classifier import NearestQueries
from plum_jax.query_understanding.judge import Choice
from plum_jax.query_understanding.log import TAIL
from plum_jax.query_understanding.networks import BagConfig
from plum_jax.query_understanding.serving import TABLE_FILE, Serving, open_served
from plum_jax.query_understanding.serving_judge import judged_serving
from plum_jax.query_understanding.similar import ByWords

BAG = BagConfig(width=8, buckets=64, words=2, grams=12, dropout=0.0)
SERVING = Serving(Choice(0.3, most=2), rewrites=1)


class EchoRewriter:
    """Writes the query's kind behind it."""

    def rewrites(self, kind, texts, count):
        return [[f"{text} {kind}"] * count for text in texts]


@pytest.fixture(scope="module")
def log():
    return planted_queries.log(noise=0.1, unlabelled=60)


@pytest.fixture(scope="module")
def teacher(log, tmp_path_factory):
    return NearestQueries(ByWords()).fit(log, tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def student(log, teacher, tmp_path_factory):
    schooling = planted_queries.schooling(400, 0.05)
    return Student(BAG, schooling).learn(log, teacher, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def service(log, teacher, student, tmp_path_factory):
    directory = tmp_path_factory.mktemp("served") / "query_understanding"
    SERVING.write(log, teacher, EchoRewriter(), student, directory)
    return open_served(directory)


def test_the_table_has_head_and_torso_with_what_the_teacher_says(log, teacher, service):
    frequent = [text for text, band in zip(log.texts, log.band, strict=True) if band != TAIL]
    assert {*service.table} == {*frequent}
    for text, shares in zip(frequent, teacher.shares(frequent), strict=True):
        (found,) = service.understand([text])
        given = Choice(0.3, most=2).of(shares[None])[0]
        wanted = sorted(np.flatnonzero(given), key=lambda one: -shares[one])
        assert found.by == "table"
        assert [category for category, _ in found.categories] == [log.taxonomy.ids[log.classes[c]] for c in wanted]
        np.testing.assert_allclose([share for _, share in found.categories], shares[wanted], atol=1e-4)
        assert found.rewrites["broader"] == (f"{text} broader",)


def test_all_else_is_the_student_as_it_was_trained(log, student, service):
    rare = [text for text in log.texts if text not in service.table][:5]
    for text, found in zip(rare, service.understand(rare), strict=True):
        shares = student.shares([text])[0]
        assert found.by == "student" and not found.rewrites
        assert found.categories[0][0] == log.taxonomy.ids[log.classes[shares.argmax()]]
        assert found.categories[0][1] == pytest.approx(float(shares.max()), abs=1e-4)
    frequent = next(iter(service.table))
    both = service.understand([rare[0], f"The {frequent.upper()}"])  # one call over both
    assert [one.by for one in both] == ["student", "table"]


def test_a_student_says_what_its_teacher_says(log, teacher, student, tmp_path):
    texts = [log.texts[query] for query in log.learnt_queries]
    likeness = np.mean(student.shares(texts).argmax(axis=1) == teacher.shares(texts).argmax(axis=1))
    untaught = BagClassifier(BAG, planted_queries.schooling(1)).fit(log, tmp_path)
    assert likeness > 0.9 > np.mean(untaught.shares(texts).argmax(axis=1) == teacher.shares(texts).argmax(axis=1))
    assert student.facts["taught_queries"] == len({*texts, *log.unlabelled})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "at least one word that is no stop word, got ''"),
        ("the of", "at least one word that is no stop word, got 'the of'"),
        ("zither", r"no word of the query 'zither' is known \(zither\): expected one of the"),
    ],
)
def test_a_query_that_says_nothing_is_one_error(service, query, message):
    with pytest.raises(ValueError, match=message):
        service.understand(["acme lamp", query])


def test_shares_and_hits_of_requests_are_counted(log, teacher, service):
    row = judged_serving(log, service, teacher)
    events = np.flatnonzero(log.split.fold == 2)
    texts = [log.texts[log.query[event]] for event in events]
    ids = [log.taxonomy.ids[log.classes[log.class_of_event[event]]] for event in events]
    answers = service.understand(texts)
    assert row["requests"] == len(events)
    assert row["table_share"] == pytest.approx(np.mean([one.by == "table" for one in answers]))
    hits = [one.categories[0][0] == wanted for one, wanted in zip(answers, ids, strict=True)]
    assert row["hit@1"] == pytest.approx(np.mean(hits))
    assert row["table_hit@1"] == row["table_teacher_hit@1"]
    assert row["unknown_share"] == 0 and row["table_ms"] < row["student_ms"]


def test_what_is_written_again_replaces_it_whole_and_what_is_not_there_is_one_error(log, teacher, student, tmp_path):
    directory = tmp_path / "query_understanding"
    with pytest.raises(artifact.ArtifactError, match="expected a query_understanding artefact"):
        open_served(directory)
    SERVING.write(log, teacher, None, student, directory)
    first = artifact.read_manifest(directory, "query_understanding").fingerprint
    assert "synonym" not in pl.read_parquet(directory / TABLE_FILE).columns
    dataclasses.replace(SERVING, choice=Choice(0.9)).write(log, teacher, None, student, directory)
    assert artifact.read_manifest(directory, "query_understanding").fingerprint != first
    assert {path.name for path in tmp_path.iterdir()} == {"query_understanding"}
