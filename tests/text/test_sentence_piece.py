"""How many pieces fit a text: what training says is what training does."""

import re
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plum_jax.text.files import read_text
from plum_jax.text.sentence_piece import train_sentencepiece
from plum_jax.text.special_ids import VocabularyError

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "islet", "jetty"]
TITLES = [f"The {first} {second}" for first in WORDS for second in WORDS][:80]
TOO_FEW = re.compile(
    r"num_pieces \(NUM_PIECES\) is (-?\d+), but the pieces of (\d+) texts are at least (\d+) \(259 bytes and special "
    r"pieces, \d+ characters\) and at most (\d+): set NUM_PIECES to \3 or more"
)


def sizes_said(texts, directory, vocab_size=100):
    """The least and the most pieces that the error speaks of."""
    with pytest.raises(VocabularyError) as caught:
        train_sentencepiece(texts, vocab_size, directory / "few.model")
    assert not (directory / "few.model").exists()
    said = TOO_FEW.fullmatch(str(caught.value))
    assert said, caught.value
    assert said.group(1, 2) == (str(vocab_size), str(len(texts)))
    return int(said[3]), int(said[4])


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12), min_size=1, max_size=9))
@example(TITLES)
@example(["a"])
@example(["日本語の映画", "映画", "\x00"])
def test_the_pieces_said_to_fit_are_those_that_fit(tmp_path_factory, texts):
    directory = tmp_path_factory.mktemp("pieces")
    texts = [text + "a" for text in texts]  # each has a character that normalising leaves
    least, most = sizes_said(texts, directory)
    assert sizes_said(texts, directory, least - 1) == (least, most)
    for vocab_size in (least, most, most + 1000):
        train_sentencepiece(texts, vocab_size, directory / "fits.model")
        trained = read_text(directory / "fits.model").num_pieces
        assert least <= trained <= min(vocab_size, most) and (vocab_size < most or trained == most)


def test_fewer_pieces_than_asked_for_are_said(tmp_path, capsys):
    train_sentencepiece(TITLES, 280, tmp_path / "text.model")
    assert capsys.readouterr().err == ""
    train_sentencepiece(TITLES, 2000, tmp_path / "text.model")
    pieces = read_text(tmp_path / "text.model").num_pieces
    said = f"num_pieces (NUM_PIECES) is 2000, but 80 texts give at most {pieces} pieces: the vocabulary has those\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("texts", [[], ["", " \t"], ["\u200b", "\ufeff", "\u3000"]], ids=["none", "blank", "invisible"])
def test_without_any_text_bytes_and_characters_remain(tmp_path, texts):
    train_sentencepiece(texts, 2000, tmp_path / "text.model")
    text = read_text(tmp_path / "text.model")
    for said in ("Video 12 has title (en):", "映画", string.punctuation):
        assert text.decode(text.encode(said)) == said
    assert text.num_pieces < 400
