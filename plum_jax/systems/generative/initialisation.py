"""What a decoder begins with: random parameters, or a pre-trained language model's with rows for the new tokens."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse
from etils import epath

from plum_jax.corpus.schema import Corpus
from plum_jax.interop.new_rows import HEWITT_NOISE, RowSources, grow_vocabulary
from plum_jax.interop.pretrained import Pretrained, read_decoder_config, read_pretrained
from plum_jax.interop.upcycle import upcycle
from plum_jax.model.config import DecoderConfig, MixtureOfExperts
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.text.files import TextPieces, read_text, text_from_files
from plum_jax.text.special_ids import VocabularyError

NewRows = Literal["mean", "text", "drawn"]
RUN_SETTINGS = ("dropout_rate", "dtype", "param_dtype", "remat", "scan_layers")  # a run's, not a model's
ITEMS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """Where the parameters come from before the first step (PLUM Table 5: LLM initialisation, yes or no).

    Attributes:
      pretrained: a Hugging Face directory, a `.gguf` or a llama2.c `.bin` file, whose configuration, tokenizer and
        weights are taken. None: random parameters, for the decoder that the run describes.
      new_rows: "mean": every control, field and SID token begins as the mean of the table's rows with a little noise;
        "text": SID tokens begin as the average of the texts of the items that carry their code; "drawn": every new
        token begins as a draw from the normal distribution of the table's rows, as unlike the others as words are.
      upcycle: each of the model's MLPs becomes these experts; their `mlp_dim` is the model's, whatever it says here.
      seed: of noise and routers.
      weights: False: the model's configuration and tokenizer with random parameters, which is what its weights are
        compared with.
    """

    pretrained: str | None = None
    new_rows: NewRows = "mean"
    upcycle: MixtureOfExperts | None = None
    seed: int = 0
    weights: bool = True

    def __post_init__(self) -> None:
        if self.new_rows not in get_args(NewRows):
            raise ValueError(f"expected new_rows (NEW_ROWS) to be one of {get_args(NewRows)}, got {self.new_rows!r}")
        if self.pretrained is None and (self.upcycle is not None or self.new_rows != "mean" or not self.weights):
            raise ValueError(
                "upcycle (UPCYCLE), new_rows (NEW_ROWS) and weights (PRETRAINED_WEIGHTS) say what becomes of a "
                "pre-trained model: set PRETRAINED, or for experts with random parameters take a file "
                "gin/model/moe_*.gin"
            )
        if not self.weights and self.new_rows != "mean":
            raise ValueError(
                "new_rows (NEW_ROWS) makes rows of the model's own, but all parameters are random "
                "(PRETRAINED_WEIGHTS = False): leave it 'mean'"
            )

    def read(self, run: DecoderConfig) -> Pretrained | None:
        """The pre-trained model with dropout, dtypes, remat and scan of the run, and with experts if asked for.

        Raises:
          ValueError: the run has sizes of its own.
          InteropError: a model that cannot be read.
        """
        if self.pretrained is None:
            return None
        settings = _run_settings(run)
        model = read_pretrained(
            self.pretrained, scan_layers=run.scan_layers, dtype=run.dtype, param_dtype=run.param_dtype
        )
        config, params = dataclasses.replace(model.config, **settings), model.params
        if self.upcycle is not None:
            config, params = upcycle(config, params, self._experts(config), seed=self.seed)
        return dataclasses.replace(model, config=config, params=params)

    def decoder_config(self, run: DecoderConfig) -> DecoderConfig:
        """The decoder of a run, with the configuration that `read` gives, without reading a weight."""
        if self.pretrained is None:
            return run
        config = dataclasses.replace(read_decoder_config(self.pretrained), **_run_settings(run))
        return config if self.upcycle is None else dataclasses.replace(config, moe=self._experts(config))

    def _experts(self, config: DecoderConfig) -> MixtureOfExperts:
        assert self.upcycle is not None
        return dataclasses.replace(self.upcycle, mlp_dim=config.mlp_dim)

    def grown(self, model: Pretrained, vocabulary: SidVocabulary, sources: RowSources | None) -> Any:
        """The model's parameters (host arrays) with a row for each id of the vocabulary."""
        noise = 1.0 if self.new_rows == "drawn" else HEWITT_NOISE
        return grow_vocabulary(model.params, vocabulary.vocab_size, seed=self.seed, sources=sources, noise=noise)


def pretrained_text(model: Pretrained, text_model: epath.PathLike | None) -> TextPieces:
    """The model's own tokenizer, or the one at `text_model`; new tokens come after the last row of the model's table.

    Raises:
      VocabularyError: the model comes without a tokenizer, or it is not this model's.
    """
    if text_model is not None:
        return read_text(text_model, rows=model.vocab_size)
    if not model.tokenizer_files:
        raise VocabularyError(
            "the pre-trained model comes without a tokenizer: name its .model or tokenizer.json (TEXT_MODEL)"
        )
    return text_from_files(model.tokenizer_files, rows=model.vocab_size, named_ids=model.special_ids)


def item_text_sources(
    corpus: Corpus, table: SidTable, vocabulary: SidVocabulary, learnt_items: np.ndarray
) -> RowSources:
    """For each SID token the pieces of the texts of the items that carry its code; every item has the same weight.

    So a code of level 0 begins where its items' words are, and a deeper one, which all kinds of items have, in between.

    Args:
      corpus: its text fields are read.
      table: codes [N, L].
      vocabulary: whose text side is the model's.
      learnt_items: bool [N], items that training may know of.

    Raises:
      ValueError: the corpus has no text.
    """
    if not corpus.text_fields:
        raise ValueError("expected text fields in the corpus for NEW_ROWS = 'text', got none: use 'mean'")
    new_rows = vocabulary.vocab_size - vocabulary.num_pieces
    rows_of_item = vocabulary.encode_sid(table.codes) - vocabulary.num_pieces
    texts = corpus.items.select(corpus.text_fields).fill_null("").rows()
    known = np.flatnonzero(learnt_items)
    total = scipy.sparse.csr_matrix((new_rows, vocabulary.num_pieces), dtype=np.float32)
    for start in range(0, len(known), ITEMS_AT_ONCE):
        items = known[start : start + ITEMS_AT_ONCE]
        pieces = [vocabulary.encode(" ".join(filter(None, texts[item]))) for item in items]
        lengths = np.array([len(ids) for ids in pieces])
        rows = np.repeat(rows_of_item[items], lengths, axis=0)  # [pieces, L]
        weights = np.repeat(1.0 / np.maximum(lengths, 1), lengths)
        ids = np.concatenate([np.array(ids, np.int64) for ids in pieces])
        levels = rows.shape[1]
        entries = (np.repeat(weights, levels).astype(np.float32), (rows.ravel(), np.repeat(ids, levels)))
        total = total + scipy.sparse.csr_matrix(entries, shape=total.shape)
    entries = total.tocoo()
    return RowSources(entries.row, entries.col, entries.data)


def _run_settings(run: DecoderConfig) -> dict[str, Any]:
    """What a pre-trained model takes from a run, which must say nothing else of its decoder."""
    settings = {name: getattr(run, name) for name in RUN_SETTINGS}
    nothing_else = DecoderConfig(**settings)
    names = [field.name for field in dataclasses.fields(run)]
    own = [name for name in names if getattr(run, name) != getattr(nothing_else, name)]
    if own:
        raise ValueError(
            f"a pre-trained model brings its own sizes, but the run sets {', '.join(own)}: leave the file of "
            "gin/model/ out"
        )
    return settings
