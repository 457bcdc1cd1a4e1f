"""From prompts to items: batched beam search over any number of users, and Semantic IDs turned into items."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from plum_jax.evaluation.metrics import NOTHING
from plum_jax.model.blockwise_attention import BlockwiseAttention
from plum_jax.model.decoder import Decoder
from plum_jax.model.item_history_decoder import ItemHistoryDecoder
from plum_jax.model.unrolled import unrolled
from plum_jax.ragged import Ragged
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.beams import Params, Scores
from plum_jax.retrieval.diverse_beams import distinct, diverse_beam_search
from plum_jax.retrieval.exclusion import exclude_items
from plum_jax.retrieval.length_batches import length_batches
from plum_jax.retrieval.sampling import Sampling, sample
from plum_jax.retrieval.sorted_sids import SortedSids
from plum_jax.retrieval.trie import SidTrie
from plum_jax.semantic_ids.table import SidTable

AnyDecoder = Decoder | ItemHistoryDecoder
_Search = Callable[[np.ndarray, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class SidTokenIds(Protocol):
    """What a search must know of a vocabulary: a `SidVocabulary`, or the codes alone."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]: ...

    @property
    def sid_offsets(self) -> np.ndarray: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def start_id(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Recommender:
    """A decoder with what its tokens mean: everything but the parameters.

    Attributes:
      decoder: its `vocab_size` is the vocabulary's, or more.
      vocabulary: where the SID tokens are.
      table: the items of each SID.
      num_beams: M; wider finds more, at a cost that grows in proportion.
      batch_size: users in one device call. Small is fast on CPU (a batch must fit its caches); use hundreds on a TPU.
      num_buckets: prompts are padded to at most so many lengths, each compiled once.
      item_sets: what users can be constrained to: each a bool mask [N], item numbers, or None for all items.
      beam_groups, beam_penalty: G groups of beams that search one after the other, each kept from the codes of those
        before by so many nats (`diverse_beams`); 1: one search.
    """

    decoder: AnyDecoder
    vocabulary: SidTokenIds
    table: SidTable
    num_beams: int = 32
    batch_size: int = 16
    num_buckets: int = 4
    item_sets: tuple[np.ndarray | None, ...] = (None,)
    beam_groups: int = 1
    beam_penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.vocabulary.codebook_sizes != self.table.codebook_sizes:
            raise ValueError(
                f"the vocabulary has SID tokens for codebooks {self.vocabulary.codebook_sizes}, the SidTable has "
                f"{self.table.codebook_sizes}: use the vocabulary that was made from this table"
            )
        if self.decoder.vocab_size < self.vocabulary.vocab_size:
            raise ValueError(
                f"the decoder has {self.decoder.vocab_size} tokens, the vocabulary {self.vocabulary.vocab_size}"
            )

    @functools.cached_property
    def trie(self) -> SidTrie:
        """Of all item sets."""
        return SidTrie.build(SortedSids.from_codes(self.table.codes, self.table.codebook_sizes), self.item_sets)

    def search(
        self,
        params: Params,
        prompts: Ragged,
        *,
        constrained: bool = True,
        sets: np.ndarray | None = None,
        exclude: Ragged | None = None,
        scores: Scores = "model",
        description: str = "beam search",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Beam search after every prompt.

        Args:
          params: the decoder's.
          prompts: tokens before each target.
          constrained: only SIDs of the table; else any codes.
          sets: int [U], which of `item_sets` each user's items are to be from; None: the first.
          exclude: items that each user must not get: the search is one over the others, as wide as ever. A SID stays as
            long as one of its items does, so `rank_items` has to drop the items.
          scores: normalised over the whole vocabulary ("model"), or over the codes that exist at each step
            ("renormalised").
          description: of the progress bar.

        Returns:
          codes int32 [U, M, L] and log_probs float32 [U, M], in the order of the prompts, best first, ended by
          -1 and -inf.
        """
        decoder, params = fastest_here(self.decoder, params)

        def search(rows: np.ndarray, tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
            arguments = self._arguments(rows, constrained, sets, exclude) | {"scores": scores}
            if self.beam_groups == 1:
                return beam_search(decoder, params, tokens, lengths, num_beams=self.num_beams, **arguments)
            groups = {"num_groups": self.beam_groups, "penalty": self.beam_penalty}
            return diverse_beam_search(
                decoder, params, tokens, lengths, num_beams=self.num_beams, **groups, **arguments
            )

        found = self._in_batches(search, prompts, self.num_beams, description)
        return found if self.beam_groups == 1 else distinct(*found)

    def sample(
        self,
        params: Params,
        prompts: Ragged,
        *,
        num_samples: int,
        seed: int = 0,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        sets: np.ndarray | None = None,
        exclude: Ragged | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """SIDs of the table drawn after every prompt; arguments as in `search`.

        A user's draws follow from `seed` and the user's row, whatever the batches.

        Returns:
          codes int32 [U, num_samples, L] and log_probs float32 [U, num_samples] of what they were drawn from; -1 and
          -inf where there is nothing (more) to draw.
        """
        decoder, params = fastest_here(self.decoder, params)
        key = jax.random.key(seed)

        def draw(rows: np.ndarray, tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
            keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.asarray(rows, jnp.uint32))
            arguments = self._arguments(rows, True, sets, exclude)
            return sample(
                decoder, params, tokens, lengths, keys, num_samples=num_samples, sampling=sampling, **arguments
            )

        return self._in_batches(draw, prompts, num_samples, "sampling")

    def _arguments(
        self, rows: np.ndarray, constrained: bool, sets: np.ndarray | None, exclude: Ragged | None
    ) -> dict[str, Any]:
        """What all searches of a batch are told of tokens, items and users."""
        sets = np.zeros(len(rows), np.int32) if sets is None else sets[rows].astype(np.int32)
        excluded = None
        if exclude is not None:
            user = np.repeat(np.arange(len(rows)), exclude.lengths[rows])
            item = exclude.of(rows)
            item_sets = self.item_sets if constrained else (None,)
            excluded = exclude_items(self.table.items_of_sid(), user, item, sets, item_sets)
        return {
            "sid_offsets": tuple(int(offset) for offset in self.vocabulary.sid_offsets),
            "codebook_sizes": self.table.codebook_sizes,
            "trie": self.trie if constrained else None,
            "sets": jnp.asarray(sets),
            "excluded": excluded,
            "start_token": self.vocabulary.start_id,
        }

    def _in_batches(self, run: _Search, prompts: Ragged, width: int, description: str) -> tuple[np.ndarray, np.ndarray]:
        """`run(rows, tokens, lengths)` on batches of nearly equal length; answers in the order of the prompts."""
        users = len(prompts.lengths)
        codes = np.full((users, width, self.table.num_levels), NOTHING, np.int32)
        log_probs = np.full((users, width), -np.inf, np.float32)
        with tqdm(total=users, desc=description, unit=" users", disable=users < 1000) as progress:
            for rows, length in length_batches(prompts.lengths, self.batch_size, self.num_buckets):
                # The last batch of a length is filled up with its first row: a shape of its own would compile again.
                filled = np.concatenate([rows, np.repeat(rows[:1], self.batch_size - len(rows))])
                tokens = jnp.asarray(prompts.padded(filled, length))
                found = run(filled, tokens, jnp.asarray(prompts.lengths[filled], jnp.int32))
                batch_codes, batch_log_probs = jax.device_get(found)
                codes[rows], log_probs[rows] = batch_codes[: len(rows)], batch_log_probs[: len(rows)]
                progress.update(len(rows))
        return codes, log_probs


def fastest_here(decoder: AnyDecoder, params: Params) -> tuple[AnyDecoder, Params]:
    """The decoder as a CPU computes it fastest, where that is what there is; elsewhere as it came."""
    if jax.default_backend() != "cpu" or not isinstance(decoder, Decoder):
        return decoder, params
    decoder, params = unrolled(decoder, params)
    return decoder.clone(attention=BlockwiseAttention()), params


def rank_items(
    codes: np.ndarray, log_probs: np.ndarray, table: SidTable, k: int, seen: Ragged | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The first `k` items of each user's beams: every item that has the SID, in the order of `item_rank`.

    Args:
      codes: int32 [U, M, L], best first; SIDs that no item has are passed over.
      log_probs: float32 [U, M].
      table: says which items have a SID.
      k: length of the lists.
      seen: items to leave out for each user; None leaves out nothing.

    Returns:
      items int32 [U, k] (-1 where the beams gave no more) and scores float32 [U, k], the log-probability of the item's
      SID (items that share one share it), -inf where there is no item.
    """
    index = table.items_of_sid()
    users, beams = log_probs.shape
    sid = index.lookup(codes)
    num_seen = np.zeros(users, np.int64) if seen is None else seen.lengths
    # A user needs the first k + |seen| items at the most, however many share a SID.
    shared = np.where(sid >= 0, index.offsets[sid + 1] - index.offsets[sid], 0)
    earlier = np.cumsum(shared, axis=1) - shared
    taken = np.clip((k + num_seen)[:, None] - earlier, 0, shared).ravel()
    beam = np.repeat(np.arange(users * beams), taken)
    within = np.arange(len(beam)) - np.repeat(np.cumsum(taken) - taken, taken)
    item = index.items[index.offsets[sid.ravel()[beam]] + within]
    user = beam // beams
    if seen is not None:
        pairs = np.repeat(np.arange(users), num_seen) * table.num_items + seen.values
        fresh = ~np.isin(user * table.num_items + item, pairs)
        beam, item, user = beam[fresh], item[fresh], user[fresh]
    place = np.arange(len(user)) - np.searchsorted(user, user)
    items = np.full((users, k), NOTHING, np.int32)
    scores = np.full((users, k), -np.inf, np.float32)
    kept = place < k
    items[user[kept], place[kept]] = item[kept]
    scores[user[kept], place[kept]] = log_probs.ravel()[beam[kept]]
    return items, scores


def select_rows(rows: int, wanted: int | None) -> np.ndarray:
    """`wanted` of `rows` row numbers, evenly spread and always the same; all of them for None or too many."""
    if wanted is None or wanted >= rows:
        return np.arange(rows)
    return np.arange(wanted) * rows // wanted
