"""Tokenizers made of lists of pieces encode as the files that the lists came from."""

import json

import pytest
import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import models, pre_tokenizers, trainers

from plum_jax.interop.tokenizer_files import CONTROL, USER_DEFINED, byte_level_tokenizer, sentencepiece_model

TEXTS = ["Once upon a time", "  two  spaces, é and 漢字 \n", "it's 1234 o'clock<|end|>", "x = {'a': [1, 2]}"]


def test_llama_s_sentencepiece_model_is_made_again_from_its_pieces(shared_data):
    path = shared_data / "weights" / "llama2_tokenizer.model"
    theirs = sentencepiece_model_pb2.ModelProto()
    theirs.ParseFromString(path.read_bytes())
    columns = zip(*((piece.piece, piece.score, piece.type) for piece in theirs.pieces), strict=True)
    ours = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model(*map(list, columns)))
    original = sentencepiece.SentencePieceProcessor(model_file=str(path))
    assert ours.encode(TEXTS) == original.encode(TEXTS)
    assert ours.decode(ours.encode(TEXTS)) == original.decode(original.encode(TEXTS))
    assert (ours.unk_id(), ours.bos_id(), ours.eos_id(), ours.pad_id()) == (0, 1, 2, -1)


@pytest.fixture(scope="module")
def byte_level():
    """A small byte-level BPE: its pieces and merges."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        [*TEXTS, "1234 123 12 99 999"] * 5, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet)
    )
    state = json.loads(bpe.to_str())["model"]
    pieces = sorted(state["vocab"], key=state["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in state["merges"]]
    return bpe, pieces, merges


def made(byte_level, kind, extra=()):
    _, pieces, merges = byte_level
    types = [1] * len(pieces) + [kind_of for _, kind_of in extra]
    content = byte_level_tokenizer([*pieces, *(piece for piece, _ in extra)], merges, types, kind)
    return tokenizers.Tokenizer.from_str(content.decode())


def test_a_byte_level_bpe_is_made_again_from_its_pieces_and_merges(byte_level):
    ours = made(byte_level, "gpt-2")
    for text in TEXTS:
        assert ours.encode(text).ids == byte_level[0].encode(text).ids
        assert ours.decode(ours.encode(text).ids) == text


def test_control_and_user_defined_pieces_are_found_in_text(byte_level):
    ours = made(byte_level, "default", [("<|end|>", CONTROL), ("{'a'", USER_DEFINED)])
    assert ours.encode("it<|end|>").ids[-1] == ours.token_to_id("<|end|>") == len(byte_level[1])
    assert ours.token_to_id("{'a'") in ours.encode(TEXTS[3]).ids
    assert ours.decode(ours.encode("it<|end|>").ids) == "it"  # a control piece is no text


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [("smollm", "1 2 3 4"), ("qwen2", "1 2 3 4"), ("llama-bpe", "12 3 4"), ("gpt-2", "1234")],  # by ones, threes, all
)
def test_digits_are_split_as_the_pre_tokenizer_says(byte_level, kind, tokens):
    assert made(byte_level, kind).encode("1234").tokens == tokens.split()


def test_a_pre_tokenizer_that_is_not_known_gives_no_file(byte_level):
    _, pieces, merges = byte_level
    assert byte_level_tokenizer(pieces, merges, [1] * len(pieces), "deepseek-llm") is None
