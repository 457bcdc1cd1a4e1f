"""Item features against the libraries and formulas that they come from, and the artefact they leave."""

import dataclasses
import importlib.util
import pathlib
import sys
import types

import numpy as np
import polars as pl
import pytest
from small_corpora import corpus_of, with_held_out_items_hidden, with_leak

from plum_jax import artifact
from plum_jax.corpus import co_watch, features
from plum_jax.corpus.features.block import check_block
from plum_jax.corpus.features.co_watch import scaled_eigenvectors
from plum_jax.corpus.leaks import LeakError
from plum_jax.corpus.splits import LeaveOneOut

TITLES = ["Red nail polish", "Nail lacquer, blue", None, "Shampoo for dry hair", "", "日本 ünïcode 😀"]
TAGS = [["nails", "red"], ["nails"], [], ["hair"], None, ["hair", None, "hair"]]
BRANDS = ["OPI", "OPI", "Essie", None, "", "Dove"]
HISTORIES = [[(0, 1), (1, 2), (0, 3), (1, 4), (2, 5), (3, 6)], [(4, 1), (5, 2), (4, 3), (2, 4), (3, 5)]]


def small_split(**item_columns):
    corpus = corpus_of(HISTORIES, **({"title": TITLES, "tags": TAGS, "brand": BRANDS} | item_columns))
    return LeaveOneOut().split(dataclasses.replace(corpus, text_fields=("title",), item_features=("tags",)))


def wordllama_itself(texts, dim):
    """The library's own embeddings, given its files by hand, since its loader asks the network for them."""
    inference = pytest.importorskip("wordllama.inference")
    import safetensors.numpy
    import tokenizers

    root = pathlib.Path(importlib.util.find_spec("wordllama").origin).parent
    weights = safetensors.numpy.load_file(root / "weights/l2_supercat_256.safetensors")["embedding.weight"]
    tokenizer = tokenizers.Tokenizer.from_file(str(root / "tokenizers/l2_supercat_tokenizer_config.json"))
    return inference.WordLlamaInference(weights[:, :dim], tokenizer).embed(texts, norm=True)


@pytest.mark.parametrize("dim", [64, 256])
def test_text_embedding_equals_wordllama(dim, monkeypatch):
    monkeypatch.setattr("plum_jax.corpus.features.text.TEXTS_PER_BATCH", 4)
    block = features.TextEmbedding(dim=dim).compute(small_split())
    assert block.name == "text" and block.present.tolist() == [bool(title) for title in TITLES]
    assert block.values.dtype == np.float32 and not block.values[~block.present].any()
    np.testing.assert_allclose(
        block.values[block.present], wordllama_itself(list(filter(None, TITLES)), dim), atol=1e-5
    )


def test_text_of_several_fields_is_joined():
    split = small_split(description=["a", None, "c", None, None, None])
    block = features.TextEmbedding(fields=("title", "description", "tags")).compute(split)
    joined = ["Red nail polish a nails red", "Nail lacquer, blue nails", "c", "Shampoo for dry hair hair"]
    np.testing.assert_allclose(block.values[:4], wordllama_itself(joined, 256), atol=1e-5)
    assert block.present.tolist() == [True, True, True, True, False, True]


def test_text_embedding_says_which_fields_there_are():
    with pytest.raises(
        features.FeatureError, match=r"no text field 'titel' \(it is None\); they have .*'title', 'tags'"
    ):
        features.TextEmbedding(fields=("titel",)).compute(small_split())
    with pytest.raises(features.FeatureError, match=r"no text field 'year' \(it is Int64\)"):
        features.TextEmbedding(fields=("year",)).compute(small_split(year=[1] * 6))
    with pytest.raises(features.FeatureError, match="expected dim in 1..256, got 300"):
        features.TextEmbedding(dim=300).compute(small_split())
    bare = LeaveOneOut().split(corpus_of(HISTORIES))
    with pytest.raises(features.FeatureError, match="corpus 'small' has no text fields; set `fields`"):
        features.TextEmbedding().compute(bare)


def test_sentence_transformers_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(features.FeatureError, match="pip install sentence-transformers"):
        features.SentenceTransformerEmbedding("some/model").compute(small_split())


def test_sentence_transformers_gets_the_texts_that_there_are(monkeypatch):
    class Model:
        def __init__(self, name):
            assert name == "some/model"

        def encode(self, texts, **_):
            assert texts == list(filter(None, TITLES))
            return np.array([[3.0 * len(text), 4.0 * len(text)] for text in texts])

    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Model))
    block = features.SentenceTransformerEmbedding("some/model").compute(small_split())
    expected = [[0.6, 0.8] if title else [0, 0] for title in TITLES]
    np.testing.assert_allclose(block.values, expected, atol=1e-7)


def test_categorical_is_multi_hot_of_the_most_frequent():
    split = small_split()
    block = features.Categorical().compute(split)  # hair 2 items, nails 2, red 1
    half = 0.5**0.5
    expected = [[0, half, half], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(block.values, expected, atol=1e-7)
    assert block.present.tolist() == [True, True, False, True, False, True]
    capped = features.Categorical(max_values=2).compute(split)
    np.testing.assert_allclose(capped.values, np.array([[0, 1], [0, 1], [0, 0], [1, 0], [0, 0], [1, 0]]), atol=1e-7)


def test_categorical_keeps_equal_values_of_two_fields_apart():
    block = features.Categorical(fields=("brand", "maker", "year")).compute(
        small_split(maker=["Dove", None, None, None, None, "OPI"], year=[2000, None, None, None, 2000, None])
    )
    assert block.dim == 6  # brand OPI, Essie, Dove; maker OPI, Dove; year 2000
    assert (block.values > 0).sum(axis=1).tolist() == [3, 1, 1, 0, 1, 2]
    with pytest.raises(features.FeatureError, match="items have no 'colour'; they have"):
        features.Categorical(fields=("colour",)).compute(small_split())


def test_co_watch_embedding_is_low_rank_ppmi():
    split = small_split()
    matrix = co_watch.ppmi(co_watch.co_watch_pairs(split, 2), 6).toarray()
    values, vectors = np.linalg.eigh(matrix)
    expected = vectors[:, -2:] * np.sqrt(values[-2:])  # the two positive ones; the third dimension is zero
    reached = np.linalg.norm(expected, axis=1) > 1e-9
    expected[reached] /= np.linalg.norm(expected[reached], axis=1, keepdims=True)
    block = features.CoWatchEmbedding(dim=3, window=2).compute(split)
    np.testing.assert_allclose(block.values @ block.values.T, expected @ expected.T, atol=1e-4)
    assert block.present.tolist() == reached.tolist() == [True, True, False, False, True, True]  # 2, 3: held out only
    assert block.values[0] @ block.values[1] > 0.99 and block.values[4] @ block.values[5] > 0.99


def random_split(num_users=60, num_items=150, length=12):
    generator = np.random.default_rng(1)
    drawn = [[(int(i), t) for t, i in enumerate(generator.integers(0, num_items, length))] for _ in range(num_users)]
    return LeaveOneOut().split(corpus_of(drawn, num_items=num_items))


def test_iterative_vectors_equal_the_dense_ones():
    matrix = co_watch.ppmi(co_watch.co_watch_pairs(random_split(), 3), 150)
    vectors = scaled_eigenvectors(matrix, 8)
    values, expected = np.linalg.eigh(matrix.toarray())
    values, expected = values[:-9:-1], expected[:, :-9:-1]
    np.testing.assert_allclose(np.abs(vectors.T @ (expected * np.sqrt(values))), np.diag(values), atol=1e-6)
    assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(8)] > 0).all()


def test_co_watch_embedding_is_the_same_at_every_call_even_where_eigenvalues_are_equal():
    """Twenty groups of items watched alike: every eigenvalue comes twenty times, and ARPACK must restart."""
    drawn = [[(5 * group + i, i) for i in (0, 1, 2, 3)] + [(100, 8), (101, 9)] for group in range(20)]
    split = LeaveOneOut().split(corpus_of(drawn, num_items=102))
    first, second = (features.CoWatchEmbedding(dim=8, window=3).compute(split) for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    lengths = np.linalg.norm(first.values, axis=1)
    np.testing.assert_allclose(lengths[first.present], 1, atol=1e-4)
    assert not first.values[~first.present].any()


def test_co_watch_embedding_drops_items_that_no_kept_vector_reaches():
    """Two groups that nobody connects, and one dimension: one group has rounding errors only, not a direction."""
    generator = np.random.default_rng(0)
    groups = [generator.integers(*bounds, (40, 8)) for bounds in ((0, 12), (12, 40))]
    drawn = [[(int(i), t) for t, i in enumerate([*row, 40, 41])] for group in groups for row in group]
    block = features.CoWatchEmbedding(dim=1).compute(LeaveOneOut().split(corpus_of(drawn, num_items=42)))
    reached = np.flatnonzero(block.present)
    assert len(reached) > 5 and (reached.max() < 12 or reached.min() >= 12)


def test_co_watch_embedding_without_associations_is_refused():
    lonely = LeaveOneOut().split(corpus_of([[(0, 1), (1, 2), (2, 3)]]))
    with pytest.raises(features.FeatureError, match="no two items are watched within 5 positions of each other"):
        features.CoWatchEmbedding().compute(lonely)


def test_co_watch_embedding_sees_no_held_out_event(tmp_path):
    split = small_split()
    builder = features.CoWatchEmbedding(dim=3)
    hidden = builder.compute(with_held_out_items_hidden(split))
    np.testing.assert_array_equal(builder.compute(split).values, hidden.values[:6])
    with pytest.raises(LeakError, match="co-watch pairs was given .* user 'u1', item 'i3'"):
        features.build_features(with_leak(split, 10), [builder], tmp_path / "features")
    assert not (tmp_path / "features").exists()


IDS, VECTORS = ["i4", "i0", "elsewhere", "i5"], np.arange(8, dtype=np.float64).reshape(4, 2) + 1


def written(directory, kind, ids=IDS, values=VECTORS):
    path = directory / f"vectors.{kind}"
    if kind == "npz":
        np.savez(path, item_id=np.array(ids), values=values)
    else:
        pl.DataFrame({"item_id": ids, "values": values}, strict=False).write_parquet(path)
    return str(path)


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_file_embedding_puts_vectors_at_their_items(kind, tmp_path):
    values = VECTORS if kind == "npz" else VECTORS.tolist()
    for stored in (
        [values] if kind == "npz" else [values, VECTORS.astype(np.float32)]
    ):  # lists, and arrays of fixed width
        block = features.FileEmbedding(written(tmp_path, kind, values=stored), "mine").compute(small_split())
        expected = np.zeros((6, 2), np.float32)
        expected[[4, 0, 5]] = VECTORS[[0, 1, 3]]
        np.testing.assert_array_equal(block.values, expected)
        assert block.present.tolist() == [True, False, False, False, True, True]


def test_file_embedding_reads_integer_ids(tmp_path):
    split = small_split()
    items = split.corpus.items.with_columns(item_id=pl.Series([str(i) for i in range(6)]))
    split = dataclasses.replace(split, corpus=dataclasses.replace(split.corpus, items=items))
    for kind in ("npz", "parquet"):
        path = written(tmp_path, kind, ids=[3, 1, 7, 0], values=VECTORS if kind == "npz" else VECTORS.tolist())
        assert features.FileEmbedding(path, "mine").compute(split).values[3].tolist() == [1, 2]


@pytest.mark.parametrize("kind", ["npz", "parquet"])
@pytest.mark.parametrize(
    "changes, options, message",
    [
        ({"ids": ["i1", "i2", "i1", "i3"]}, {}, r"block 'mine': item 'i1' is there twice \(row 3\)"),
        ({"values": [[1, 2], [3, np.nan], [5, 6], [7, 8]]}, {}, r"item 'i0' has NaN or infinity \(row 2\)"),
        ({"values": [[1, 2], [3, 4], [5, np.inf], [7, 8]]}, {}, "item 'elsewhere' has NaN or infinity"),
        (
            {"ids": ["x", "y", "z", "w"]},
            {},
            r"none of its ids \(such as \['x', 'y', 'z'\]\) is an item of corpus 'small'",
        ),
        ({}, {"dim": 3}, "expected vectors of 3 numbers, got 4 rows of 2"),
        ({}, {"value_column": "vector"}, r"no 'vector'; it has \['item_id', 'values'\]"),
    ],
)
def test_file_embedding_names_file_and_item(kind, changes, options, message, tmp_path):
    values = changes.get("values", VECTORS.tolist())
    path = written(tmp_path, kind, changes.get("ids", IDS), np.array(values) if kind == "npz" else values)
    with pytest.raises(features.FeatureError, match=message) as caught:
        features.FileEmbedding(path, "mine", **options).compute(small_split())
    assert path in str(caught.value)


def test_file_embedding_refuses_other_files(tmp_path):
    def error(path):
        with pytest.raises(features.FeatureError) as caught:
            features.FileEmbedding(str(path), "mine").compute(small_split())
        return str(caught.value)

    assert "there is no file" in error(tmp_path / "nowhere.npz")
    (tmp_path / "vectors.csv").write_text("")
    assert "expected a .npz or .parquet file" in error(tmp_path / "vectors.csv")
    (tmp_path / "broken.npz").write_text("PK no")
    assert "cannot be read" in error(tmp_path / "broken.npz")
    np.savez(tmp_path / "objects.npz", item_id=np.array(IDS, dtype=object), values=VECTORS)
    assert "ids as strings (dtype U) or integers" in error(tmp_path / "objects.npz")
    np.savez(tmp_path / "shapes.npz", item_id=np.array(IDS), values=VECTORS[:3])
    assert "expected 'item_id' [rows] and 'values' [rows, D]" in error(tmp_path / "shapes.npz")
    ragged = written(tmp_path, "parquet", values=[[1.0, 2.0], [3.0], [5.0, 6.0], [7.0, 8.0]])
    assert "item 'i4' (row 1) has 2 numbers and item 'i0' (row 2) has 1" in error(ragged)
    text = written(tmp_path, "parquet", values=["1 2", "3 4", "5 6", "7 8"])
    assert "expected lists of numbers in 'values', got String" in error(text)


def block_of(values, present=None, name="made") -> features.FeatureBlock:
    values = np.asarray(values, np.float32)
    return features.FeatureBlock(name, values, np.ones(len(values), bool) if present is None else np.asarray(present))


@pytest.mark.parametrize(
    "block, message",
    [
        (block_of([[1, 0]] * 5), "block 'made' has 5 rows, corpus 'small' has 6 items"),
        (block_of([[0], [1], [np.nan], [2], [np.inf], [3]]), "item 'i2' has NaN or infinity, and so have 1 more items"),
        (
            block_of([[0], [1], [2], [3], [4], [5]], [True] * 3 + [False] * 3),
            "item 'i3' has values though it is marked",
        ),
        (block_of([[0]] * 6, [False] * 6), "block 'made' is empty: none of the 6 items has it"),
        (block_of([[1, 2]] * 5 + [[0, 0]], [True] * 5 + [False]), "constant: all 5 items that have it have the same"),
    ],
)
def test_blocks_that_cannot_be_used_are_refused(block, message):
    with pytest.raises(features.FeatureError, match=message):
        check_block(block, small_split().corpus)


def test_blocks_of_wrong_shape_are_refused():
    with pytest.raises(
        features.FeatureError, match=r"expected values float32 \[N, D\] with D > 0, got float64 \[2, 2\]"
    ):
        features.FeatureBlock("made", np.zeros((2, 2)), np.ones(2, bool))
    with pytest.raises(features.FeatureError, match=r"expected present bool \[2\], got float32 \[2\]"):
        features.FeatureBlock("made", np.zeros((2, 2), np.float32), np.ones(2, np.float32))
    with pytest.raises(features.FeatureError, match="it names a folder"):
        block_of([[1], [2]], name="../made")
    with pytest.raises(features.FeatureError, match=r"each of its own name, got \['made', 'made'\]"):
        features.ItemFeatures((block_of([[1], [2]]), block_of([[1], [2]])))
    with pytest.raises(features.FeatureError, match=r"all over the same items, got rows \{'made': 2, 'other': 3\}"):
        features.ItemFeatures((block_of([[1], [2]]), block_of([[1], [2], [3]], name="other")))


@dataclasses.dataclass(frozen=True)
class Counted:
    """A builder of a user's own, which tells how often it was asked."""

    name: str
    scale: float = 1.0
    calls = []

    def compute(self, split):
        Counted.calls.append(self.name)
        return block_of(np.arange(split.corpus.num_items)[:, None] * self.scale, name=self.name)


def test_build_features_makes_each_block_once(tmp_path):
    split, directory = small_split(), tmp_path / "features"
    path = written(tmp_path, "npz")
    builders = [Counted("one"), Counted("two"), features.FileEmbedding(path, "mine")]
    Counted.calls.clear()
    built = features.build_features(split, builders, directory)
    assert [block.name for block in built.blocks] == ["one", "two", "mine"] and built.num_items == 6
    again = features.build_features(split, builders, directory)
    loaded = features.ItemFeatures.load(directory)
    assert Counted.calls == ["one", "two"]
    assert built.fingerprint == again.fingerprint == loaded.fingerprint
    np.testing.assert_array_equal(loaded.block("mine").values, built.block("mine").values)
    np.testing.assert_array_equal(loaded.block("mine").present, built.block("mine").present)
    assert artifact.read_manifest(directory, "item_features").inputs["split"] == split.fingerprint
    with pytest.raises(features.FeatureError, match=r"no feature block 'three'; there are \['one', 'two', 'mine'\]"):
        loaded.block("three")
    # another setting of one builder, another file, another split: that which depends on it is made again
    features.build_features(split, [Counted("one", 2.0), *builders[1:]], directory)
    assert Counted.calls == ["one", "two", "one"]
    written(tmp_path, "npz", values=VECTORS * 2)
    changed = features.build_features(split, builders, directory)
    assert changed.block("mine").values[0].tolist() == [6, 8] and changed.fingerprint != built.fingerprint
    features.build_features(LeaveOneOut().split(corpus_of(HISTORIES[:1])), builders[:1], directory)
    assert Counted.calls == ["one", "two", "one", "one", "one"]


def test_a_killed_build_goes_on_with_the_block_it_died_in(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Dying(Counted):
        def compute(self, split):
            raise KeyboardInterrupt

    split, directory = small_split(), tmp_path / "features"
    Counted.calls.clear()
    features.build_features(split, [Counted("old")], directory)
    with pytest.raises(KeyboardInterrupt):
        features.build_features(split, [Counted("one"), Dying("two")], directory)
    with pytest.raises(artifact.ArtifactError, match="run the stage that makes it"):
        features.ItemFeatures.load(directory)
    features.build_features(split, [Counted("one"), Counted("two")], directory)
    assert Counted.calls == ["old", "one", "two"]


def test_nothing_is_saved_of_a_block_that_is_refused(tmp_path):
    with pytest.raises(features.FeatureError, match="block 'one' is constant"):
        features.build_features(small_split(), [Counted("one", 0.0)], tmp_path / "features")
    assert not (tmp_path / "features" / "one").exists()
    with pytest.raises(features.FeatureError, match="at least one feature block"):
        features.build_features(small_split(), [], tmp_path / "features")


def test_changed_files_are_noticed(tmp_path):
    saved = features.ItemFeatures((block_of([[1], [2]]), block_of([[3], [4]], name="other")))
    saved.save(tmp_path / "features", {"by": "hand"}, {"corpus": "x"})
    assert features.ItemFeatures.load(tmp_path / "features").fingerprint == saved.fingerprint
    np.save(tmp_path / "features" / "other" / "values.npy", np.array([[3], [5]], np.float32))
    with pytest.raises(artifact.ArtifactError, match="its files were changed"):
        features.ItemFeatures.load(tmp_path / "features")


def test_without_text_the_text_block_is_left_out_and_that_is_said(tmp_path, capsys):
    bare = LeaveOneOut().split(corpus_of(HISTORIES))
    builders = [features.TextEmbedding(), features.SentenceTransformerEmbedding("any"), features.CoWatchEmbedding()]
    built = features.build_features(bare, builders, tmp_path / "features")
    assert [block.name for block in built.blocks] == ["co_watch"]
    assert capsys.readouterr().out == (
        "small: no text fields, so no block 'text'; items are described by 'co_watch'\n"
        "small: no text fields, so no block 'sentence'; items are described by 'co_watch'\n"
    )
    alone = features.build_features(bare, builders[2:], tmp_path / "alone")
    assert alone.fingerprint == built.fingerprint
    with pytest.raises(
        features.FeatureError, match="has no text fields, and the blocks .'text'. are made of nothing else"
    ):
        features.build_features(bare, builders[:1], tmp_path / "none")
    with pytest.raises(features.FeatureError, match="items have no text field 'title'"):
        features.build_features(bare, [features.TextEmbedding(("title",)), *builders[2:]], tmp_path / "named")
