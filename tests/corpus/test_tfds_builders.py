"""The TFDS view of a corpus: every item and every history comes back, without the network."""

import numpy as np
import polars as pl
import pytest

from plum_jax import artifact
from plum_jax.corpus import schema, tfds_builders


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    corpus = schema.Corpus(
        name="small",
        items=pl.DataFrame(
            {"item_id": ["a", "b"], "title": ["Ä", None], "genres": [["x", "y"], None], "length": [1.5, None]}
        ),
        users=pl.DataFrame({"user_id": ["u", "v"], "age": [30, None]}),
        events=pl.DataFrame(
            {
                "user": [0, 0, 1],
                "item": [1, 0, 1],
                "time": [5, 7, 1],
                "rating": [1.0, None, 3.0],
                "device": ["tv", "", None],
            },
            schema_overrides={"user": pl.Int32, "item": pl.Int32, "rating": pl.Float32},
        ),
        text_fields=("title",),
        item_features=("genres", "length"),
        user_features=("age",),
        context_features=("device",),
    )
    directory = tmp_path_factory.mktemp("tfds")
    corpus.save(directory / "corpus", {}, {})
    return directory, corpus


def test_items(saved):
    directory, corpus = saved
    builder = tfds_builders.corpus_builder(directory / "corpus", "items", directory / "data")
    builder.download_and_prepare()
    first, second = builder.as_dataset(split="all").as_numpy_iterator()
    assert (first["item"], first["item_id"], first["title"].decode()) == (0, b"a", "Ä")
    assert list(first["genres"]) == [b"x", b"y"] and first["length"] == 1.5
    assert (second["item"], second["item_id"], second["title"]) == (1, b"b", b"")
    assert list(second["genres"]) == [] and np.isnan(second["length"])
    assert corpus.fingerprint in builder.info.full_name


def test_histories_by_random_access(saved):
    directory, _ = saved
    builder = tfds_builders.corpus_builder(directory / "corpus", "histories", directory / "data", "array_record")
    builder.download_and_prepare()
    second, first = (builder.as_data_source(split="histories")[i] for i in (1, 0))
    assert (first["user"], first["user_id"], first["age"]) == (0, b"u", 30)
    np.testing.assert_array_equal(first["events"]["item"], [1, 0])
    np.testing.assert_array_equal(first["events"]["time"], [5, 7])
    np.testing.assert_array_equal(first["events"]["rating"], np.float32([1, np.nan]))
    assert list(first["events"]["device"]) == [b"tv", b""]
    assert (second["user"], second["age"], list(second["events"]["item"])) == (1, -1, [1])


def test_wrong_requests(saved, tmp_path):
    with pytest.raises(ValueError, match="contents must be 'items' or 'histories', got 'users'"):
        tfds_builders.corpus_builder(saved[0] / "corpus", "users")
    with pytest.raises(artifact.ArtifactError, match="expected a corpus artefact"):
        tfds_builders.corpus_builder(tmp_path, "items")
