"""A BERT reads queries and says their classes from the mean of its states; it rewrites none."""

import planted_queries
import pytest
import small_bert

from plum_jax.encoders.language_model import LanguageModel
from plum_jax.query_understanding.language_classifier import LanguageClassifier
from plum_jax.query_understanding.rewriter import Rewriter


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    words = [word for words in planted_queries.LEAVES.values() for word in words]
    directory = small_bert.write(tmp_path_factory.mktemp("bert"), (*planted_queries.BRANDS, *words))
    return LanguageModel(pretrained=str(directory), dropout_rate=0.0)


def test_classes_are_read_from_the_mean_of_its_states(bert, tmp_path):
    log, schooling = planted_queries.log(), planted_queries.schooling(150, 0.01)
    fitted = LanguageClassifier(bert, length=8, pooling="mean", schooling=schooling).fit(log, tmp_path)
    shares = fitted.shares([f"corona {word}" for word in ("lamp", "tube", "armchair", "couch")])
    assert [log.class_names[best] for best in shares.argmax(axis=1)] == ["Lamps", "Bulbs", "Chairs", "Sofas"]


def test_its_last_state_and_what_it_writes_are_refused(bert, tmp_path):
    log = planted_queries.log()
    with pytest.raises(ValueError, match="expected pooling 'mean', got 'last'"):
        LanguageClassifier(bert, length=8).fit(log, tmp_path / "classes")
    with pytest.raises(ValueError, match="expected a causal language model, for it is to write"):
        Rewriter(model=bert).fit(log, tmp_path / "rewrites")
