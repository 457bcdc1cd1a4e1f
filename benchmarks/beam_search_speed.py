"""Whole searches: prompts in, Semantic IDs out, of our beam search and of `generate` in transformers, same weights."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import timing
import torch
import transformers
from tqdm import tqdm
from train_step_speed import GEMM_WIDTH, ladder_config, large_products

from plum_jax.allocator import keep_freed_memory
from plum_jax.interop.export import export_hugging_face
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import search_flops
from plum_jax.model.decoder import Decoder
from plum_jax.model.masks import PackedCausal
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.recommend import fastest_here
from plum_jax.retrieval.trie import SidTrie

SIZES = ("cpu_small", "cpu_medium")
LEVELS, HISTORIES = (4, 8), (20, 50)
QUICK = (("cpu_small", 4, 20),)
ITEMS, CODES, BEAMS = 12_101, 256, 32
USERS, QUICK_USERS = 512, 64
TEXT_TOKENS = 64
BATCHES, QUICK_BATCHES = (8, 16, 32), (16,)
TORCH_BATCHES, QUICK_TORCH_BATCHES = (1, 4, 16), (4,)
COMPARED = 2  # users whose beams are compared before anything is timed


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, a catalogue and its users' prompts: every item of a history is the codes of its SID."""

    config: DecoderConfig
    levels: int
    history: int

    @property
    def name(self) -> str:
        return f"d {self.config.d_model}, {self.levels} levels, {self.history} items"

    @property
    def vocab_size(self) -> int:
        return TEXT_TOKENS + self.levels * CODES

    @property
    def offsets(self) -> tuple[int, ...]:
        return tuple(TEXT_TOKENS + CODES * level for level in range(self.levels))

    @property
    def flops(self) -> float:
        """Operations that a user's search needs."""
        return search_flops(self.config, self.vocab_size, self.levels * self.history, BEAMS, self.levels)

    def catalogue(self) -> np.ndarray:
        """Codes [N, L] of random items."""
        return np.random.default_rng(0).integers(0, CODES, (ITEMS, self.levels))

    def prompts(self) -> np.ndarray:
        """int32 [U, T]: histories of random items."""
        items = np.random.default_rng(1).integers(0, ITEMS, (USERS, self.history))
        return (self.catalogue()[items] + np.array(self.offsets)).reshape(USERS, -1).astype(np.int32)


def measure(quick: bool, only: str = "") -> dict[str, Any]:
    """Keys of the JSON line, and each case whose name holds `only`; prints a table."""
    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()
    products = large_products()
    seconds = {name: min(values) for name, values in timing.interleaved(products, 3).items()}
    largest = products[min(seconds, key=lambda name: seconds[name])]
    print(f"\nlarge float32 product: {2 * GEMM_WIDTH**3 / min(seconds.values()) / 1e9:.0f} GFLOP/s")
    print(f"beam search, {BEAMS} beams, {ITEMS} items, users/s (medians; {timing.THREADS} threads)")
    print(f"{'':32}{'ours':>8}{'theirs':>8}{'ratio':>7}{'free':>8}{'cost':>6}{'share of peak':>15}   batches")
    shapes = QUICK if quick else [(s, levels, items) for s in SIZES for levels in LEVELS for items in HISTORIES]
    cases = [Case(ladder_config(size), levels, items) for size, levels, items in shapes]
    if not (chosen := [case for case in cases if only in case.name]):
        raise SystemExit(f"no case's name holds {only!r}; there are: {'; '.join(case.name for case in cases)}")
    details = {}
    for case in tqdm(chosen, desc="searches", unit="case", leave=False):
        details[case.name] = row = _measure_case(case, largest, quick)
        tqdm.write(
            f"{case.name:32}{row['ours']:>8.0f}{row['transformers']:>8.2f}{row['ratio']:>7.1f}{row['free']:>8.0f}"
            f"{row['constraint_cost']:>6.2f}{row['gemm_share']:>15.0%}   {row['batch']}, {row['torch_batch']}"
        )
    exact = _exact_scoring(Case(ladder_config(SIZES[0]), 4, 20))
    print(f"every item scored by the full forward pass, {SIZES[0]}, 4 levels, 20 items: {exact:.1f} s a user")
    rows = details.values()
    return {
        "users_per_second_vs_transformers_min": min(row["ratio"] for row in rows),
        "constraint_cost_max": max(row["constraint_cost"] for row in rows),
        "gemm_share_min": min(row["gemm_share"] for row in rows),
        "exact_scoring_seconds_a_user": exact,
        "beam_search": details,
    }


def _measure_case(case: Case, largest: Callable[[], object], quick: bool) -> dict[str, float]:
    """Users a second of all sides, ratios, and the batches that served best."""
    decoder, params = random_model(case)
    prompts = case.prompts()
    with tempfile.TemporaryDirectory() as directory:
        export_hugging_face(pathlib.Path(directory, "model"), case.config, jax.device_get(params))
        model = transformers.LlamaForCausalLM.from_pretrained(f"{directory}/model", attn_implementation="sdpa")
    theirs = TheirSearch(case, model.eval())
    trie = SidTrie.from_codes(case.catalogue(), (CODES,) * case.levels)
    batches = QUICK_BATCHES if quick else BATCHES
    ours = {batch: OurSearch(case, decoder, params, trie, batch) for batch in batches}
    assert_same_beams(ours[batches[0]](prompts[: batches[0]]), theirs(prompts[:COMPARED]), case)
    batch, _ = _best({(batch, 0): lambda s=search, b=batch: s(prompts[:b]) for batch, search in ours.items()})
    choices = [(b, n) for b in (QUICK_TORCH_BATCHES if quick else TORCH_BATCHES) for n in (1, timing.THREADS)]
    torch_batch, threads = _best({(b, n): lambda b=b, n=n: theirs(prompts[:b], n) for b, n in choices})
    free = OurSearch(case, decoder, params, None, batch)
    users = QUICK_USERS if quick else USERS
    sides = {
        "product": largest,
        "ours": lambda: ours[batch].all(prompts[:users]),
        "transformers": lambda: theirs(prompts[:torch_batch], threads),
        "free": lambda: free.all(prompts[:users]),
    }
    seconds = timing.interleaved(sides, 3 if quick else 5)
    ratio = timing.median_ratio(seconds["transformers"], seconds["ours"]) * users / torch_batch
    share = timing.median_ratio(seconds["product"], seconds["ours"]) * case.flops * users / (2 * GEMM_WIDTH**3)
    return {
        "ours": users / statistics.median(seconds["ours"]),
        "transformers": torch_batch / statistics.median(seconds["transformers"]),
        "free": users / statistics.median(seconds["free"]),
        "ratio": ratio,
        "constraint_cost": timing.median_ratio(seconds["ours"], seconds["free"]),
        "gemm_share": share,
        "batch": batch,
        "torch_batch": torch_batch,
        "torch_threads": threads,
    }


def _best(sides: dict[tuple[int, int], Callable[[], object]]) -> tuple[int, int]:
    """The batch, and the number of threads, of the most users a second, by one run of each after one not counted."""
    if len(sides) == 1:
        return next(iter(sides))
    seconds = timing.interleaved({str(choice): run for choice, run in sides.items()}, 1)
    return max(sides, key=lambda choice: choice[0] / min(seconds[str(choice)]))


def random_model(case: Case) -> tuple[Decoder, Any]:
    """A decoder and random parameters."""
    decoder, one = Decoder(case.config, case.vocab_size), jnp.zeros((1, 1), jnp.int32)
    init = jax.jit(decoder.init)
    return decoder, nn.unbox(init(jax.random.key(0), one, one, jnp.ones((1, 1, 1), bool)))["params"]


class OurSearch:
    """`beam_search` for batches of one size."""

    def __init__(self, case: Case, decoder: Decoder, params: Any, trie: SidTrie | None, batch: int):
        self._decoder, self._params = fastest_here(decoder, params)
        self._options = {
            "sid_offsets": case.offsets,
            "codebook_sizes": (CODES,) * case.levels,
            "num_beams": BEAMS,
            "trie": trie,
        }
        self._batch = batch

    def __call__(self, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [B, M, L] and log-probabilities [B, M] of one batch."""
        lengths = jnp.full(len(prompts), prompts.shape[1], jnp.int32)
        return jax.device_get(
            beam_search(self._decoder, self._params, jnp.asarray(prompts), lengths, **self._options)  # type: ignore[arg-type]
        )

    def all(self, prompts: np.ndarray) -> None:
        """Every batch."""
        for start in range(0, len(prompts), self._batch):
            self(prompts[start : start + self._batch])


class TheirSearch:
    """`generate` with `prefix_allowed_tokens_fn`, whose answers are looked up in a table of all prefixes."""

    def __init__(self, case: Case, model: Any):
        self._case, self._model = case, model
        tokens = np.unique(case.catalogue(), axis=0) + np.array(case.offsets)
        after = collections.defaultdict(set)
        for sid in tokens.tolist():
            for level, token in enumerate(sid):
                after[tuple(sid[:level])].add(token)
        self._after = {prefix: sorted(allowed) for prefix, allowed in after.items()}
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0

    def __call__(self, prompts: np.ndarray, threads: int = timing.THREADS) -> tuple[np.ndarray, np.ndarray]:
        """Codes [B, M, L] and log-probabilities [B, M]."""
        torch.set_num_threads(threads)
        tokens = torch.from_numpy(np.pad(prompts, ((0, 0), (1, 0)))).long()
        length = tokens.shape[1]
        with torch.inference_mode():
            found = self._model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                num_beams=BEAMS,
                num_return_sequences=BEAMS,
                max_new_tokens=self._case.levels,
                do_sample=False,
                length_penalty=0.0,  # sums of log-probabilities
                prefix_allowed_tokens_fn=lambda _, row: self._after[tuple(row[length:].tolist())],
                output_scores=True,
                return_dict_in_generate=True,
            )
        codes = found.sequences[:, length:].numpy() - np.array(self._case.offsets)
        return codes.reshape(len(prompts), BEAMS, -1), found.sequences_scores.numpy().reshape(len(prompts), BEAMS)


def assert_same_beams(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], case: Case, tolerance: float = 1e-3
) -> None:
    """Of `COMPARED` users.

    Raises:
      ValueError: other scores, or other SIDs but for near-ties at the beam's end; then it is not the same search.
    """
    for user in range(COMPARED):
        (codes, scores), (their_codes, their_scores) = ((x[user] for x in side) for side in (ours, theirs))
        clear = scores > scores[-1] + tolerance
        found = {tuple(sid) for sid in their_codes.tolist()}
        missing = [sid for sid in codes[clear].tolist() if tuple(sid) not in found]
        if missing or np.abs(scores - their_scores).max() > tolerance:
            raise ValueError(
                f"{case.name}: {len(missing)} of our SIDs are not transformers'; {scores=} {their_scores=}"
            )


def _exact_scoring(case: Case) -> float:
    """Seconds for one user's log-probability of every item, by full forward passes in batches: the sanity line."""
    decoder, params = random_model(case)
    decoder, params = fastest_here(decoder, params)
    prompt, tokens = case.prompts()[0], case.catalogue() + np.array(case.offsets)
    rows = 101

    @jax.jit
    def score(params: Any, tokens: jax.Array) -> jax.Array:
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        segments = PackedCausal(jnp.ones_like(tokens))
        hidden = decoder.apply({"params": params}, tokens, places, segments, method="hidden").values
        logits = decoder.apply({"params": params}, hidden[:, -case.levels - 1 : -1], method="logits")
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[:, -case.levels :, None], axis=2)
        return chosen.sum(axis=(1, 2))

    full = np.concatenate([np.tile(np.append(0, prompt), (rows, 1)), tokens[:rows]], axis=1).astype(np.int32)
    (seconds,) = timing.interleaved({"": lambda: jax.block_until_ready(score(params, full))}, 2).values()
    return min(seconds) * ITEMS / rows
