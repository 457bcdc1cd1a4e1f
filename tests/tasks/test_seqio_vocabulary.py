"""The SeqIO wrapper keeps the promises of seqio.Vocabulary, in Python and in TensorFlow."""

import pickle

import numpy as np
import pytest
import seqio
import tensorflow as tf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from plum_jax.semantic_ids.field_tokens import Buckets
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.text.files import text_from_files
from plum_jax.text.sentence_piece import train_sentencepiece
from tasks.seqio_vocabulary import SeqioSidVocabulary
from tests.made_vocabulary import vocabulary_of

TEXTS = [f"Toy Story {i}: the adventure of <A12> and friends" for i in range(60)]


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> SidVocabulary:
    path = tmp_path_factory.mktemp("sentencepiece") / "text.model"
    train_sentencepiece(TEXTS, 400, path)
    return vocabulary_of(path, (16, 8, 4), field_tokens=(Buckets("rating", (3.0,)),))


@pytest.fixture(scope="module")
def vocabulary(base) -> SeqioSidVocabulary:
    return SeqioSidVocabulary(base)


def test_sizes_and_special_ids(vocabulary, base):
    assert isinstance(vocabulary, seqio.Vocabulary)
    assert vocabulary.vocab_size == base.vocab_size
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.bos_id) == (0, 1, 2, None)


@pytest.mark.parametrize("text", ["Toy Story 3", "", "  spaces   <A12> ☃ </s>", "the adventure of <history>"])
def test_encode_tf_equals_encode(vocabulary, text):
    ids = vocabulary.encode_tf(tf.constant(text))
    assert ids.dtype == tf.int32
    assert ids.numpy().tolist() == vocabulary.encode(text)


def test_encode_tf_works_in_a_dataset(vocabulary):
    data = tf.data.Dataset.from_tensor_slices(TEXTS[:5]).map(vocabulary.encode_tf)
    assert [ids.tolist() for ids in data.as_numpy_iterator()] == [vocabulary.encode(text) for text in TEXTS[:5]]


def test_models_of_others_agree_too(shared_data):
    for file in ("t5_spiece.model", "llama2_tokenizer.model"):
        wrapped = SeqioSidVocabulary(vocabulary_of(shared_data / "weights" / file, (4, 4)))
        text = "An old <A3> text ☃"
        assert wrapped.encode_tf(tf.constant(text)).numpy().tolist() == wrapped.encode(text)
        theirs = seqio.SentencePieceVocabulary(str(shared_data / "weights" / file))
        assert wrapped.encode(text) == theirs.encode(text)
        assert wrapped.decode(wrapped.encode(text)) == theirs.decode(theirs.encode(text))


def test_decode_keeps_sids_and_stops_at_eos(vocabulary, base):
    ids = [
        base.control_id("<history>"),
        *base.encode_sid([15, 7, 3]).tolist(),
        base.encode_field("rating", 5),
        *base.encode("friends"),
        base.eos_id,
        *base.encode("after the end"),
    ]
    text = "<history><A15><B7><C3><rating:1> friends"
    assert vocabulary.decode(ids) == text
    assert vocabulary.decode(tf.constant(ids)) == text
    assert vocabulary.decode_tf(tf.constant(ids)).numpy().decode() == text
    both = vocabulary.decode_tf(tf.constant([ids, ids[::-1]]))
    assert [row.decode() for row in both.numpy()] == [text, vocabulary.decode(ids[::-1])]


def test_ids_past_the_vocabulary_read_as_unknown(vocabulary):
    past = [vocabulary.vocab_size, vocabulary.vocab_size + 7]
    assert vocabulary.decode(past) == vocabulary.decode([vocabulary.unk_id] * 2)
    assert vocabulary.decode_tf(tf.constant(past)).numpy().decode() == vocabulary.decode(past)


def test_equality_and_pickling(vocabulary, base):
    copied = pickle.loads(pickle.dumps(vocabulary))
    assert copied == vocabulary and hash(copied) == hash(vocabulary)
    other = SeqioSidVocabulary(SidVocabulary(base.text, (16, 8, 5)))
    assert other != vocabulary


def test_a_seqio_task_tokenises_with_it(vocabulary, base):
    source = seqio.FunctionDataSource(
        lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices({"targets": TEXTS[:3]}),
        splits=("train",),
    )
    task = seqio.Task(
        "wrapped_vocabulary",
        source=source,
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"targets": seqio.Feature(vocabulary)},
    )
    rows = list(task.get_dataset(sequence_length=None, split="train", shuffle=False).as_numpy_iterator())
    assert [row["targets"].tolist() for row in rows] == [[*base.encode(text), base.eos_id] for text in TEXTS[:3]]
    assert all(row["targets"].dtype == np.int32 for row in rows)


def test_a_tokenizer_json_serves_too():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    text = text_from_files({"tokenizer.json": tokenizer.to_str().encode()})
    wrapped = SeqioSidVocabulary(SidVocabulary(text, (4, 4)))
    for words in ("Toy Story ☃", "", "friends <|endoftext|> <A3>"):
        assert wrapped.encode_tf(tf.constant(words)).numpy().tolist() == wrapped.encode(words)
        assert wrapped.decode(wrapped.encode(words)).strip() == words
