"""Text embeddings of items: static ones that come with `wordllama`, or any sentence-transformers model."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
import pathlib
from collections.abc import Sequence

import numpy as np
import polars as pl
import safetensors.numpy
import scipy.sparse
import tokenizers
from tqdm import tqdm

from plum_jax.corpus.features.block import FeatureBlock, FeatureError, normalised
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split

WORDLLAMA_WEIGHTS = "weights/l2_supercat_256.safetensors"
WORDLLAMA_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
WORDLLAMA_DIM = 256
TEXTS_PER_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class TextEmbedding:
    """Mean of static token embeddings (wordllama, 32,000 x 256, trained for sentence similarity), scaled to length 1.

    The files inside the installed package are read; nothing is downloaded. No training: 12,000 titles take a second.

    Attributes:
      fields: columns of items, text or lists of text, joined in this order; () = the corpus's text fields.
      dim: D; the first D of 256 dimensions (they were trained to be cut at 64 and 128).
      name: name of the block.
    """

    fields: tuple[str, ...] = ()
    dim: int = 256
    name: str = "text"

    def inputs(self) -> dict[str, str]:
        return {"wordllama": importlib.metadata.version("wordllama")}

    def lacks(self, corpus: Corpus) -> str:
        """What is not there to make this block of; "" where all is."""
        return _no_text(corpus, self.fields)

    def compute(self, split: Split) -> FeatureBlock:
        """Items without text, or whose text has no token, are absent.

        Raises:
          FeatureError: no such field, no text field at all, or a `dim` that the weights do not have.
        """
        texts = item_texts(split.corpus, self.fields, self.name)
        values = embed_texts(texts, self.dim, f"block {self.name!r}")
        return FeatureBlock(self.name, values, np.asarray(values.any(axis=1)))


@dataclasses.dataclass(frozen=True)
class SentenceTransformerEmbedding:
    """Embeddings of any sentence-transformers model, scaled to length 1.

    Attributes:
      model_name_or_path: a model's name (it is downloaded) or its directory.
      fields: as for `TextEmbedding`.
      batch_size: texts a batch.
      name: name of the block.
    """

    model_name_or_path: str
    fields: tuple[str, ...] = ()
    batch_size: int = 64
    name: str = "sentence"

    def lacks(self, corpus: Corpus) -> str:
        """What is not there to make this block of; "" where all is."""
        return _no_text(corpus, self.fields)

    def compute(self, split: Split) -> FeatureBlock:
        """Items without text are absent.

        Raises:
          FeatureError: sentence-transformers is not installed, no such field, or no text field at all.
        """
        try:
            import sentence_transformers  # large, and optional
        except ImportError:
            raise FeatureError(
                f"block {self.name!r} needs the package sentence-transformers, which is not installed: run "
                "`pip install sentence-transformers`, or use TextEmbedding, which needs nothing"
            ) from None
        texts = item_texts(split.corpus, self.fields, self.name)
        model = sentence_transformers.SentenceTransformer(self.model_name_or_path)
        present = np.array([bool(text) for text in texts])
        embedded = model.encode(
            [text for text in texts if text], batch_size=self.batch_size, show_progress_bar=True, convert_to_numpy=True
        )
        values = np.zeros((len(texts), embedded.shape[1]), np.float32)
        values[present] = embedded
        return FeatureBlock(self.name, normalised(values), present)


def _no_text(corpus: Corpus, fields: tuple[str, ...]) -> str:
    """Fields that are asked for by name must be there; those of the corpus need not."""
    return "" if fields or corpus.text_fields else "no text fields"


def item_texts(corpus: Corpus, fields: tuple[str, ...], block: str) -> list[str]:
    """One text an item: its fields, those it has, joined by spaces; "" where it has none.

    Raises:
      FeatureError: a field that items do not have or that is no text, or no field at all.
    """
    fields = tuple(fields) or corpus.text_fields
    if not fields:
        raise FeatureError(f"block {block!r}: corpus {corpus.name!r} has no text fields; set `fields` or leave it out")
    columns = []
    for field in fields:
        dtype = corpus.items.schema.get(field)
        if dtype not in (pl.String, pl.List(pl.String)):
            text = [name for name, kind in corpus.items.schema.items() if kind in (pl.String, pl.List(pl.String))]
            raise FeatureError(f"block {block!r}: items have no text field {field!r} (it is {dtype}); they have {text}")
        columns.append(pl.col(field).list.join(" ", ignore_nulls=True) if dtype != pl.String else pl.col(field))
    joined = pl.concat_str(columns, separator=" ", ignore_nulls=True).str.strip_chars()
    return corpus.items.select(joined).to_series().to_list()


def embed_texts(texts: Sequence[str], dim: int, used_by: str) -> np.ndarray:
    """float32 [n, dim], means of wordllama's token vectors, of length 1; zeros for a text without tokens.

    Args:
      texts: n of them.
      dim: the first so many of 256 dimensions.
      used_by: whom an error and the progress bar name.

    Raises:
      FeatureError: wordllama is not installed, or it has no such `dim`.
    """
    if not 0 < dim <= WORDLLAMA_DIM:
        raise FeatureError(f"{used_by}: expected dim in 1..{WORDLLAMA_DIM}, got {dim}")
    tokenizer, weights = _wordllama(dim)
    values = np.zeros((len(texts), dim), np.float32)
    with tqdm(total=len(texts), desc=f"text embedding, {used_by}", unit=" texts", delay=1) as progress:
        for start in range(0, len(texts), TEXTS_PER_BATCH):
            batch = list(texts[start : start + TEXTS_PER_BATCH])
            encoded = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            values[start : start + len(batch)] = _mean_of_tokens([text.ids for text in encoded], weights)
            progress.update(len(batch))
    return normalised(values)


@functools.lru_cache(maxsize=4)  # one query is a call too
def _wordllama(dim: int) -> tuple[tokenizers.Tokenizer, np.ndarray]:
    """Tokenizer and float32 [32000, dim] of the installed wordllama, read without importing it (it sets up logging)."""
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise FeatureError("TextEmbedding needs the package wordllama, which is not installed: `pip install wordllama`")
    root = pathlib.Path(next(iter(spec.submodule_search_locations)))
    for path in (root / WORDLLAMA_WEIGHTS, root / WORDLLAMA_TOKENIZER):
        if not path.exists():
            version = importlib.metadata.version("wordllama")
            raise FeatureError(f"wordllama {version} has no {path}: install wordllama==0.4.0.post1, which has it")
    tokenizer = tokenizers.Tokenizer.from_file(str(root / WORDLLAMA_TOKENIZER))
    weights = safetensors.numpy.load_file(root / WORDLLAMA_WEIGHTS)["embedding.weight"]
    return tokenizer, weights[:, :dim].astype(np.float32)


def _mean_of_tokens(ids: list[list[int]], weights: np.ndarray) -> np.ndarray:
    """float32 [B, D]: mean of the rows of `weights` at each text's ids; zeros for a text without tokens."""
    lengths = np.array([len(of_text) for of_text in ids])
    tokens = np.concatenate([np.asarray(of_text, np.int64) for of_text in ids])
    bags = scipy.sparse.csr_array(
        (np.ones(len(tokens), np.float32), tokens, np.concatenate([[0], np.cumsum(lengths)])),
        shape=(len(ids), len(weights)),
    )
    return (bags @ weights) / np.maximum(lengths, 1)[:, None].astype(np.float32)
