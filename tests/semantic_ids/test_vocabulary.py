"""SidVocabulary: a bijection between tokens and ids, in which no text can ever read as a SID."""

import dataclasses
import math
import pickle

import hypothesis
import numpy as np
import pytest
import sentencepiece
from hypothesis import strategies as st

from plum_jax import artifact
from plum_jax.semantic_ids.field_tokens import Buckets, Categories, Hashed, field_from_json
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.text.sentence_piece import SentencePieceText, train_sentencepiece
from plum_jax.text.special_ids import VocabularyError
from tests.made_vocabulary import vocabulary_of

settings = hypothesis.settings(max_examples=60, deadline=None)
TEXTS = [f"Toy Story {i}: the adventure of <A12> and friends" for i in range(60)] + ["Amélie — le film", "七人の侍"]
FIELDS = (Buckets("rating", (2.0, 4.0)), Categories("gender", ("M", "F")))
SIZES = (16, 8, 4)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("sentencepiece") / "text.model"
    train_sentencepiece(TEXTS, 400, path)
    return path


@pytest.fixture(scope="module")
def vocabulary(model_path) -> SidVocabulary:
    return vocabulary_of(model_path, SIZES, field_tokens=FIELDS)


def test_ids_and_names_are_a_bijection(vocabulary):
    names = [vocabulary.token_name(i) for i in range(vocabulary.num_pieces, vocabulary.vocab_size)]
    assert len(set(names)) == len(names)
    assert names[-sum(SIZES) :] == [f"<{letter}{c}>" for letter, n in zip("ABC", SIZES, strict=True) for c in range(n)]
    controls = [vocabulary.control_id(token) for token in vocabulary.control_tokens]
    fields = [vocabulary.encode_field("rating", v) for v in (1, 2, 3, 4, None)]
    fields += [vocabulary.encode_field("gender", v) for v in ("M", "F", "X", None)]
    every_sid = [vocabulary.sid_offsets[level] + np.arange(size) for level, size in enumerate(SIZES)]
    ids = sorted({*range(vocabulary.num_pieces), *controls, *fields, *np.concatenate(every_sid).tolist()})
    assert ids == list(range(vocabulary.vocab_size))


@settings
@hypothesis.given(
    st.text() | st.sampled_from(["<A12>", "a<A1><B2>", "<history>", "<rating:2>", "</s>", "<pad>", "<0x00>"])
)
def test_text_never_gives_an_id_of_another_kind(vocabulary, text):
    ids = vocabulary.encode(text)
    assert all(2 < i < vocabulary.num_pieces for i in ids)  # bytes stand in for unknown characters: never UNK
    assert not vocabulary.is_sid(ids).any()


@settings
@hypothesis.given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",))))
def test_text_survives_encode_and_decode(vocabulary, text):
    normalised = sentencepiece.SentencePieceProcessor(model_proto=vocabulary.text.model).normalize(text)
    assert vocabulary.decode(vocabulary.encode(text)) == normalised.replace("▁", " ").lstrip(" ")


@settings
@hypothesis.given(st.lists(st.tuples(*(st.integers(0, size - 1) for size in SIZES)), min_size=1))
def test_sids_survive_encode_and_decode(vocabulary, codes):
    ids = vocabulary.encode_sid(codes)
    assert ids.dtype == np.int32
    assert vocabulary.is_sid(ids).all()
    np.testing.assert_array_equal(vocabulary.decode_sid(ids), codes)
    assert vocabulary.decode(ids.ravel()) == "".join(f"<A{a}><B{b}><C{c}>" for a, b, c in codes)


def test_decode_shows_text_and_tokens_and_hides_padding(vocabulary):
    ids = [
        vocabulary.control_id("<history>"),
        *vocabulary.encode("The adventure of <A12>"),
        *vocabulary.encode_sid([12, 3, 1]),
        vocabulary.encode_field("rating", 5),
        *vocabulary.encode("friends"),
        vocabulary.eos_id,
        vocabulary.pad_id,
    ]
    assert vocabulary.decode(ids) == "<history> The adventure of <A12> <A12><B3><C1><rating:2> friends"


@settings
@hypothesis.given(st.floats(allow_nan=False), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6, unique=True))
def test_buckets_are_half_open_ranges(value, edges):
    edges = sorted(edges)
    bucket = Buckets("x", tuple(edges)).place(value)
    limits = [-math.inf, *edges, math.inf]
    assert bucket == sum(value >= edge for edge in edges)
    assert limits[bucket] <= value <= limits[bucket + 1]


def test_names_of_many_are_hashed_evenly_and_always_the_same():
    users = Hashed("user_id", 10)
    places = [users.place(f"A{number}") for number in range(3000)]
    counts = np.bincount(places, minlength=10)
    assert counts.shape == (10,) and counts.min() > 250
    assert [users.place(value) for value in ("A0", 0, "0", None)] == [places[0], users.place("0"), users.place(0), 10]
    assert places[:4] == [1, 4, 6, 8], "another process, machine or release finds the same"
    assert field_from_json({"type": "Hashed", **dataclasses.asdict(users)}) == users


def test_missing_and_unknown_values_have_tokens_of_their_own(vocabulary):
    name = lambda field, value: vocabulary.token_name(vocabulary.encode_field(field, value))  # noqa: E731
    assert name("rating", None) == name("rating", float("nan")) == name("rating", np.float32("nan")) == "<rating:none>"
    assert name("rating", 2) == "<rating:1>"
    assert name("gender", "F") == "<gender:F>"
    assert name("gender", "?") == "<gender:other>"
    assert name("gender", None) == "<gender:none>"
    assert vocabulary.has_field("rating") and not vocabulary.has_field("title")


def test_special_ids_of_a_trained_model(vocabulary):
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.start_id) == (0, 1, 2, 0)


@pytest.mark.parametrize(
    ("file", "pad", "eos", "unk", "start", "size"),
    [
        ("t5_spiece.model", 0, 1, 2, 0, 32_000),
        ("llama2_tokenizer.model", 32_004, 2, 0, 1, 32_000),
        ("botchan_en_unigram_1000.model", 1_004, 2, 0, 1, 1_000),
    ],
)
def test_models_of_others_work(shared_data, file, pad, eos, unk, start, size):
    vocabulary = vocabulary_of(shared_data / "weights" / file, SIZES, field_tokens=FIELDS)
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.start_id) == (pad, eos, unk, start)
    assert vocabulary.num_pieces == size
    text = "the book of the old man"
    ids = [*vocabulary.encode(text), *vocabulary.encode_sid([15, 7, 3])]
    assert max(vocabulary.encode("<A12> <pad> </s> <s>")) < size
    assert vocabulary.decode([*ids, vocabulary.eos_id, vocabulary.pad_id]) == f"{text} <A15><B7><C3>"


def test_save_and_load_give_the_same_ids(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary")
    loaded = SidVocabulary.load(tmp_path / "vocabulary")
    copied = pickle.loads(pickle.dumps(vocabulary))
    for other in (loaded, copied):
        assert other.fingerprint == vocabulary.fingerprint
        assert other.encode("Toy Story") == vocabulary.encode("Toy Story")
        assert other.encode_field("gender", "F") == vocabulary.encode_field("gender", "F")
    with pytest.raises(artifact.ArtifactError, match="no manifest.json"):
        SidVocabulary.load(tmp_path / "other")


def test_changed_files_are_refused(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "vocabulary")
    tokens = tmp_path / "vocabulary" / "tokens.json"
    tokens.write_text(tokens.read_text().replace("<history>", "<past>"))
    with pytest.raises(artifact.ArtifactError, match="the files were changed"):
        SidVocabulary.load(tmp_path / "vocabulary")


def test_fingerprint_depends_on_what_decides_an_id(vocabulary, model_path):
    make = vocabulary_of
    others = [
        make(model_path, (16, 8, 5), field_tokens=FIELDS),
        make(model_path, SIZES),
        make(model_path, SIZES, ("<x>",), FIELDS),
        make(model_path, SIZES, field_tokens=(Buckets("rating", (2.0, 4.5)), FIELDS[1])),
    ]
    assert len({vocabulary.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_training_is_deterministic(model_path, tmp_path):
    train_sentencepiece(iter(TEXTS), 400, tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == model_path.read_bytes()


def test_long_texts_are_not_left_out(tmp_path):
    train_sentencepiece([*TEXTS, "zebra " * 2000], 600, tmp_path / "long.model")
    vocabulary = vocabulary_of(tmp_path / "long.model", SIZES)
    assert [vocabulary.token_name(i) for i in vocabulary.encode("zebra")] == ["▁zebra"]


def test_errors_say_what_to_do(vocabulary, model_path, tmp_path):
    def fails(message, function, *args, **kwargs):
        with pytest.raises(VocabularyError, match=message):
            function(*args, **kwargs)

    fails("no such file", vocabulary_of, tmp_path / "none.model", SIZES)
    fails("expected a serialised SentencePiece model", SentencePieceText, b"nonsense")
    fails("no control token '<x>'; there are <history>, <user>", vocabulary.control_id, "<x>")
    fails("field 'age' has no tokens; there are rating, gender", vocabulary.encode_field, "age", 3)
    fails("field 'rating': expected a number, got 'good'", vocabulary.encode_field, "rating", "good")
    fails("got 8 at level 1", vocabulary.encode_sid, [0, 8, 0])
    fails(r"expected codes \[..., 3\]", vocabulary.encode_sid, [0, 8])
    fails("is no SID token of level 1", vocabulary.decode_sid, vocabulary.encode_sid([1, 2, 3])[[0, 0, 2]])
    fails("expected an id from 0", vocabulary.token_name, vocabulary.vocab_size)
    fails("finite edges that rise", Buckets, "x", (2.0, 1.0))
    fails("none of them 'other' or 'none'", Categories, "x", ("a", "none"))
    fails("at least one token to hash to, got 0", Hashed, "x", 0)
    fails("field 'x' is given twice", vocabulary_of, model_path, SIZES, (), (Buckets("x", (1.0,)),) * 2)
    fails("from SIDs such as <A12>: <B3>", vocabulary_of, model_path, SIZES, ("<B3>",))
    fails("expected 1 to 26 codebook sizes", vocabulary_of, model_path, ())
