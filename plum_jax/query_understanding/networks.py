"""Networks that classify queries: a bag of words and letters, and a language model with a head of classes."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from plum_jax.encoders.network import Pooling, TextEncoder, TrunkConfig
from plum_jax.model.attention import AttentionFunction, EinsumAttention
from plum_jax.model.projections import parameter
from plum_jax.queries.words import KnownWords


@dataclasses.dataclass(frozen=True)
class BagConfig:
    """Sizes of the bag of words and letters.

    Attributes:
      width: of the vectors.
      buckets: rows that n-grams of letters are hashed to.
      shortest, longest: n of the n-grams.
      words, grams: of a query, at most.
      dropout: of the mean.
    """

    width: int = 64
    buckets: int = 1 << 15
    shortest: int = 3
    longest: int = 5
    words: int = 6
    grams: int = 48
    dropout: float = 0.1

    def columns(self, texts: Sequence[str], known: KnownWords) -> dict[str, np.ndarray]:
        """ "words" int32 [n, words] and "grams" int32 [n, grams], 0 behind the last."""
        grams = np.zeros((len(texts), self.grams), np.int32)
        for row, text in zip(grams, texts, strict=True):
            found = self._hashed(text)[: self.grams]
            row[: len(found)] = found
        return {"words": known.numbers(texts, self.words), "grams": grams}

    def _hashed(self, text: str) -> list[int]:
        """Buckets from 1 on of the n-grams of each word, which is read with its ends marked: "<red>"."""
        marked = [f"<{word}>" for word in text.split()]
        return [
            1 + zlib.crc32(word[start : start + n].encode()) % self.buckets
            for word in marked
            for n in range(self.shortest, self.longest + 1)
            for start in range(len(word) - n + 1)
        ]


class BagNetwork(nn.Module):
    """Logits [B, C] of the mean of a query's vectors, of words and of n-grams of letters (fastText: Joulin et al., EACL
    2017; Bojanowski et al., TACL 2017). Deviations: trained by AdamW; n-grams of letters in words, where fastText's
    classifier has those of words by default.

    Attributes:
      config: sizes.
      num_words: rows of the words, with padding's.
      num_classes: C.
    """

    config: BagConfig
    num_words: int
    num_classes: int

    @nn.compact
    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> jax.Array:
        c, total, count = self.config, jnp.float32(0.0), jnp.float32(0.0)
        for name, rows in (("words", self.num_words), ("grams", 1 + c.buckets)):
            init = nn.initializers.normal(0.1)
            table = parameter(self, f"{name}_embedding", init, ("vocab", "embed"), (rows, c.width), "float32")
            real = (batch[name] > 0)[..., None]
            total = total + jnp.sum(jnp.where(real, jnp.take(table, batch[name], axis=0), 0.0), axis=1)
            count = count + jnp.sum(real, axis=1)
        mean = nn.Dropout(c.dropout)(total / jnp.maximum(count, 1.0), deterministic=deterministic)
        return nn.Dense(self.num_classes, name="classes")(mean)


class LanguageNetwork(nn.Module):
    """Logits [B, C] of a language model's state at the end of a prompt.

    Attributes:
      config, vocab_size: of the language model.
      num_classes: C.
      pooling: as of `TextEncoder`.
      attention: the kernel.
    """

    config: TrunkConfig
    vocab_size: int
    num_classes: int
    pooling: Pooling = "last"
    attention: AttentionFunction = EinsumAttention()

    def setup(self) -> None:
        self.encoder = TextEncoder(self.config, self.vocab_size, self.pooling, self.attention)
        self.classes = nn.Dense(self.num_classes)

    def __call__(self, batch: Mapping[str, jax.Array], deterministic: bool = True) -> jax.Array:
        """Of "tokens" int32 [B, T] and "lengths" int32 [B]."""
        return self.classes(self.encoder(batch["tokens"], batch["lengths"], deterministic))
