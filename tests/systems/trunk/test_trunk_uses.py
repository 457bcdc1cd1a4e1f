"""Three ways to use a trunk: on top of it, by its vectors, extracted; and what later targets it is judged by."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from small_trunk import DATA, TRUNK

from plum_jax import artifact
from plum_jax.corpus.splits import FOLDS
from plum_jax.evaluation.horizons import days_later, events_later
from plum_jax.jobs.trunk import fine_tune, horizons, versions
from plum_jax.ranking.labels import Label
from plum_jax.ranking.networks.perceptron import Perceptron
from plum_jax.systems.trunk import embedding
from plum_jax.systems.trunk.embedding import StoredVectors, histories_until, write_vectors
from plum_jax.systems.trunk.inheriting import Inherited
from plum_jax.systems.trunk.knowledge import TrunkKnowledge
from plum_jax.systems.trunk.on_top import TRUNK as BELOW
from plum_jax.systems.trunk.on_top import TrunkRanker
from plum_jax.systems.trunk.system import initial_trunk
from plum_jax.training.saved_params import load_params

LIKED = Label("rating", 4.0)
TUNING = dataclasses.replace(TRUNK.training, steps=2)
RANKER = TrunkRanker(TRUNK, training=TUNING, batch_size=8, mlp_dims=(8,))


@pytest.fixture(scope="module")
def on_top(run, fitted):
    return RANKER.fit(run, LIKED, "frozen")


def paths_of(params):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def changed(fitted, ranker):
    """Paths of the trunk below that are not as they were; heads of later items and auxiliary targets are gone."""
    below, trained = paths_of(ranker.params[BELOW]), paths_of(fitted.params)
    assert below.keys() < trained.keys()
    return [path for path, leaf in below.items() if not np.array_equal(leaf, trained[path])]


def test_a_frozen_trunk_stays_what_it_is(fitted, on_top):
    assert not changed(fitted, on_top)
    with pytest.raises(ValueError, match="a frozen trunk that was not trained says nothing"):
        TrunkRanker(TRUNK, frozen=True, pretrained=False)


@pytest.mark.slow
def test_another_learns_on(run, fitted):
    assert len(changed(fitted, dataclasses.replace(RANKER, frozen=False).fit(run, LIKED, "learning"))) > 5


def test_a_score_reads_what_is_known_before_the_event_alone(run, fitted, on_top):
    """The user at an event is that of its history and its request, read by itself."""
    rows, offsets = np.array([3, 4, 40]), run.corpus.history_offsets
    user_of = run.corpus.events["user"].to_numpy()
    histories = [np.arange(offsets[user_of[row]], row) for row in rows]
    assert min(map(len, histories)) >= 1
    reader = dataclasses.replace(fitted.reader, history_length=TRUNK.row_length)
    users = reader.users(fitted.params, histories, reader.known.request.buckets[rows])
    items = reader.items(fitted.params)[reader.item[rows]] * 4
    x = np.concatenate([users, items, users * items], axis=1)
    hidden = Perceptron(RANKER.mlp_dims, 0.0).apply({"params": on_top.params["mlp"]}, x, True)
    logit = on_top.params["logit"]
    np.testing.assert_allclose(on_top.scores(rows), hidden @ logit["kernel"][:, 0] + logit["bias"][0], atol=1e-4)


def test_vectors_are_written_in_shards_and_a_killed_job_goes_on(run, fitted, monkeypatch):
    monkeypatch.setattr(embedding, "_ROWS_A_SHARD", 25)
    calls, users = [], fitted.reader.users

    def counted(params, histories, *others):
        calls.append(len(histories))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return users(params, histories, *others)

    broken = dataclasses.replace(fitted, reader=dataclasses.replace(fitted.reader))
    object.__setattr__(broken.reader, "users", counted)
    with pytest.raises(KeyboardInterrupt):
        write_vectors(run, broken, "trunk")
    path = write_vectors(run, broken, "trunk")["users"]
    assert calls == [25, 25, 25, 10]  # the first shard was there
    manifest = artifact.read_manifest(path.parent, "trunk_users")
    assert manifest.inputs["trunk"] == fitted.fingerprint
    table = pq.read_table(str(path))
    assert table["user_id"].to_pylist() == [f"u{n}" for n in range(60)]
    read = StoredVectors.read(path.parent.parent)
    np.testing.assert_allclose(read.version.users, users(fitted.params, histories_until(run.split, None)), atol=1e-6)
    np.testing.assert_allclose(read.version.items, fitted.reader.items(fitted.params), atol=1e-6)


@pytest.mark.parametrize("until", ["validation", "test"])
def test_vectors_until_a_fold_read_nothing_of_it(run, until):
    for user, rows in enumerate(histories_until(run.split, until)):
        start, stop = run.corpus.history_offsets[user : user + 2]
        expected = [row for row in range(start, stop) if run.split.fold[row] < FOLDS[until]]
        assert rows.tolist() == expected


def test_vectors_before_every_event_are_those_of_the_events_before_it_and_its_request(run, fitted):
    knowledge = TrunkKnowledge(dataclasses.replace(TRUNK, training=fitted.system.training), "trunk")
    known = knowledge.read(run)
    offsets, user = run.corpus.history_offsets, run.corpus.events["user"].to_numpy()
    before = [np.arange(offsets[who], row) for row, who in enumerate(user)]
    short = [row for row, history in enumerate(before) if len(history) <= TRUNK.windows.length // 2]
    requests = fitted.reader.known.request.buckets
    users = fitted.reader.users(fitted.params, [before[row] for row in short], requests[short])
    users /= np.maximum(np.linalg.norm(users, axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(known.queries[short, 0], users, atol=2e-3)  # halves of floats
    assert not known.queries[offsets[:-1]].any() and np.abs(known.queries[short[1], 0]).max() > 0.1
    items = fitted.reader.items(fitted.params)
    lengths = np.linalg.norm(items, axis=1, keepdims=True)
    np.testing.assert_allclose(known.items * lengths, items, atol=1e-5)
    assert known.fields_read == ("gap", "rating", "shop") and known.condition_names == ("next",)


def test_two_versions_are_aligned_and_vectors_of_two_trunks_are_not_multiplied(run, fitted, tmp_path, capsys):
    old = write_vectors(run, fitted, "trunk")["users"].parent.parent
    read = StoredVectors.read(old)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0].astype(np.float32)
    turned = dataclasses.replace(read.version, users=read.version.users @ turn, items=read.version.items @ turn)
    new = dataclasses.replace(read, version=turned, trunk="retrained")
    new.write(tmp_path / "new", aligned_to="retrained")
    versions(str(tmp_path / "run"), str(old), str(tmp_path / "new"), k=3)
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  "))
    assert float(printed["unaligned"]) < 0.6
    assert [float(printed[name]) for name in ("orthogonal", "low_rank", "retrained")] == [1, 1, 1]
    aligned = StoredVectors.read(tmp_path / "run" / "aligned")
    assert aligned.trunk == "retrained"
    np.testing.assert_allclose(aligned.version.items, read.version.items, atol=1e-3)
    with pytest.raises(ValueError, match="are of one trunk, .*nothing to align"):
        versions(str(tmp_path), str(old), str(old))
    mixed = tmp_path / "mixed"
    new.write(mixed, aligned_to="retrained")
    dataclasses.replace(read, trunk="other").write(tmp_path / "other", aligned_to="")
    (mixed / "users").rename(tmp_path / "gone")
    (tmp_path / "other" / "users").rename(mixed / "users")
    with pytest.raises(artifact.ArtifactError, match="users are of trunk other, items of trunk retrained"):
        StoredVectors.read(mixed)


def test_an_extracted_trunk_begins_with_the_lowest_layers_and_learns_what_is_liked(run, fitted):
    layers = dataclasses.replace(TRUNK.network.transformer, num_layers=1, layer_windows=())
    network = dataclasses.replace(TRUNK.network, transformer=layers)
    tuned = dataclasses.replace(TRUNK, network=network, training=TUNING, counted=LIKED, inherited=Inherited())
    known = tuned.known(run)
    init, fingerprint = tuned.inherited.initialiser(
        functools.partial(initial_trunk, tuned.network_of(known)), run, known.items.features
    )
    assert fingerprint == artifact.tree_fingerprint(fitted.params)
    begun, old = paths_of(nn.unbox(init.make(jax.random.key(3)))), paths_of(fitted.params)
    same = {path for path, leaf in begun.items() if path in old and np.array_equal(leaf, old[path])}
    assert begun.keys() - same == {"['layer_bias']"} and "['transformer']['layer_0']['attention']['qkv']" in same
    np.testing.assert_array_equal(begun["['layer_bias']"], old["['layer_bias']"][:2])
    batch = next(tuned.feed(run.split, known).make_iterator())
    label = LIKED.of(run.split).label
    rows = run.split.training_events()["event"].to_numpy()
    for place in zip(*np.nonzero(batch["places"]), strict=True):
        event = rows[batch["places"][place]]  # the one behind it
        assert batch["target_weights"][place][0] == float(label[event] == 1)


def test_later_targets_are_those_events(run):
    split, base = run.split, run.split.evaluation("test")
    user, time = (split.corpus.events[name].to_numpy() for name in ("user", "time"))
    for behind in (0, 2):
        later = events_later(split, "test", behind)
        for row, who in enumerate(later.user):
            own = np.flatnonzero((user == who) & (split.fold == FOLDS["test"]))
            assert later.target_event[row] == own[behind]
            assert later.history(row).tolist() == base.history(int(np.flatnonzero(base.user == who)[0])).tolist()
        assert len(later) == sum(np.sum((user == who) & (split.fold == 2)) > behind for who in base.user)
    minutes = days_later(split, "test", 2 / 1440)
    for row, who in enumerate(minutes.user):
        own = np.flatnonzero((user == who) & (split.fold == FOLDS["test"]))
        late = [event for event in own if time[event] >= time[own[0] - 1] + 120]
        assert minutes.target_event[row] == late[0]
    with pytest.raises(ValueError, match="no user of fold 'test' has an event 100 events behind the first"):
        events_later(split, "test", 100)


def test_jobs_write_rows_of_what_they_judge(run, fitted, capsys):
    horizons(str(run.directory), DATA, {"trunk": TRUNK}, behind=(0, 1), days=(), k=5)
    fine_tune(str(run.directory), DATA, {"trunk": TRUNK}, LIKED, k=5)
    rows = {
        row.split('"name": "')[1].split('"')[0]: row
        for row in (run.directory / "results.jsonl").read_text().splitlines()
    }
    assert "recall@5_unseen_1_behind" in rows["trunk_horizons"] and "recall@5" in rows["trunk_liked"]
    assert "0_behind" in capsys.readouterr().out
    assert load_params(run.directory / "systems" / "trunk" / "params").keys() == fitted.params.keys()
