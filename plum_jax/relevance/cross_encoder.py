"""A cross-encoder: a language model reads query and item in one text; what is read, and how pairs are scored."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.features.text import embed_texts
from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.encoders.language_model import LanguageModel, LanguageModelStart, with_layers
from plum_jax.encoders.length_blocks import blocks_by_length
from plum_jax.encoders.network import trunk_of, with_trunk
from plum_jax.encoders.token_rows import TokenRows, token_rows
from plum_jax.feeds.batches import Batch
from plum_jax.model.int8 import Int8Weights, dequantised
from plum_jax.relevance.cross_network import CrossNetwork
from plum_jax.relevance.pairs import Pairs
from plum_jax.relevance.pruning import depth_of
from plum_jax.training.initial import with_values

STEP = 16  # lengths are multiples of it, so that few programs are compiled
_SIZES = (8, 24, 64)  # pairs of the compiled programs
_TABLE_STEP = 2048  # rows of the table that it reads are a multiple of


class CrossTexts(NamedTuple):
    """Queries or items as they are read.

    Attributes:
      tokens: int32 [n, T], 0 behind the text.
      lengths: int32 [n].
      vectors: float32 [n, E], wordllama's, of length one or zero.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    vectors: np.ndarray


@dataclasses.dataclass(frozen=True)
class CrossEncoder:
    """A language model over " query, end of line,  item" in small letters: a word has the same pieces in either; a BERT
    over "[CLS] query [SEP] item [SEP]".

    Attributes:
      language_model: imported, or a small decoder from random parameters.
      query_length, item_length: tokens that are read of each; what is longer is cut.
      text_dim: of the text vectors whose cosine the head reads.
    """

    language_model: LanguageModel = LanguageModel()
    query_length: int = 16
    item_length: int = 48
    text_dim: int = 256

    def reader(
        self, judged: JudgedQueries, classes: int, directory: epath.PathLike, run: epath.PathLike
    ) -> CrossReader:
        """What training and scoring read.

        Args:
          judged: queries and items; pieces of text, where they are trained, are of the training queries and all items.
          classes: C.
          directory: gets the pieces.
          run: directory of the run; nothing is written.
        """
        texts = (text.lower() for text in (*judged.training_queries, *judged.texts))
        start = self.language_model.start(texts, directory)
        rows = _item_rows(start, judged.texts, self.item_length)
        items = CrossTexts(*rows, embed_texts(judged.texts, self.text_dim, "items"))
        return CrossReader(self, start, classes, _query_texts(self, start, judged.queries), items)


@dataclasses.dataclass(frozen=True, eq=False)
class CrossReader:
    """Tokens of queries and items, put together pair by pair.

    Attributes:
      config: of it.
      start: what training begins with.
      classes: C.
      queries: of the data.
      items: of the data.
    """

    config: CrossEncoder
    start: LanguageModelStart
    classes: int
    queries: CrossTexts
    items: CrossTexts

    @property
    def layers(self) -> int:
        """Of the language model."""
        return self.start.config.num_layers

    @property
    def network(self) -> CrossNetwork:
        """Of that depth."""
        return self.of_depth(self.layers)

    def of_depth(self, layers: int) -> CrossNetwork:
        """A network of so many of the layers."""
        return CrossNetwork(with_layers(self.start.config, layers), self.start.vocab_size, self.classes)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of all that is read but the weights."""
        return artifact.fingerprint(self.start.fingerprint, *self.items)

    def read_queries(self, texts: Sequence[str]) -> CrossTexts:
        """Queries, the data's or others."""
        return _query_texts(self.config, self.start, texts)

    @property
    def reading_params(self) -> Any:
        """None: the language model is the network."""
        return {}

    def lengths(self, queries: CrossTexts, pairs: Pairs) -> np.ndarray:
        """int32 [n], tokens of each pair."""
        return queries.lengths[pairs.query] + self.items.lengths[pairs.item]

    def columns(self, queries: CrossTexts, pairs: Pairs) -> Batch:
        """Of a `CrossNetwork`; T is the longest pair, up to a multiple of `STEP`."""
        of_query, lengths = queries.lengths[pairs.query, None], self.lengths(queries, pairs)
        places = np.arange(-(-int(lengths.max()) // STEP) * STEP)[None]
        in_query = np.minimum(places, queries.tokens.shape[1] - 1)
        in_item = np.clip(places - of_query, 0, self.items.tokens.shape[1] - 1)
        tokens = np.where(
            places < of_query,
            queries.tokens[pairs.query[:, None], in_query],
            self.items.tokens[pairs.item[:, None], in_item],
        )
        tokens = np.where(places < lengths[:, None], tokens, 0).astype(np.int32)
        cosines = np.sum(queries.vectors[pairs.query] * self.items.vectors[pairs.item], axis=1)
        return {"tokens": tokens, "lengths": lengths, "query_lengths": of_query[:, 0], "cosines": cosines}

    def initial(self, network: CrossNetwork, start: Any, key: jax.Array) -> Any:
        """Parameters with their logical axes.

        Args:
          network: of the depth that they are for.
          start: parameters of such a network, host arrays; None: the language model's, where it has some, and a random
            head.
          key: of what is random.
        """
        boxed = network.init(key, self.columns(self.items, Pairs(*np.zeros((3, 1), np.int32))))["params"]
        if start is not None:
            return with_values(boxed, start)
        if self.start.params is None:
            return boxed
        return {**boxed, "encoder": with_values(boxed["encoder"], self.start.encoder_params)}

    def scorer(self, params: Any) -> CrossScorer:
        """Parameters of any depth, as a model that is asked."""
        trunk = dict(trunk_of(params["encoder"]))
        table = trunk.pop("embedding")
        rest = {**params, "encoder": with_trunk(params["encoder"], trunk)}
        return CrossScorer(self, self.of_depth(depth_of(params)), table, jax.device_put(rest))


@dataclasses.dataclass(frozen=True, eq=False)
class CrossScorer:
    """Attributes:
    reader: texts.
    network: of the depth that the parameters have.
    table: of the vocabulary, on the host; a call reads the rows that its pairs meet, in 8 bits or not.
    params: the others, arrays, or `Int8Weights` among them.
    """

    reader: CrossReader
    network: CrossNetwork
    table: Any
    params: Any

    def logits(self, queries: CrossTexts, pairs: Pairs) -> np.ndarray:
        """float32 [n, C]. Pairs of about one length are computed together."""
        found = np.zeros((len(pairs), self.network.classes), np.float32)
        for rows, filled in blocks_by_length(self.reader.lengths(queries, pairs), _SIZES):
            batch = self.reader.columns(queries, pairs.of(filled))
            met, batch["tokens"] = np.unique(batch["tokens"], return_inverse=True)
            met = np.pad(met, (0, -len(met) % _TABLE_STEP))
            found[rows] = np.asarray(_apply(self.network, self.params, self._rows(met), batch))[: len(rows)]
        return found

    def _rows(self, numbers: np.ndarray) -> np.ndarray:
        if isinstance(self.table, Int8Weights):
            return np.asarray(self.table.values)[numbers] * np.asarray(self.table.scale)[numbers]
        return np.asarray(self.table)[numbers]


def _query_texts(config: CrossEncoder, start: LanguageModelStart, texts: Sequence[str]) -> CrossTexts:
    """Queries, which items follow."""
    return CrossTexts(*_query_rows(start, texts, config.query_length), embed_texts(texts, config.text_dim, "queries"))


def _query_rows(start: LanguageModelStart, texts: Sequence[str], length: int) -> TokenRows:
    """Each with the end of its line and without an end of text, or between [CLS] and [SEP]."""
    if start.is_bert:
        return start.rows(texts, length)
    rows = token_rows(start.text, [f" {text.lower()}\n" for text in texts], length + 1)
    return TokenRows(rows.tokens[:, :-1], rows.lengths - 1)


def _item_rows(start: LanguageModelStart, texts: Sequence[str], length: int) -> TokenRows:
    """Each with an end of text, or [SEP]."""
    return token_rows(start.text, texts if start.is_bert else [f" {text.lower()}" for text in texts], length)


@functools.partial(jax.jit, static_argnums=0)
def _apply(network: CrossNetwork, params: Any, table: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Logits by a table of some rows [U, D], which the batch's tokens are numbers of."""
    params = dequantised(params)
    encoder = with_trunk(params["encoder"], {**trunk_of(params["encoder"]), "embedding": table})
    return network.clone(vocab_size=len(table)).bind({"params": {**params, "encoder": encoder}})(batch)
