"""What follows a prompt: greedily, by draws, or by beams; every Semantic ID that is written is an item's."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from plum_jax.language.grammar import Grammar, Place
from plum_jax.language.prompts import ASKED, Prompt
from plum_jax.language.reading import padded_prompts, read_prompts, read_token, reordered
from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.recommend import fastest_here
from plum_jax.retrieval.sampling import Sampling
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary


@dataclasses.dataclass(frozen=True)
class Generation:
    """How a prompt is continued.

    Attributes:
      max_tokens: of words and IDs behind the prompt; an ID that has begun is finished. A prompt that ends with a
        place for an ID is continued by that ID alone.
      temperature: 0: the likeliest token each time; else tokens are drawn (`Sampling`).
      top_p, top_k: what draws are from.
      num_samples: continuations of each prompt, where they are drawn.
      num_beams: 2 and more: the likeliest continuations as a beam of that width finds them, best first, by the sum of
        log-probabilities; a longer one is not helped.
      words_only: no Semantic IDs, control and field tokens where none is asked for.
      seed: of the draws.
    """

    max_tokens: int = 32
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    num_samples: int = 1
    num_beams: int = 1
    words_only: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.num_samples < 1 or self.num_beams < 1 or self.temperature < 0:
            raise ValueError(
                f"expected max_tokens, num_samples and num_beams of 1 or more and temperature of 0 or more, got {self}"
            )
        if self.num_beams > 1 and (self.temperature or self.num_samples > 1):
            raise ValueError(f"beams are not drawn: expected temperature 0 and 1 sample with num_beams, got {self}")
        if not self.temperature and (self.num_samples > 1 or self.top_p < 1 or self.top_k is not None):
            raise ValueError(f"num_samples, top_p and top_k are of draws: set a temperature above 0, got {self}")


@dataclasses.dataclass(frozen=True)
class Continuation:
    """What followed a prompt.

    Attributes:
      text: of the tokens; Semantic IDs read <A12><B5>.
      tokens: ids behind the prompt's first tokens, with what the prompt has between and behind its places for IDs.
      log_prob: sum over the tokens that the model chose, nats, over the whole vocabulary.
      sids: rows of `SidTable.items_of_sid()`, one for each ID that was written.
      ended: whether the model ended the text.
    """

    text: str
    tokens: tuple[int, ...]
    log_prob: float
    sids: tuple[int, ...]
    ended: bool


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel:
    """A decoder that continues prompts.

    Attributes:
      decoder, params: the model.
      vocabulary: of its tokens.
      table: the items whose IDs may be written.
      batch_size: prompts of one device call, each with all its samples or beams.
    """

    decoder: Decoder
    params: Any
    vocabulary: SidVocabulary
    table: SidTable
    batch_size: int = 16

    @functools.cached_property
    def grammar(self) -> Grammar:
        return Grammar(self.vocabulary, self.table)

    def generate(
        self, prompts: Sequence[Prompt], generation: Generation = Generation(), description: str = "generating"
    ) -> list[list[Continuation]]:
        """Continuations of each prompt: `num_samples` in the order of the draws, or `num_beams`, best first.

        A prompt's draws follow from the seed and the prompt's place in the list, whatever the batches.
        """
        decoder, params = fastest_here(self.decoder, self.params)
        assert isinstance(decoder, Decoder), "what came was one"
        found: list[list[Continuation]] = []
        # Long and short prompts apart: less padding, and answers in the order of the prompts.
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number].lead))
        for start in tqdm(range(0, len(order), self.batch_size), desc=description, delay=3, leave=False):
            numbers = order[start : start + self.batch_size]
            # Filled up: a batch of another size would be compiled anew.
            filled = (
                numbers + numbers[:1] * (self.batch_size - len(numbers)) if len(order) > self.batch_size else numbers
            )
            batch = _Batch(self, generation, [prompts[number] for number in filled], filled)
            found += batch.run(decoder, params)[: len(numbers)]
        answers: list[list[Continuation]] = [[] for _ in prompts]
        for number, continuations in zip(order, found, strict=True):
            answers[number] = continuations
        return answers


@dataclasses.dataclass
class _Row:
    """One continuation under way.

    Attributes:
      prompt: its prompt, by number in the batch.
      script: what the prompt has yet to say: tokens, and `ASKED`.
      free: tokens that the model may write behind the script.
      place: inside of a Semantic ID.
    """

    prompt: int
    script: tuple[int, ...]
    free: int
    place: Place | None = None
    tokens: tuple[int, ...] = ()
    log_prob: float = 0.0
    ended: bool = False

    @property
    def is_done(self) -> bool:
        return self.ended or (not self.script and self.place is None and self.free <= 0)

    @property
    def forced(self) -> int | None:
        """The token that the prompt has here."""
        return self.script[0] if self.script and self.script[0] != ASKED and self.place is None else None


@dataclasses.dataclass
class _Batch:
    """Some prompts, each with all its rows, read side by side."""

    model: LanguageModel
    generation: Generation
    prompts: list[Prompt]
    numbers: list[int]

    def run(self, decoder: Decoder, params: Any) -> list[list[Continuation]]:
        generation, grammar = self.generation, self.model.grammar
        width = generation.num_beams if generation.num_beams > 1 else generation.num_samples
        rows = []
        for number, prompt in enumerate(self.prompts):
            script = prompt.tokens[len(prompt.lead) :]
            free = 0 if script and script[-1] == ASKED else generation.max_tokens
            beams = [_Row(number, script, free) for _ in range(width)]
            for beam in beams[1:] if generation.num_beams > 1 else ():
                beam.log_prob = -np.inf
            rows += beams
        levels = self.model.table.num_levels
        room = max(len(row.script) + levels * row.script.count(ASKED) + row.free for row in rows) + levels
        tokens, lengths = padded_prompts([self.prompts[row.prompt].lead for row in rows])
        start = self.model.vocabulary.start_id
        room = -(-room // 16) * 16
        log_probs, read = read_prompts(decoder, params, tokens, lengths, room=room, start_token=start)
        for step in range(room):
            chosen = self._beams(rows, log_probs) if generation.num_beams > 1 else self._each(rows, log_probs, step)
            parents, written, gained = chosen
            rows = [self._after(rows[p], t, g) for p, t, g in zip(parents, written, gained, strict=True)]
            if all(row.is_done for row in rows):
                break
            if generation.num_beams > 1:
                read = reordered(read, jnp.asarray(parents, jnp.int32))
            following = jnp.asarray([0 if row.ended else row.tokens[-1] for row in rows], jnp.int32)
            log_probs, read = read_token(decoder, params, read, following)
        by_prompt = [rows[start : start + width] for start in range(0, len(rows), width)]
        real = [[row for row in some if row.log_prob > -np.inf] for some in by_prompt]
        return [[self._continuation(grammar, row) for row in some] for some in real]

    def _allowed(self, row: _Row) -> np.ndarray:
        """bool [V]: the tokens that a row may go on with."""
        grammar = self.model.grammar
        if row.place is not None:
            return grammar.codes(row.place)
        if row.script:
            return grammar.codes(grammar.root)
        return grammar.words if self.generation.words_only else grammar.anything

    def _each(self, rows: list[_Row], log_probs: jax.Array, step: int) -> tuple[list[int], list[int], list[float]]:
        """A token for each row by itself."""
        scores = np.asarray(log_probs)
        choosing = [r for r, row in enumerate(rows) if not row.is_done and row.forced is None]
        masked = np.full_like(scores, -np.inf)
        for r in choosing:
            masked[r] = np.where(self._allowed(rows[r]), scores[r], -np.inf)
        generation = self.generation
        if generation.temperature:
            sampling = Sampling(generation.temperature, generation.top_k, generation.top_p)
            width = generation.num_samples
            places = [self.numbers[row.prompt] * width + r % width for r, row in enumerate(rows)]
            masked = np.asarray(_drawn(jnp.asarray(masked), sampling, generation.seed, jnp.asarray(places), step))
        best = masked.argmax(axis=1)
        written, gained = [], []
        for r, row in enumerate(rows):
            token = row.forced if row.forced is not None else int(best[r])
            written.append(token)
            gained.append(float(scores[r, token]) if r in choosing else 0.0)
        return list(range(len(rows))), written, gained

    def _beams(self, rows: list[_Row], log_probs: jax.Array) -> tuple[list[int], list[int], list[float]]:
        """The best continuations of each prompt's beams."""
        scores, width = np.asarray(log_probs), self.generation.num_beams
        parents: list[int] = []
        written: list[int] = []
        gained: list[float] = []
        for first in range(0, len(rows), width):
            candidates: list[tuple[float, int, int, float]] = []
            for r in range(first, first + width):
                row = rows[r]
                if row.is_done or row.forced is not None:
                    candidates.append((row.log_prob, r, row.forced or 0, 0.0))
                    continue
                masked = np.where(self._allowed(row), scores[r], -np.inf)
                for token in np.argsort(-masked, kind="stable")[:width].tolist():
                    gain = float(masked[token])
                    candidates.append((row.log_prob + gain, r, token, gain))
            kept = sorted(candidates, key=lambda one: (-one[0], one[1], one[2]))[:width]
            parents += [one[1] for one in kept]
            written += [one[2] for one in kept]
            gained += [one[3] for one in kept]
        return parents, written, gained

    def _after(self, row: _Row, token: int, gain: float) -> _Row:
        """The row with one more token."""
        if row.is_done:
            return row
        grammar, vocabulary = self.model.grammar, self.model.vocabulary
        asked = bool(row.script) and row.script[0] == ASKED
        forced = row.forced is not None
        script, free, place = row.script, row.free, row.place
        if forced:
            script = script[1:]
        else:
            place = grammar.after(place, token)
            if asked and place is None:
                script = script[1:]
            free -= 0 if asked else 1
        ended = not forced and token == vocabulary.eos_id
        tokens = row.tokens if ended else (*row.tokens, token)
        return _Row(row.prompt, script, free, place, tokens, row.log_prob + gain, ended)

    def _continuation(self, grammar: Grammar, row: _Row) -> Continuation:
        vocabulary, table = self.model.vocabulary, self.model.table
        ids = np.array(row.tokens, np.int32)
        # A prompt may say the first codes of an ID; those of whole ones are counted.
        whole = [
            ids[i : i + table.num_levels]
            for i in range(len(ids) - table.num_levels + 1)
            if _is_whole(ids[i : i + table.num_levels], vocabulary)
        ]
        sids = table.lookup(vocabulary.decode_sid(np.stack(whole))).tolist() if whole else []
        return Continuation(vocabulary.decode(row.tokens), row.tokens, row.log_prob, tuple(sids), row.ended)


def _is_whole(ids: np.ndarray, vocabulary: SidVocabulary) -> bool:
    codes = ids - vocabulary.sid_offsets
    return bool(((codes >= 0) & (codes < np.asarray(vocabulary.codebook_sizes))).all())


@functools.partial(jax.jit, static_argnames=("sampling", "seed"))
def _drawn(scores: jax.Array, sampling: Sampling, seed: int, places: jax.Array, step: int) -> jax.Array:
    """Scores [R, V] whose greatest is a draw (Gumbel's trick), by the seed, the row's place [R] and the step alone."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(places)
    noise = jax.vmap(lambda one: jax.random.gumbel(one, scores.shape[1:]))(keys)
    return sampling.log_probs(scores) + noise
