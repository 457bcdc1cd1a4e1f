"""The SidVocabulary as SeqIO sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tasks import quiet_tensorflow  # isort: skip  # noqa: F401  (before seqio)

import seqio
import tensorflow as tf
import tensorflow_text

from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.text.sentence_piece import SentencePieceText


class SeqioSidVocabulary(seqio.Vocabulary):
    """A `seqio.Vocabulary` over a `SidVocabulary`: text in, text and SIDs out.

    SeqIO maps ids past the base size to UNK when it decodes; here SID, control and field tokens are part of the base
    size, so they keep their names. `encode` is text only: templates emit the other tokens as ids.
    """

    def __init__(self, vocabulary: SidVocabulary) -> None:
        super().__init__(extra_ids=0)
        self.vocabulary = vocabulary

    @property
    def bos_id(self) -> int | None:
        """None: the records do not have it; the feed puts the vocabulary's `start_id` first."""
        return None

    @property
    def eos_id(self) -> int:
        return self.vocabulary.eos_id

    @property
    def pad_id(self) -> int:
        return self.vocabulary.pad_id

    @property
    def unk_id(self) -> int:
        return self.vocabulary.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.vocabulary.vocab_size

    def _encode(self, s: str) -> Sequence[int]:
        return self.vocabulary.encode(s)

    def _decode(self, ids: Iterable[int]) -> str:
        return self.vocabulary.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        """A text, scalar, as token ids [T]."""
        text = self.vocabulary.text
        if isinstance(text, SentencePieceText):
            # Made anew each time, as SeqIO does: its resource belongs to the graph that it is made in.
            return tensorflow_text.SentencepieceTokenizer(model=text.model).tokenize(s)

        def encode(one: Any) -> np.ndarray:
            # TensorFlow hands over bytes in a graph and an array of them outside.
            return np.array(text.encode(np.asarray(one, object).item().decode()), np.int32)

        encoded = tf.numpy_function(encode, [s], tf.int32, stateful=False)
        encoded.set_shape([None])
        return encoded

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        """Token ids [T] or [B, T] as text, scalar or [B]."""

        def decode_rows(rows: np.ndarray) -> np.ndarray:
            texts = [self.vocabulary.decode(row).encode() for row in rows.reshape(-1, rows.shape[-1])]
            return np.array(texts, dtype=object).reshape(rows.shape[:-1])

        decoded = tf.numpy_function(decode_rows, [ids], tf.string, stateful=False)
        decoded.set_shape(ids.shape[:-1])
        return decoded

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SeqioSidVocabulary) and other.vocabulary.fingerprint == self.vocabulary.fingerprint

    def __hash__(self) -> int:
        return hash(self.vocabulary.fingerprint)

    def __str__(self) -> str:
        return f"SeqioSidVocabulary({self.vocab_size} ids, fingerprint {self.vocabulary.fingerprint})"
