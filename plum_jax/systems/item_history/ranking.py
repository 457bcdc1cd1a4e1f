"""Ranks by what the codes of an item are worth and by its dense score, over what either of the two finds."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.corpus.event_fields import UNKNOWN
from plum_jax.corpus.features.block import normalised
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.metrics import NOTHING, RankedItems, target_ranks
from plum_jax.evaluation.system import Ranking
from plum_jax.model.depth_decoder import level_offsets
from plum_jax.model.item_history import ItemHistoryNetwork, Items
from plum_jax.model.item_history_decoder import ItemHistoryDecoder, search_params
from plum_jax.model.repeats import repeat_scores
from plum_jax.ragged import Ragged, from_rows
from plum_jax.retrieval.recommend import Recommender, rank_items
from plum_jax.systems.item_history.known import Known
from plum_jax.systems.scored_items import in_blocks

_ITEMS, _USERS = 4096, 256  # of one device call
_NEW = 256  # items whose likeness to all others is in memory at a time
NEIGHBOURS = 3  # whose rows a new item takes; on MovieLens-1M better than 10, 30 and 100 (experiments/LOG.md)


@dataclasses.dataclass(frozen=True)
class CodeTokens:
    """The vocabulary of a depth decoder: the codes of all levels, and nothing else."""

    codebook_sizes: tuple[int, ...]
    start_id: int = 0

    @property
    def sid_offsets(self) -> np.ndarray:
        """int64 [L], token of code 0 at each level."""
        return np.array(level_offsets(self.codebook_sizes))

    @property
    def vocab_size(self) -> int:
        """Codes of all levels."""
        return sum(self.codebook_sizes)

    @property
    def fingerprint(self) -> str:
        return artifact.fingerprint(self.codebook_sizes)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemHistoryRanker:
    """Everything that ranks but the parameters.

    Attributes:
      network: that is trained.
      known: what is known of items and events.
      history_length: the latest items of a history that are read.
      num_beams: width of the search, and number of candidates of the dense head.
      dense_share: w of a candidate's score (1 - w) log p(its codes) + w log p(item among all items); 0 searches
        by beams alone, 1 ranks all items by the dense head alone. A new item has the second alone: training has
        never written its codes.
    """

    network: ItemHistoryNetwork
    known: Known
    history_length: int
    num_beams: int
    dense_share: float

    @property
    def recommender(self) -> Recommender:
        """The beam search over this network."""
        network, table = self.network, self.known.table
        decoder = ItemHistoryDecoder(network.config, network.codebook_sizes, network.num_items, network.field_sizes)
        return Recommender(decoder, CodeTokens(table.codebook_sizes), table, self.num_beams, batch_size=_USERS)

    def vectors(self, params: Any) -> np.ndarray:
        """float32 [N, D] of all items.

        An item that was not in training has no row of its own. It takes the mean row of its nearest in training, by
        features, or by codes where items are read without: left at zero its scores are on another scale than theirs.
        """
        ids = np.arange(self.network.num_items, dtype=np.int32)
        run = functools.partial(_vectors, self.network, params)
        found = in_blocks(lambda some: run(self.known.items(some)), min(_ITEMS, len(ids)), ids)
        new = ~self.known.in_training
        if new.any() and self.network.config.item_ids:
            rows = np.where(new[:, None], 0.0, np.asarray(params["items"]["ids"], np.float32))
            content = self.known.features if self.known.features.shape[1] else found - rows
            found[new] += mean_of_nearest(rows, content, new)
        return found

    def target_nats(self, params: Any, evaluation: EvaluationSet) -> np.ndarray:
        """float32 [U, L]: -log p of each code of each user's target, after the codes before it."""
        searching = search_params(params, jnp.asarray(self.vectors(params)))
        states = self._states(searching, self.prompts(evaluation))
        run = functools.partial(_code_nats, self.network, params)
        return in_blocks(lambda s, c: run(s[:, None], c[:, None]), _USERS, states, self._codes[evaluation.target_item])

    @property
    def _codes(self) -> np.ndarray:
        return self.known.table.codes

    def prompts(self, evaluation: EvaluationSet) -> Ragged:
        """The latest events of each user's history, 1 + F numbers an event: what a search reads."""
        events = evaluation.history_events[:, None]
        known = np.where(events >= 0, self.known.events.buckets[events[:, 0]], UNKNOWN)
        numbers = np.concatenate([evaluation.history_items[:, None], known], axis=1).astype(np.int32)
        offsets = evaluation.history_offsets
        begins = np.maximum(offsets[:-1], offsets[1:] - self.history_length)
        return from_rows([numbers[begin:end].ravel() for begin, end in zip(begins, offsets[1:], strict=True)])

    def _states(self, searching: Any, prompts: Ragged) -> np.ndarray:
        read = prompts.padded(np.arange(len(prompts)), self.history_length * (1 + len(self.network.field_sizes)))
        lengths = prompts.lengths.astype(np.int32)
        return in_blocks(functools.partial(_states, self.recommender.decoder, searching), _USERS, read, lengths)

    def parts(self, params: Any, evaluation: EvaluationSet, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the scores of some items [U, K] are made of: log p of the item among all, float32 [U, K], and log p of
        each of its codes after those before, float32 [U, K, L].
        """
        vectors = jnp.asarray(self.vectors(params))
        states = jnp.asarray(self._states(search_params(params, vectors), self.prompts(evaluation)))
        codes, seen = self._codes[items], _seen_rows(evaluation, self._added(params, evaluation))
        dense = _dense_scores(vectors, states, items, *seen)
        nats = _code_nats(self.network, params, jnp.repeat(states[:, None], items.shape[1], axis=1), codes)
        return np.asarray(dense), -np.asarray(nats).reshape(codes.shape)

    def _added(self, params: Any, evaluation: EvaluationSet) -> np.ndarray:
        """float32, by event of the histories: what it is worth that its item was seen."""
        worth: Any = self.network.apply({"params": params}, method="repeat_worth")
        return repeat_scores(np.asarray(worth), evaluation.history_items, evaluation.history_offsets)

    def rank(self, params: Any, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user."""
        vectors = self.vectors(params)
        searching = search_params(params, jnp.asarray(vectors))
        prompts = self.prompts(evaluation)
        seen = Ragged(evaluation.history_items, np.diff(evaluation.history_offsets))
        recommender, table = self.recommender, self.known.table
        sid_ranks = None
        if self.dense_share < 1:
            codes, log_probs = recommender.search(searching, prompts, description="beam search")
            sid_ranks = target_ranks(table.lookup(codes), table.lookup(table.codes[evaluation.target_item]))
        if self.dense_share == 0:
            items, _ = rank_items(codes, log_probs, table, k)
            unseen, scores = rank_items(codes, log_probs, table, k, seen)
            return Ranking(RankedItems(items, unseen), scores, sid_ranks)
        states, added = self._states(searching, prompts), self._added(params, evaluation)
        if self.dense_share == 1:
            lists, dense = exact_top_k(states, vectors, evaluation, k, added=added)
            return Ranking(lists, dense)
        beamed, _ = rank_items(codes, log_probs, table, self.num_beams)
        by_score, _ = exact_top_k(states, vectors, evaluation, self.num_beams, added=added)
        candidates = np.concatenate([beamed, by_score.items, by_score.unseen], axis=1)
        candidates = _without_repeats(candidates)
        scored = functools.partial(_candidate_scores, self.network, params, jnp.asarray(vectors))
        share = np.where(self.known.in_training, self.dense_share, 1.0).astype(np.float32)
        codes_of = np.concatenate([table.codes, table.codes[:1]])  # NOTHING is -1: any row, its score is dropped
        rows, more = _seen_rows(evaluation, added)
        values = in_blocks(
            lambda s, c, i, a: scored(s, c, share[c], codes_of[c], i, a), _USERS, states, candidates, rows, more
        )
        values = np.where(candidates == NOTHING, -np.inf, values)
        items, _ = _first(candidates, values, k)
        unseen, scores = _first(candidates, np.where(_among(candidates, seen), -np.inf, values), k)
        return Ranking(RankedItems(items, unseen), scores, sid_ranks)


@functools.partial(jax.jit, static_argnums=0)
def _vectors(network: ItemHistoryNetwork, params: Any, items: Items) -> jax.Array:
    found: Any = network.apply({"params": params}, items, method="vectors")
    return found.astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _states(decoder: ItemHistoryDecoder, params: Any, prompts: jax.Array, lengths: jax.Array) -> jax.Array:
    found: Any = decoder.apply({"params": params}, prompts, lengths, method="states")
    return found[:, 0].astype(jnp.float32)


@jax.jit
def _dense_scores(
    vectors: jax.Array, states: jax.Array, items: jax.Array, seen: jax.Array, added: jax.Array
) -> jax.Array:
    """float32 [U, C]: log p of some items [U, C] among all; scores of the items `seen` [U, S] get `added` [U, S]."""
    scores = jnp.einsum("UD,ND->UN", states, vectors, preferred_element_type=jnp.float32)
    scores = scores.at[jnp.arange(len(scores))[:, None], seen].add(added)
    return jnp.take_along_axis(scores, items, axis=1) - jax.nn.logsumexp(scores, axis=1, keepdims=True)


@functools.partial(jax.jit, static_argnums=0)
def _candidate_scores(
    network: ItemHistoryNetwork,
    params: Any,
    vectors: jax.Array,
    states: jax.Array,
    candidates: jax.Array,
    dense_share: jax.Array,
    codes: jax.Array,
    seen: jax.Array,
    added: jax.Array,
) -> jax.Array:
    """float32 [U, C]: both log-probabilities of each candidate [U, C] with `codes` [U, C, L], weighted by `dense_share`
    [U, C].
    """
    dense = _dense_scores(vectors, states, candidates, seen, added)
    repeated = jnp.repeat(states[:, None], candidates.shape[1], axis=1)
    nats = jnp.sum(_code_nats(network, params, repeated, codes), axis=-1)
    return dense_share * dense - (1 - dense_share) * nats.reshape(candidates.shape)


@functools.partial(jax.jit, static_argnums=0)
def _code_nats(network: ItemHistoryNetwork, params: Any, states: jax.Array, codes: jax.Array) -> jax.Array:
    """float32 [B x T, L]: -log p of each code [B, T, L] after the states [B, T, D] and the codes before it."""
    apply = functools.partial(network.apply, {"params": params})
    hidden: Any = apply(states.astype(network.config.transformer.dtype), codes, method="depth_states")
    flat, nats = codes.reshape(-1, codes.shape[-1]), []
    for level in range(codes.shape[-1]):
        logits = jnp.asarray(apply(hidden[:, level], level, method="code_logits"))
        chosen = jnp.take_along_axis(logits, flat[:, level, None], axis=1)[:, 0]
        nats.append(jax.nn.logsumexp(logits, axis=-1) - chosen)
    return jnp.stack(nats, axis=-1)


def _seen_rows(evaluation: EvaluationSet, added: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Items of the histories [U, S], and what is added to their scores (by event), [U, S]; zeros on the right."""
    lengths = np.diff(evaluation.history_offsets)
    every, longest = np.arange(len(lengths)), int(lengths.max(initial=1))
    of_items, of_added = (Ragged(values, lengths) for values in (evaluation.history_items, added))
    return of_items.padded(every, longest), of_added.padded(every, longest)


def mean_of_nearest(rows: np.ndarray, content: np.ndarray, new: np.ndarray) -> np.ndarray:
    """float32 [n, D]: for each new item (bool [N], n of them) the mean of the `rows` [N, D] of the others with the
    greatest cosine of `content` [N, F] to its own; zeros where it has none.
    """
    unit, learnt = normalised(content), np.flatnonzero(~new)
    asked, found = unit[new], []
    for start in range(0, len(asked), _NEW):
        some = asked[start : start + _NEW]
        near = np.argsort(-some @ unit[learnt].T, axis=1, kind="stable")[:, :NEIGHBOURS]
        found.append(rows[learnt][near].mean(axis=1) * some.any(axis=1, keepdims=True))
    return np.concatenate(found)


def _without_repeats(candidates: np.ndarray) -> np.ndarray:
    """The same rows, ascending, every repeat replaced by NOTHING."""
    ordered = np.sort(candidates, axis=1)
    repeats = np.diff(ordered, axis=1, prepend=NOTHING - 1) == 0
    return np.where(repeats, NOTHING, ordered)


def _first(candidates: np.ndarray, values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k candidates of greatest value, the lower index where values are equal; NOTHING where there are no more."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    found, best = (np.take_along_axis(x, order, axis=1) for x in (candidates, values))
    found = np.where(best > -np.inf, found, NOTHING).astype(np.int32)
    missing = ((0, 0), (0, k - found.shape[1]))
    return np.pad(found, missing, constant_values=NOTHING), np.pad(best, missing, constant_values=-np.inf)


def _among(candidates: np.ndarray, seen: Ragged) -> np.ndarray:
    """bool [U, C]: candidates that the user has seen."""
    users, most = len(candidates), int(max(candidates.max(initial=0), seen.values.max(initial=0))) + 1
    pairs = np.repeat(np.arange(users), seen.lengths) * most + seen.values
    return np.isin(np.arange(users)[:, None] * most + candidates, pairs)
