"""A small language model with items, and the likelihood of what follows a prompt by one full pass for every token."""

import dataclasses
import functools
import pathlib
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.schema import Corpus
from plum_jax.language.generation import LanguageModel
from plum_jax.language.prompts import PromptReader
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.semantic_ids.field_tokens import Buckets
from plum_jax.semantic_ids.table import SidTable
from plum_jax.text.sentence_piece import train_sentencepiece

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from made_vocabulary import vocabulary_of  # noqa: E402

SIZES = (3, 4)
TITLES = ["amber night", "birch road", "cedar song", "Delta, the film", "ember house", "fjord tale"]
CODES = [[0, 0], [0, 1], [1, 3], [2, 0], [2, 0], [2, 2]]  # items 3 and 4 share an ID


@dataclasses.dataclass(frozen=True)
class World:
    model: LanguageModel
    reader: PromptReader

    def log_probs(self, tokens) -> np.ndarray:
        """float32 [V]: of the token after these, by a full pass without a cache."""
        padded = np.zeros((1, 64), np.int32)
        padded[0, 1 : len(tokens) + 1] = tokens
        return np.asarray(_full(self.model.decoder, self.model.params, jnp.asarray(padded)))[0, len(tokens)]


@functools.partial(jax.jit, static_argnums=0)
def _full(decoder, params, tokens):
    length = tokens.shape[1]
    mask = jnp.tril(jnp.ones((1, length, length), bool))
    positions = jnp.arange(length)[None]
    return jax.nn.log_softmax(decoder.apply({"params": params}, tokens, positions, mask).values, axis=-1)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    path = tmp_path_factory.mktemp("pieces") / "pieces.model"
    train_sentencepiece([*TITLES, "The film is about and it was watched after"], 290, path)
    vocabulary = vocabulary_of(path, SIZES, field_tokens=(Buckets("rating", (2.5,)),))
    events = pl.DataFrame(
        {"user": [0], "item": [0], "time": [1]}, schema={"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}
    )
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(len(TITLES))], "title": TITLES})
    corpus = Corpus("films", items, pl.DataFrame({"user_id": ["u"]}), events, text_fields=("title",))
    table = SidTable.create(
        np.array(CODES), SIZES, corpus.items["item_id"].to_list(), corpus_fingerprint=corpus.fingerprint
    )
    # A layer with a window and one without: positions in the cache count.
    kinds = {"layer_windows": (5, 0)}
    sizes = DecoderConfig(num_layers=2, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16, **kinds)
    decoder = Decoder(sizes, vocabulary.vocab_size)
    one = jnp.zeros((1, 2), jnp.int32)
    params = nn.unbox(jax.jit(decoder.init)(jax.random.key(0), one, one, jnp.ones((1, 2, 2), bool)))["params"]
    params = jax.tree.map(lambda x: 3.0 * x, params)  # large enough for choices to depend on the prompt
    return World(
        LanguageModel(decoder, params, vocabulary, table, batch_size=3), PromptReader(vocabulary, table, corpus)
    )
