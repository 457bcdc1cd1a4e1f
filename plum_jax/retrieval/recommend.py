"""From prompts to items: batched beam search over any number of users, and Semantic IDs turned into items."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from tqdm import tqdm

from plum_jax.evaluation.metrics import NOTHING
from plum_jax.model.blockwise_attention import BlockwiseAttention
from plum_jax.model.decoder import Decoder
from plum_jax.model.item_history import ItemHistoryDecoder
from plum_jax.model.unrolled import unrolled
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.beams import Params, Scores
from plum_jax.retrieval.exclusion import exclude_items
from plum_jax.retrieval.sampling import Sampling, sample
from plum_jax.retrieval.sorted_sids import SortedSids
from plum_jax.retrieval.trie import SidTrie
from plum_jax.semantic_ids.table import SidTable

AnyDecoder = Decoder | ItemHistoryDecoder
_Search = Callable[[np.ndarray, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

_LENGTH_MULTIPLE = 16  # compiled prompt lengths are multiples of this, so that two folds share them
_SHAPE_COST = 50_000  # tokens of padding that another compiled length must save: what 2 cores read while they compile


@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """Lists of integers of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def from_series(cls, series: pl.Series) -> Ragged:
        """From a Polars column of lists; null is an empty list."""
        lengths = series.list.len().fill_null(0).to_numpy().astype(np.int64)
        values = series.filter(pl.Series(lengths > 0)).list.explode().to_numpy().astype(np.int32)
        return cls(values, np.append(0, np.cumsum(lengths)))

    @property
    def lengths(self) -> np.ndarray:
        """int64 [rows]."""
        return np.diff(self.offsets)

    def padded(self, rows: np.ndarray, length: int) -> np.ndarray:
        """int32 [rows, length], zeros on the right."""
        place = np.arange(length)
        real = place < self.lengths[rows][:, None]
        return np.where(real, self.values[np.where(real, self.offsets[rows][:, None] + place, 0)], 0).astype(np.int32)


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
    """

    decoder: AnyDecoder
    vocabulary: SidTokenIds
    table: SidTable
    num_beams: int = 32
    batch_size: int = 16
    num_buckets: int = 4
    item_sets: tuple[np.ndarray | None, ...] = (None,)

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
            arguments = self._arguments(rows, constrained, sets, exclude)
            return beam_search(decoder, params, tokens, lengths, num_beams=self.num_beams, scores=scores, **arguments)

        return self._in_batches(search, prompts, self.num_beams, description)

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
            item = np.concatenate([exclude.values[exclude.offsets[row] : exclude.offsets[row + 1]] for row in rows])
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


def length_batches(lengths: np.ndarray, batch_size: int, num_buckets: int) -> Iterator[tuple[np.ndarray, int]]:
    """Rows in batches of nearly equal length, each with the length that its prompts are padded to, longest first.

    The lengths are chosen so that padding and compiling cost least. With the start token each is a multiple of 16.
    """
    rounded = -(-(lengths + 1) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE - 1
    limits = bucket_limits(rounded, num_buckets, _SHAPE_COST)
    bucket = np.searchsorted(limits, lengths)
    # The longest first: whoever runs out of memory does so at once.
    for number in reversed(range(len(limits))):
        rows = np.flatnonzero(bucket == number)
        for start in range(0, len(rows), batch_size):
            yield rows[start : start + batch_size], int(limits[number])


def bucket_limits(lengths: np.ndarray, num_buckets: int, shape_cost: int = 0) -> np.ndarray:
    """At most `num_buckets` of the `lengths`, rising, such that the cost is least.

    The cost is the sum of all lengths, each padded up to the next limit, and `shape_cost` for each limit.
    """
    if not len(lengths):
        return np.zeros(0, np.int64)
    sizes, counts = np.unique(lengths, return_counts=True)
    before = np.append(0, np.cumsum(counts))
    # held[i, j]: lengths of sizes i .. j, were they the last bucket of a dynamic programme over sizes.
    held = before[None, 1:] - before[:-1, None]
    last = np.where(held > 0, held * sizes[None, :] + shape_cost, np.inf)
    cost = np.append(0.0, np.full(len(sizes), np.inf))  # of the first j sizes
    cuts = []
    for _ in range(min(num_buckets, len(sizes))):
        total = cost[:-1, None] + last
        cuts.append(total.argmin(axis=0))
        cost = np.append(0.0, total.min(axis=0))
    limits, end = [], len(sizes)
    for cut in reversed(cuts):
        if end:
            limits.append(sizes[end - 1])
            end = int(cut[end - 1])
    return np.array(limits[::-1])


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
