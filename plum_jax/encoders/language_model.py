"""The language model that a reader of text begins with: another program's, all of it or its first layers, or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.encoders.network import TrunkConfig, trunk_name
from plum_jax.encoders.token_rows import TokenRows, token_rows
from plum_jax.interop.bert import is_bert, read_bert
from plum_jax.interop.pretrained import read_pretrained
from plum_jax.model.bert import BertConfig
from plum_jax.model.config import DecoderConfig
from plum_jax.text.files import TextPieces, read_text, text_fingerprint, text_from_files
from plum_jax.text.sentence_piece import SentencePieceText, train_sentencepiece
from plum_jax.text.special_ids import VocabularyError

SMALL = DecoderConfig(num_layers=4, d_model=128, num_heads=4, num_kv_heads=4, head_dim=32, mlp_dim=352)


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """Text pieces and a decoder, or a BERT, with its parameters, to be trained on for a task.

    Attributes:
      pretrained: a Hugging Face directory (of a BERT too), a `.gguf` or a llama2.c `.bin` file with its tokenizer.
        None: `decoder` with random parameters and pieces that are trained on the task's own texts.
      layers: the first so many of the model's layers are kept; None: all.
      weights: False: the model's sizes and pieces with random parameters, its weights' rival.
      decoder: sizes where nothing is `pretrained`.
      num_pieces: of SentencePiece there.
      dropout_rate: of either, in training.
    """

    pretrained: str | None = None
    layers: int | None = None
    weights: bool = True
    decoder: DecoderConfig = SMALL
    num_pieces: int = 4000
    dropout_rate: float = 0.1

    def start(self, texts: Iterable[str], directory: epath.PathLike) -> LanguageModelStart:
        """What training begins with.

        Args:
          texts: of training, which pieces are made of where nothing is pretrained.
          directory: where these pieces are written, or are already.

        Raises:
          VocabularyError: a model without a tokenizer, or `num_pieces` that does not fit the texts.
          InteropError: a model that cannot be read.
          ValueError: more `layers` than there are.
        """
        if self.pretrained is None:
            path = epath.Path(directory) / SentencePieceText.FILE
            if not path.exists():
                train_sentencepiece(texts, self.num_pieces, path)
            text = read_text(path)
            return LanguageModelStart(text, self._sizes(self.decoder), text.num_pieces, None)
        path = self.pretrained
        model = read_bert(path) if is_bert(path) else read_pretrained(path, scan_layers=False)
        if not model.tokenizer_files:
            raise VocabularyError(f"{path} comes without a tokenizer: put it beside the weights")
        text = text_from_files(model.tokenizer_files, rows=model.vocab_size, named_ids=model.special_ids)
        config = self._sizes(model.config)
        params = first_layers(model.params, config.num_layers) if self.weights else None
        return LanguageModelStart(text, config, model.vocab_size, params)

    def _sizes(self, config: TrunkConfig) -> TrunkConfig:
        layers = config.num_layers if self.layers is None else self.layers
        if not 1 <= layers <= config.num_layers:
            raise ValueError(f"expected 1 to {config.num_layers} layers, as the model has, got layers={layers}")
        return with_layers(dataclasses.replace(config, dropout_rate=self.dropout_rate), layers)


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModelStart:
    """What training begins with.

    Attributes:
      text: pieces.
      config: of the decoder, layers not scanned, or of the BERT.
      vocab_size: V, rows of its table.
      params: of `Decoder(config, vocab_size)` or `Bert(config, vocab_size)`, host arrays; None: random ones.
    """

    text: TextPieces
    config: TrunkConfig
    vocab_size: int
    params: Any

    @property
    def is_bert(self) -> bool:
        """Whether tokens see the whole text and texts are marked by tokens of their own."""
        return isinstance(self.config, BertConfig)

    @property
    def encoder_params(self) -> Any:
        """`params` as those of a `TextEncoder`; None where there are none."""
        return None if self.params is None else {trunk_name(self.config): self.params}

    @property
    def decoder(self) -> DecoderConfig:
        """The configuration, for those that write.

        Raises:
          ValueError: a BERT, which reads alone.
        """
        if isinstance(self.config, BertConfig):
            raise ValueError("expected a causal language model, for it is to write: a BERT reads texts and writes none")
        return self.config

    def rows(self, texts: Iterable[str], length: int) -> TokenRows:
        """Texts as tokens, as the model was trained on them: BERT's between [CLS] and [SEP], others with an end."""
        return token_rows(self.text, texts, length, self.text.special_ids.bos if self.is_bert else None)

    @property
    def fingerprint(self) -> str:
        """Of all that decides what training begins with, but the seed."""
        weights = "" if self.params is None else artifact.tree_fingerprint(self.params)
        return artifact.fingerprint(text_fingerprint(self.text), self.config, weights)


def with_layers(config: TrunkConfig, layers: int) -> TrunkConfig:
    """The configuration with the first `layers` of its layers, not scanned."""
    if isinstance(config, BertConfig):
        return dataclasses.replace(config, num_layers=layers)
    windows = config.layer_windows[:layers]
    return dataclasses.replace(config, num_layers=layers, layer_windows=windows, scan_layers=False)


def first_layers(params: Any, layers: int) -> Any:
    """A trunk's parameters (layers not scanned) with the first `layers` of its layers, and all that is no layer."""
    kept = {f"layer_{number}" for number in range(layers)}
    transformer = {
        name: tree for name, tree in params["transformer"].items() if not name.startswith("layer_") or name in kept
    }
    return {**params, "transformer": transformer}
