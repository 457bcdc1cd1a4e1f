"""A decoder judged as a language model while it trains: losses by kind of token, true words, samples."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax.corpus.splits import Split
from plum_jax.language.generation import Generation, LanguageModel
from plum_jax.language.match import WordMatch, match_figures
from plum_jax.language.prompts import Prompt, PromptReader
from plum_jax.language.samples import sample_rows, write_samples
from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.recommend import select_rows
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.systems.generative.phase import Phase
from plum_jax.systems.generative.token_losses import TokenLosses


@dataclasses.dataclass(frozen=True)
class LanguageEvaluation:
    """What is judged at every evaluation of both phases.

    Attributes:
      prompts: continued at every evaluation, into `samples.jsonl` beside the metrics (`PromptReader` says how they are
        written).
      generation: how.
      loss_batches: of each task of continued pre-training, at most; 0: no losses.
      match_items: items whose texts are asked for (`WordMatch`), evenly spread over those that training may know of,
        and as many of those that it may not, where the split holds items out; 0: none.
      match_tokens: of an answer.
    """

    prompts: tuple[str, ...] = ()
    generation: Generation = Generation()
    loss_batches: int = 4
    match_items: int = 100
    match_tokens: int = 16

    def judge(
        self,
        decoder: Decoder,
        vocabulary: SidVocabulary,
        table: SidTable,
        split: Split,
        templates: Mapping[str, str],
        records: epath.Path,
        cpt: Phase,
        directory: epath.Path,
    ) -> LanguageJudge:
        """The judge of one training.

        Args:
          decoder, vocabulary, table, split, templates, directory: as in `LanguageJudge`.
          records, cpt: of continued pre-training; what it leaves out is judged, and all where it leaves out nothing.
        """
        share = (cpt.share[1], 1.0) if cpt.share[1] < 1 else (0.0, 1.0)
        losses = TokenLosses(decoder, vocabulary, records, cpt.batch_size, cpt.length, self.loss_batches, share)
        return LanguageJudge(self, decoder, vocabulary, table, split, templates, losses, directory)


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageJudge:
    """`(params) -> {name: value}`, and `sample(params, step)`.

    Attributes:
      config: what is judged.
      decoder, vocabulary, table, split: of the run.
      templates: item templates of continued pre-training.
      losses: by kind of token.
      directory: of the training, for the samples.
    """

    config: LanguageEvaluation
    decoder: Decoder
    vocabulary: SidVocabulary
    table: SidTable
    split: Split
    templates: Mapping[str, str]
    losses: TokenLosses
    directory: epath.Path

    def __post_init__(self) -> None:
        _ = self._prompts  # one that cannot be read should fail before the training

    def __call__(self, params: Any) -> dict[str, float]:
        """Figures of `TokenLosses`, and of `WordMatch`, for items held out with "new_" before."""
        figures = self.losses(params) if self.config.loss_batches else {}
        for prefix, match in self._matches.items():
            found = match_figures(match.judge(self._model(params)))
            figures |= {f"{prefix}{name}": value for name, value in found.items()}
        return figures

    def sample(self, params: Any, step: int) -> None:
        """Writes what follows the prompts."""
        if not self.config.prompts:
            return
        model = self._model(params)
        found = model.generate(self._prompts, self.config.generation)
        rows = sample_rows(model, list(zip(self.config.prompts, found, strict=True)))
        write_samples(self.directory, step, rows)

    def _model(self, params: Any) -> LanguageModel:
        return LanguageModel(self.decoder, params, self.vocabulary, self.table, batch_size=64)

    @functools.cached_property
    def _prompts(self) -> list[Prompt]:
        reader = PromptReader(self.vocabulary, self.table, self.split.corpus)
        return [reader.read(text) for text in self.config.prompts]

    @functools.cached_property
    def _matches(self) -> dict[str, WordMatch]:
        known, wanted = self.split.learnt_items, self.config.match_items
        groups = {"": np.flatnonzero(known), "new_": np.flatnonzero(~known)}
        return {
            prefix: WordMatch(
                self.split.corpus, self.templates, items[select_rows(len(items), wanted)], self.config.match_tokens
            )
            for prefix, items in groups.items()
            if len(items) and wanted
        }
