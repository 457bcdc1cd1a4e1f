"""Rankers of whole histories: what a logit may know, windows, and that they learn what is planted."""

import dataclasses

import jax
import numpy as np
import polars as pl
import pytest
from planted_taste import LABEL, TRAINING, stages

from plum_jax.evaluation.metrics.classification import classification_metrics
from plum_jax.model.config import DecoderConfig
from plum_jax.ranking.networks.sequence import HstuConfig, SasRecConfig
from plum_jax.ranking.sequence_ranker import Reader, SequenceRanker
from plum_jax.stages import Stages
from plum_jax.training.optimizer import AdamW
from plum_jax.training.schedules import WarmupLinear

SIZES = DecoderConfig(num_layers=2, d_model=16, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=32, scan_layers=False)
TRAINED = dataclasses.replace(
    TRAINING, steps=150, optimizer=AdamW(schedule=WarmupLinear(peak=5e-3, warmup_steps=5), weight_decay=0.0)
)
NETWORKS = {"hstu": HstuConfig(SIZES, 4, (16,)), "sasrec": SasRecConfig(SIZES)}


def ranker(network, **changed):
    sizes = {"training": TRAINED, "history_length": 32, "row_length": 64, "batch_size": 8}
    return SequenceRanker(NETWORKS[network], **{**sizes, **changed})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return stages(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def fitted(run):
    return {name: ranker(name).fit(run, LABEL, name) for name in NETWORKS}


def test_it_learns_what_is_planted(run, fitted):
    """Taste of the last two events: well above chance, whether a candidate is read among them or behind them."""
    events, user = LABEL.of(run.split), run.corpus.events["user"].to_numpy()
    rows = events.rows["test"]
    for name, least in (("hstu", 0.65), ("sasrec", 0.65)):
        figures = classification_metrics(events.label[rows], fitted[name].scores(rows), user[rows])
        assert figures["auc"] > least, (name, figures["auc"])
        assert fitted[name].facts["parameters"] > fitted[name].facts["non_embedding_parameters"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_logit_knows_what_came_before_and_nothing_of_its_own_label(run, fitted, name):
    """Another rating of one event: the logits of later events of its user change, its own and all others stay."""
    events = run.corpus.events
    changed = int(run.corpus.history_offsets[3]) + 6
    rating = pl.when(pl.int_range(events.height) == changed).then(6.0 - pl.col("rating")).otherwise(pl.col("rating"))
    corpus = dataclasses.replace(run.corpus, events=events.with_columns(rating.cast(pl.Float32).alias("rating")))
    split = dataclasses.replace(run.split, corpus=corpus)
    reader = fitted[name].reader
    columns = ranker(name).columns(split, LABEL)
    other = Reader(reader.network, columns, reader.history_length)
    rows = np.arange(events.height)
    before, after = (read.scores(fitted[name].params, rows) for read in (reader, other))
    end = int(run.corpus.history_offsets[4])
    moved = np.abs(before - after) > 1e-6
    assert moved[changed + 1 : end].any() and not moved[: changed + 1].any() and not moved[end:].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_scores_in_windows_are_those_of_each_history_read_alone(run, fitted, name):
    """Histories that fit a window: every event is scored after all events before it."""
    reader, params = fitted[name].reader, fitted[name].params
    offsets = run.corpus.history_offsets
    found = reader.scores(params, np.arange(offsets[-1]))
    for user in (0, 7, 31):
        events = np.arange(offsets[user], offsets[user + 1])[None]
        assert events.shape[1] <= 32
        batch = {"decoder_segment_ids": np.ones(events.shape, np.int32)}
        batch["decoder_positions"] = np.arange(events.shape[1], dtype=np.int32)[None]
        batch |= {name: values[events] for name, values in reader.columns.by_event.items()}
        alone = reader.network.apply({"params": params}, batch).logits
        np.testing.assert_allclose(found[events], alone, atol=2e-5)


def test_training_reads_training_events_and_weighs_those_with_a_label(run):
    columns = ranker("hstu").columns(run.split, LABEL)
    rows = ranker("hstu").feed(columns, LABEL.of(run.split)).rows.arrays
    real = rows["decoder_segment_ids"] > 0
    assert sorted(rows["events"][real]) == np.flatnonzero(run.split.fold == 0).tolist()
    labelled = ~np.isnan(LABEL.of(run.split).label[rows["events"]])
    assert (rows["label_weights"] == (real & labelled)).all() and (rows["label_weights"] == 0).any()


@pytest.mark.slow
def test_the_same_run_twice_is_the_same(run, fitted, tmp_path):
    again = ranker("hstu").fit(Stages(run.data, type(run.directory)(tmp_path)), LABEL, "again")
    jax.tree.map(np.testing.assert_array_equal, again.params, fitted["hstu"].params)
