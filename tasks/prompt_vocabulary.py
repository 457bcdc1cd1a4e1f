"""A vocabulary for prompts that people type: names of tokens are read as tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tasks import quiet_tensorflow  # isort: skip  # noqa: F401  (before tensorflow)

import tensorflow as tf

from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.seqio_vocabulary import SeqioSidVocabulary

_NAME = re.compile(r"<[^<>\s]+>")


class PromptVocabulary(SeqioSidVocabulary):
    """`SeqioSidVocabulary` that reads "<history> <A12><B5><C3>" as the tokens of these names.

    Only for the prompts of somebody who asks a model (T5X's `InteractiveModel`): a title that reads "<A12>" is text
    everywhere else. Equal to the vocabulary of the tasks, whose tokens it gives.
    """

    def __init__(self, vocabulary: SidVocabulary) -> None:
        super().__init__(vocabulary)
        first, last = vocabulary.num_pieces, vocabulary.vocab_size
        self._tokens = {vocabulary.token_name(i): i for i in range(first, last)}

    def _encode(self, s: str) -> Sequence[int]:
        ids: list[int] = []
        place = 0
        for name in _NAME.finditer(s):
            if name[0] in self._tokens:
                ids += [*self._words(s[place : name.start()]), self._tokens[name[0]]]
                place = name.end()
        return ids + self._words(s[place:])

    def _words(self, text: str) -> list[int]:
        return self.vocabulary.encode(text) if text.strip() else []

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(one: object) -> np.ndarray:
            return np.array(self._encode(tf.compat.as_text(np.asarray(one, object).item())), np.int32)

        encoded = tf.numpy_function(encode, [s], tf.int32, stateful=False)
        encoded.set_shape([None])
        return encoded
