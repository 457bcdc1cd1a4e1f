"""Text by a `tokenizer.json`: whatever a text reads, it survives, and it is text."""

import json
import pickle

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from plum_jax import artifact
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.text.files import read_text, text_from_files
from plum_jax.text.special_ids import VocabularyError
from plum_jax.text.tokenizer_json import TokenizerJsonText

TEXTS = [f"Toy Story {i}: the adventure of <A12> and friends <|endoftext|>" for i in range(60)]
LOOK_ALIKES = ["<A12>", "a<A1><B2>", "<|endoftext|>", "x<|im_end|>y", "</s>", "<pad>", "<history>", "\0 <|endoftext|>"]
SIZES = (16, 8, 4)


def byte_level(special: tuple[str, ...] = ("<|endoftext|>", "<|im_end|>")) -> Tokenizer:
    """GPT-2's kind, trained on texts that hold the special token as text: merges may lead to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens(["<tool>"])
    return tokenizer


def files(tokenizer: Tokenizer, **naming: str) -> dict[str, bytes]:
    return {"tokenizer.json": tokenizer.to_str().encode(), "tokenizer_config.json": json.dumps(naming).encode()}


@pytest.fixture(scope="module")
def text() -> TokenizerJsonText:
    made = text_from_files(files(byte_level(), eos_token="<|im_end|>", pad_token="<|endoftext|>"))
    assert isinstance(made, TokenizerJsonText)
    return made


@pytest.fixture(scope="module")
def vocabulary(text) -> SidVocabulary:
    return SidVocabulary(text, SIZES)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(st.text() | st.lists(st.sampled_from([*LOOK_ALIKES, *TEXTS[:2], " ", "é"])).map("".join))
def test_text_survives_and_is_only_text(vocabulary, text, words):
    ids = vocabulary.encode(words)
    special = [byte_level_id(text, name) for name in ("<|endoftext|>", "<|im_end|>")]
    assert not set(ids) & {*special, vocabulary.eos_id, vocabulary.pad_id}
    assert all(0 <= i < vocabulary.num_pieces for i in ids)
    assert not vocabulary.is_sid(ids).any()
    assert vocabulary.decode(ids) == words


def byte_level_id(text: TokenizerJsonText, name: str) -> int:
    (found,) = (i for i in range(text.num_pieces) if text.piece(i) == name)
    return found


def test_ids_are_those_of_tokenizers_where_no_special_token_is_in_the_text(text):
    tokenizer = byte_level()
    for words in ("Toy Story 3: the adventure", "<A12> and <tool> é", "  two  spaces\n"):
        assert text.encode(words) == tokenizer.encode(words, add_special_tokens=False).ids
    assert [text.piece(i) for i in text.encode("a<tool>")] == ["a", "<tool>"]


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_special_tokens_within_the_model_are_out_of_reach(ignore_merges):
    """GPT-2 and Llama have special tokens among the model's own pieces, and merges that lead to them."""
    vocab = {
        piece: i for i, piece in enumerate(["<unk>", "<s>", "</s>", "<", "/", "s", ">", "a", "▁", "</", "s>", "▁a"])
    }
    model = models.BPE(vocab, [("<", "/"), ("s", ">"), ("</", "s>"), ("▁", "a")], unk_token="<unk>")
    model.ignore_merges = ignore_merges
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = (
        pre_tokenizers.Metaspace(prepend_scheme="never"),
        decoders.Metaspace(prepend_scheme="never"),
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.encode_special_tokens = True
    assert 2 in tokenizer.encode("</s>").ids  # the setting of `tokenizers` alone is not enough
    text = text_from_files(files(tokenizer))
    assert (text.special_ids.unk, text.special_ids.bos, text.special_ids.eos, text.special_ids.pad) == (0, 1, 2, None)
    assert text.decode(text.encode("</s> a <s>")) == "</s> a <s>"
    assert text.encode("aé") == [7, 0]
    assert not set(text.encode("</s><s>")) & {0, 1, 2}


def test_a_unigram_model_never_finds_its_special_piece():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((piece, -3.0) for piece in ("▁", "▁a", "a", "<", "/", "s", ">"))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.encode_special_tokens = True
    assert 1 in tokenizer.encode("a</s>").ids  # as above
    text = text_from_files(files(tokenizer))
    assert text.special_ids.eos == 1
    assert 1 not in text.encode("a</s>") and text.decode(text.encode("a</s>")) == "a</s>"


def test_nothing_wraps_cuts_or_pads_a_text():
    tokenizer = byte_level()
    plain = tokenizer.encode("Toy Story and friends " * 5).ids
    tokenizer.post_processor = processors.TemplateProcessing("<|im_end|> $A", special_tokens=[("<|im_end|>", 331)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    assert text_from_files(files(tokenizer)).encode("Toy Story and friends " * 5) == plain


def test_special_ids_and_what_the_vocabulary_adds(text, vocabulary):
    ends, turns = byte_level_id(text, "<|endoftext|>"), byte_level_id(text, "<|im_end|>")
    assert (vocabulary.eos_id, text.special_ids.eos, text.special_ids.pad) == (turns, turns, ends)
    assert vocabulary.start_id == ends  # nothing begins a text, so what pads does
    assert vocabulary.pad_id == ends and vocabulary.unk_id == vocabulary.control_id("<unk>")
    # Nothing names them: by the model's configuration, then by the usual names.
    only = {"tokenizer.json": text.model}
    assert text_from_files(only).special_ids.eos == ends
    assert text_from_files(only, named_ids={"eos_token_id": [turns, ends]}).special_ids.eos == turns
    # "<s>" is in Qwen's vocabulary too, as a piece of text.
    tokenizer = byte_level()
    tokenizer.add_tokens(["<s>"])
    assert text_from_files(files(tokenizer)).special_ids.bos is None
    # One token for end and padding: padding gets one of its own.
    shared = SidVocabulary(text_from_files(only, named_ids={"pad_token_id": ends}), SIZES)
    assert shared.eos_id == ends and shared.pad_id == shared.control_id("<pad>") >= shared.num_pieces


def test_rows_of_the_model_are_reserved(text):
    padded = SidVocabulary(text_from_files(files(byte_level()), rows=400), SIZES)
    assert (padded.num_pieces, padded.sid_offset) == (400, 400 + len(padded.control_tokens))
    assert padded.token_name(399) == "<reserved 399>"
    assert padded.decode([*padded.encode("Toy"), 399]) == "Toy"
    pieces = text.num_pieces  # the last one is "<tool>", which is text
    with pytest.raises(VocabularyError, match=f"has {pieces} pieces, but the pre-trained model's table only 300 rows"):
        text_from_files(files(byte_level()), rows=300)
    # Gemma 3's last token, of an image, has no row in the model of text; no text gives it.
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<image>", "<pad>"])
    cut = text_from_files(files(tokenizer), rows=pieces)
    assert cut.num_pieces == pieces and cut.special_ids.pad is None and max(cut.encode("<image>")) < pieces


def test_save_load_and_pickle_give_the_same_ids(vocabulary, text, tmp_path):
    vocabulary.save(tmp_path / "vocabulary")
    for other in (SidVocabulary.load(tmp_path / "vocabulary"), pickle.loads(pickle.dumps(vocabulary))):
        assert other.fingerprint == vocabulary.fingerprint
        assert other.encode("Toy <|im_end|>") == vocabulary.encode("Toy <|im_end|>")
        assert (other.eos_id, other.pad_id) == (vocabulary.eos_id, vocabulary.pad_id)
    others = [
        SidVocabulary(text_from_files(files(byte_level())), SIZES),
        SidVocabulary(TokenizerJsonText(text.model, text.special_ids, 400), SIZES),
    ]
    assert len({vocabulary.fingerprint, *(other.fingerprint for other in others)}) == 3
    (tmp_path / "vocabulary" / "tokenizer.json").write_bytes(
        byte_level(("<|endoftext|>", "<|im_END|>")).to_str().encode()
    )
    with pytest.raises(artifact.ArtifactError, match="the files were changed"):
        SidVocabulary.load(tmp_path / "vocabulary")


def test_files_and_directories(text, tmp_path):
    for name, content in files(byte_level(), eos_token="<|im_end|>", pad_token="<|endoftext|>").items():
        (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        assert read_text(path) == text
    with pytest.raises(VocabularyError, match="a tokenizer.json or a directory with .* but there is no such file"):
        read_text(tmp_path / "other")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(VocabularyError, match="expected a tokenizer.json of Hugging Face's tokenizers"):
        read_text(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "?", "vocab": {"a": 0}}}))
    with pytest.raises(VocabularyError, match="cannot be read"):
        read_text(tmp_path)


def test_a_directory_with_a_sentencepiece_model(shared_data, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((shared_data / "weights" / "llama2_tokenizer.model").read_bytes())
    text = read_text(tmp_path, rows=32_064)
    assert text.num_pieces == 32_064 and text.piece(32_063) == "<reserved 32063>"
    assert text.decode([*text.encode("an old man"), 32_063]) == "an old man"
    assert np.max(text.encode("</s><s>")) < 32_000
    with pytest.raises(VocabularyError, match="32000 pieces"):
        read_text(tmp_path, rows=31_000)
