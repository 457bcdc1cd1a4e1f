"""A BERT's directory gives the states of its formulas, by every naming of its tensors; what it is not is named."""

import json

import numpy as np
import pytest
import small_bert
from numpy.testing import assert_allclose

from plum_jax.interop import InteropError
from plum_jax.interop.bert import is_bert, read_bert
from plum_jax.interop.pretrained import read_pretrained
from plum_jax.model.bert import Bert

TOKENS = np.array([[2, 5, 6, 7, 3, 8, 6, 3], [2, 8, 3, 5, 3, 0, 0, 0]], np.int32)
LENGTHS, FIRST = np.array([8, 5]), np.array([5, 3])


def our_streams(read, first=FIRST):
    return Bert(read.config, read.vocab_size).apply(
        {"params": read.params}, TOKENS, LENGTHS, first_lengths=first, method="streams"
    )


def test_streams_are_those_of_the_formulas_beside_filling_and_alone(tmp_path):
    read = read_bert(small_bert.write(tmp_path))
    fields = {**small_bert.FIELDS, "vocab_size": read.vocab_size}
    tensors = small_bert.tensors_of(fields)
    for first, two in ((FIRST, True), (None, False)):
        streams = np.stack(our_streams(read, first))
        for row, length in enumerate(LENGTHS):
            types = (np.arange(length) >= FIRST[row]) * int(two)
            expected = small_bert.states(fields, tensors, TOKENS[row, :length], types)
            assert_allclose(streams[:, row, :length], expected, atol=2e-5)


def renamed(tensors):
    """As `BertForSequenceClassification` writes them, a norm's by its old names, and what is no encoder's."""
    named = {f"bert.{name}": tensor for name, tensor in tensors.items()}
    named = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in named.items()}
    named = {name.replace("LayerNorm.bias", "LayerNorm.beta"): tensor for name, tensor in named.items()}
    others = ("bert.pooler.dense.weight", "classifier.bias", "cls.predictions.bias", "bert.embeddings.position_ids")
    return {**named, **{name: np.ones(3, np.float32) for name in others}}


def test_every_naming_is_the_same_model(tmp_path):
    plain = read_bert(small_bert.write(tmp_path / "plain"))
    other = read_bert(small_bert.write(tmp_path / "other", change=renamed))
    for one, two in zip(our_streams(plain), our_streams(other), strict=True):
        np.testing.assert_array_equal(one, two)
    assert {*other.tokenizer_files} == {"tokenizer.json"} and other.special_ids == {"pad_token_id": 0}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key' is not read of a BERT"),
        ({"hidden_act": "gelu_new"}, "hidden_act='gelu_new' is not read of a BERT: expected 'gelu'"),
        ({"is_decoder": True}, "is_decoder=True is not read"),
        ({"num_attention_heads": 5}, "multiple of num_heads, got self.d_model=12 self.num_heads=5, from config.json"),
        ({"type_vocab_size": None}, "expected a whole number as type_vocab_size, got None"),
    ],
)
def test_a_field_that_asks_for_another_function_is_named(fields, message, tmp_path):
    directory = small_bert.write(tmp_path)
    (directory / "config.json").write_text(json.dumps({**small_bert.FIELDS, "vocab_size": 9, **fields}))
    with pytest.raises(InteropError, match=message):
        read_bert(directory)


def test_tensors_that_are_missing_too_many_or_of_another_shape_are_named(tmp_path):
    lost = "encoder.layer.1.output.dense.bias"
    changes = {
        f"the file lacks {lost}": lambda t: {name: x for name, x in t.items() if name != lost},
        "layer.2.*which nothing in the model takes": lambda t: {**t, "encoder.layer.2.output.dense.bias": t[lost]},
        rf"{lost}: expected shape \(12,\) by the configuration, \(5,\)": lambda t: {**t, lost: t[lost][:5]},
    }
    for number, (message, change) in enumerate(changes.items()):
        with pytest.raises(InteropError, match=message):
            read_bert(small_bert.write(tmp_path / str(number), change=change))


def test_a_decoder_is_not_begun_with_it(tmp_path):
    directory = small_bert.write(tmp_path)
    assert is_bert(directory) and not is_bert(tmp_path / "nowhere")
    with pytest.raises(InteropError, match=r"model_type='bert' is not read; .*\(a BERT writes nothing"):
        read_pretrained(directory)


def test_more_tokens_than_positions_are_refused(tmp_path):
    read = read_bert(small_bert.write(tmp_path, max_position_embeddings=7))
    with pytest.raises(ValueError, match="expected texts of at most 7 tokens, as BERT has positions, got 8"):
        our_streams(read)
