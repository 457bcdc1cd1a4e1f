"""A language model that rewrites queries: what it writes is always a query that users have."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.token_rows import TokenRows, token_rows
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.next_token import NextToken
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.rewrite_pairs import KINDS, Kind, RewritePairs
from plum_jax.query_understanding.training import Schooling
from plum_jax.ranking.ranker import trained_facts
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.trie import SidTrie
from plum_jax.text.files import TextPieces
from plum_jax.training import trainer
from plum_jax.training.initial import initial_params
from plum_jax.training.training_config import in_steps

START_TOKEN = 0
_QUERIES_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Rewriter:
    """Continues "broader : red nail polish =>" by a query. The pieces of all queries that may be written are a trie, as
    items' Semantic IDs are elsewhere, and the same beam search goes over it.

    Attributes:
      pairs: that it learns from.
      model: what it begins with.
      prompt_length, target_length: tokens at most, with the end. A longer query is cut, and never written.
      schooling: how it is trained.
    """

    pairs: RewritePairs = RewritePairs()
    model: LanguageModel = LanguageModel()
    prompt_length: int = 20
    target_length: int = 8
    schooling: Schooling = Schooling()

    def fit(self, log: QueryLog, directory: epath.Path) -> FittedRewriter:
        """Trains, or goes on, or reads what was trained."""
        pairs = self.pairs.of(log)
        start = self.model.start([log.texts[query] for query in log.learnt_queries], directory)
        text = start.text
        kinds = [KINDS[kind] for kind in pairs.kind]
        prompts = prompt_rows(text, kinds, [log.texts[query] for query in pairs.query], self.prompt_length)
        targets = token_rows(text, [log.texts[query] for query in pairs.target], self.target_length)
        batches = ArrayBatches(
            joined_rows(prompts, targets),
            min(self.schooling.batch_size, len(pairs.kind)),
            self.schooling.training.seed,
        )
        training = in_steps(self.schooling, batches.steps_per_epoch).training
        decoder = Decoder(start.decoder, start.vocab_size)
        params = trainer.train(
            training,
            directory=directory,
            init_params=initial_params(decoder, start.params),
            objective=NextToken().on(decoder, training.mesh.build()),
            feed=batches,
            fingerprints={
                "log": log.fingerprint,
                "model": start.fingerprint,
                "rewriter": artifact.fingerprint(self),
            },
            tokens_per_step=batches.batch_size * (self.prompt_length + self.target_length),
            description=directory.name,
            described={"rewriter": self},
        )
        frequent = [log.texts[query] for query in np.flatnonzero(log.frequency >= self.pairs.least)]
        allowed = [one for one in frequent if len(text.encode(one)) < self.target_length]
        counted = {kind: int((pairs.kind == number).sum()) for number, kind in enumerate(KINDS)}
        facts = {"pairs": counted, "steps": training.steps, **trained_facts(params, directory)}
        return FittedRewriter(self, decoder, params, text, tuple(allowed), facts)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedRewriter:
    """A trained `Rewriter`.

    Attributes:
      config: of it.
      decoder, params: the model.
      text: its pieces.
      allowed: the queries that it may write.
      facts: for `results.jsonl`.
    """

    config: Rewriter
    decoder: Decoder
    params: Any
    text: TextPieces
    allowed: tuple[str, ...]
    facts: Mapping[str, Any]

    @functools.cached_property
    def _trie(self) -> tuple[SidTrie, dict[tuple[int, ...], str]]:
        """The trie, and the query that each row of pieces is."""
        rows = token_rows(self.text, self.allowed, self.config.target_length).tokens
        end = self.text.special_ids.eos
        assert end is not None, "rows of tokens have ends"
        behind = np.cumsum(rows == end, axis=1) > 0
        codes = np.where(behind, end, rows)  # filled with the end
        of_row = {tuple(row): query for row, query in zip(codes.tolist(), self.allowed, strict=True)}
        return SidTrie.from_codes(codes, (self.decoder.vocab_size,) * self.config.target_length), of_row

    @functools.cached_property
    def _on_device(self) -> Any:
        return jax.device_put(self.params)

    def rewrites(self, kind: Kind, texts: Sequence[str], count: int) -> list[list[str]]:
        """Up to `count` queries for each, the likeliest first; never the query itself.

        Raises:
          ValueError: an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"expected a kind of rewrite of {', '.join(KINDS)}, got {kind!r}")
        trie, of_row = self._trie
        levels, beams = self.config.target_length, min(count + 1, len(self.allowed))
        prompts = prompt_rows(self.text, [kind] * len(texts), texts, self.config.prompt_length)
        found: list[list[str]] = []
        for start in range(0, len(texts), _QUERIES_AT_ONCE):
            rows = np.minimum(np.arange(start, start + _QUERIES_AT_ONCE), len(texts) - 1)  # one shape of batches
            codes, log_probs = beam_search(
                self.decoder,
                self._on_device,
                jnp.asarray(prompts.tokens[rows]),
                jnp.asarray(prompts.lengths[rows]),
                sid_offsets=(0,) * levels,
                codebook_sizes=(self.decoder.vocab_size,) * levels,
                num_beams=beams,
                trie=trie,
                scores="renormalised",  # behind its end a query goes on in one way: that is certain
                start_token=START_TOKEN,
            )
            real = np.asarray(log_probs) > -np.inf
            for row, kept in zip(np.asarray(codes).tolist(), real, strict=True):
                found.append([of_row[tuple(one)] for one, there in zip(row, kept, strict=True) if there])
        return [
            [one for one in written if one != text][:count]
            for text, written in zip(texts, found[: len(texts)], strict=True)
        ]


def prompt_rows(text: TextPieces, kinds: Sequence[str], queries: Sequence[str], length: int) -> TokenRows:
    """Prompts, their end left out: a query follows."""
    rows = token_rows(text, [f"{kind} : {query} =>" for kind, query in zip(kinds, queries, strict=True)], length)
    lengths = rows.lengths - 1
    return TokenRows(np.where(np.arange(length) < lengths[:, None], rows.tokens, 0), lengths)


def joined_rows(prompts: TokenRows, targets: TokenRows) -> dict[str, np.ndarray]:
    """Each prompt with its target behind it, as `NextToken` reads them; the target alone is learnt."""
    length = prompts.tokens.shape[1] + targets.tokens.shape[1]
    places = np.arange(length)
    behind = places - prompts.lengths[:, None]
    is_target = (behind >= 0) & (behind < targets.lengths[:, None])
    written = np.take_along_axis(targets.tokens, np.clip(behind, 0, targets.tokens.shape[1] - 1), axis=1)
    tokens = np.pad(prompts.tokens, ((0, 0), (0, targets.tokens.shape[1])))
    tokens = np.where(is_target, written, tokens).astype(np.int32)
    inputs = np.concatenate([np.full((len(tokens), 1), START_TOKEN, np.int32), tokens[:, :-1]], axis=1)
    real = places < (prompts.lengths + targets.lengths)[:, None]
    return {
        "decoder_input_tokens": inputs,
        "decoder_target_tokens": tokens,
        "decoder_positions": np.broadcast_to(places, tokens.shape).astype(np.int32),
        "decoder_segment_ids": real.astype(np.int32),
        "decoder_loss_weights": is_target.astype(np.float32),
    }
