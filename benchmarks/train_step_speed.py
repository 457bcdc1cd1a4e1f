"""A training step of every size of the CPU ladder: ours and the same Llama in PyTorch, the machine's products."""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing
import torch
import transformers
from tqdm import tqdm

from gin import config as gin  # type: ignore[attr-defined]
from plum_jax.allocator import keep_freed_memory
from plum_jax.feeds import token_records
from plum_jax.feeds.batches import TokenBatches
from plum_jax.interop.export import export_hugging_face
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import train_step_flops
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.kernels import attention_on
from plum_jax.objectives.next_token import NextTokenLoss
from plum_jax.training.feeding import Prefetcher, open_feed
from plum_jax.training.mesh import MeshShape, batch_sharding
from plum_jax.training.optimizer import AdamW
from plum_jax.training.step import TrainState, initial_state, make_train_step

ROOT = pathlib.Path(__file__).resolve().parents[1]
VOCAB_SIZE = 1100
SIZES = ("cpu_tiny", "cpu_small", "cpu_medium", "cpu_large")
LEAST_LAYERS = 4
TOKENS = {80: 64 * 80, 512: 16 * 512}  # of a step, by length
QUICK = {"cpu_tiny": (80, 5120), "cpu_medium": (80, 640)}  # one case of each: length, tokens
GEMM_WIDTH = 2048
RECORD_LENGTHS, NUM_RECORDS = (8, 80), 10_000  # that are packed

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and the shape of its batches."""

    config: DecoderConfig
    rows: int
    length: int
    rounds: int

    @property
    def name(self) -> str:
        c = self.config
        return f"d {c.d_model}, {c.num_layers} layers, {self.rows} x {self.length}"

    @property
    def flops(self) -> float:
        """Operations that a step needs: half of a row's scores, as a token sees what came before it."""
        return train_step_flops(self.config, VOCAB_SIZE, self.rows, self.length, causal=True)


def cases(quick: bool) -> list[Case]:
    """Every size at every length; where `quick` d 64 and d 256 at 80 tokens, the latter in fewer rows."""
    shapes = [(size, length, tokens) for size in SIZES for length, tokens in TOKENS.items()]
    if quick:
        shapes = [(size, length, tokens) for size, (length, tokens) in QUICK.items()]
    found = []
    for size, length, tokens in shapes:
        config = ladder_config(size)
        rounds = 3 if quick else 15 if config.d_model < 256 else 7
        found.append(Case(config, tokens // length, length, rounds))
    return found


def ladder_config(size: str) -> DecoderConfig:
    """The sizes of `gin/model/<size>.gin`, with at least `LEAST_LAYERS` layers and Llama's embeddings."""
    gin.clear_config()
    gin.parse_config_file(str(ROOT / "gin" / "model" / f"{size}.gin"))
    config = gin.get_configurable(DecoderConfig)()
    return dataclasses.replace(config, num_layers=max(LEAST_LAYERS, config.num_layers), scale_embeddings=False)


def measure(quick: bool) -> dict[str, Any]:
    """Keys of the JSON line, and each case; prints a table."""
    transformers.utils.logging.disable_progress_bar()
    keep_freed_memory()  # as `train` does; PyTorch has it too, being in the same process
    products = large_products()
    seconds = {name: min(values) for name, values in timing.interleaved(products, 5).items()}
    peak = {name: 2 * GEMM_WIDTH**3 / value for name, value in seconds.items()}
    largest = products[min(seconds, key=lambda name: seconds[name])]
    print(f"\nlarge float32 products: {', '.join(f'{name} {value / 1e9:.0f}' for name, value in peak.items())} GFLOP/s")
    print(f"train step, ms (medians; {timing.THREADS} threads, PyTorch the better of that and 1)")
    print(
        f"{'':30}{'ours':>8}{'eager':>8}{'ratio':>7}{'compiled':>10}{'ratio':>7}{'share of peak':>15}{'data wait':>11}"
    )
    details = {}
    with tempfile.TemporaryDirectory() as records:
        write_records(records)
        for case in tqdm(cases(quick), desc="train steps", unit="case", leave=False):
            details[case.name] = row = _measure_case(case, records, largest, quick)
            tqdm.write(_line(case, row))
    rows = details.values()
    return {
        "train_step_vs_torch_min": min(row["vs_eager"] for row in rows),
        **({} if quick else {"train_step_vs_torch_compiled_min": min(row["vs_compiled"] for row in rows)}),
        "gemm_share_max": max(row["gemm_share"] for row in rows),
        "data_wait_share_max": max(row["data_wait_share"] for row in rows),
        "gemm_peak_gflops": {name: value / 1e9 for name, value in peak.items()},
        "train_step": details,
    }


def _line(case: Case, row: Mapping[str, float]) -> str:
    compiled = (
        f"{row['compiled'] * 1e3:>10.0f}{row['vs_compiled']:>7.2f}" if "compiled" in row else f"{'-':>10}{'-':>7}"
    )
    return (
        f"{case.name:30}{row['ours'] * 1e3:>8.0f}{row['eager'] * 1e3:>8.0f}{row['vs_eager']:>7.2f}{compiled}"
        f"{row['gemm_share']:>15.0%}{row['data_wait_share']:>11.1%}"
    )


def large_products() -> dict[str, Callable[[], object]]:
    """A product of two `GEMM_WIDTH` x `GEMM_WIDTH` float32 matrices, by library."""
    matrix = np.random.default_rng(0).standard_normal((GEMM_WIDTH, GEMM_WIDTH), np.float32)
    ours, theirs, compiled = jnp.asarray(matrix), torch.from_numpy(matrix), jax.jit(jnp.matmul)

    def by_torch() -> None:
        torch.set_num_threads(timing.THREADS)
        torch.matmul(theirs, theirs)

    return {
        "jax": lambda: compiled(ours, ours).block_until_ready(),
        "numpy": lambda: matrix @ matrix,
        "torch": by_torch,
    }


def _measure_case(case: Case, records: str, largest: Callable[[], object], quick: bool) -> dict[str, float]:
    """Median seconds of each side's step, ratios, shares, and how far the first losses are apart."""
    trainer = OurTrainer(case)
    batch = random_batch(case)
    with tempfile.TemporaryDirectory() as directory:
        export_hugging_face(pathlib.Path(directory, "model"), case.config, jax.device_get(trainer.state.params))
        load = functools.partial(
            transformers.LlamaForCausalLM.from_pretrained, f"{directory}/model", attn_implementation="sdpa"
        )
        difference = loss_difference(trainer.first_loss(batch), load(), batch)
        threads = fastest_threads(lambda count: torch_side(load(), batch, count))
        # In the same rounds, since the machine's peak is that of the moment where others use it.
        sides = {"large product": largest, "ours": trainer.side(batch), "eager": torch_side(load(), batch, threads)}
        if not quick:
            sides["compiled"] = torch_side(load(), batch, threads, compiled=True)
    seconds = timing.interleaved(sides, case.rounds)
    product = seconds.pop("large product")
    row = {name: statistics.median(values) for name, values in seconds.items()}
    row |= {f"vs_{name}": timing.median_ratio(seconds[name], seconds["ours"]) for name in seconds if name != "ours"}
    row["gemm_share"] = case.flops / (2 * GEMM_WIDTH**3) * timing.median_ratio(product, seconds["ours"])
    row["data_wait_share"] = trainer.data_wait_share(records, 2 * case.rounds)
    return {**row, "torch_threads": threads, "loss_difference": difference}


def fastest_threads(side: Callable[[int], Callable[[], None]]) -> int:
    """1 or `timing.THREADS`, by one step of PyTorch each, after one that is not counted.

    Its threads wait for each other in a loop: best on free cores, slower than one where another process has a core.
    """
    seconds = {count: min(timing.interleaved({"": side(count)}, 1)[""]) for count in (1, timing.THREADS)}
    return min(seconds, key=lambda count: seconds[count])


class OurTrainer:
    """The step as `trainer.train` makes it, and its state."""

    def __init__(self, case: Case):
        self._case = case
        self._mesh = MeshShape().build()
        decoder = Decoder(case.config, VOCAB_SIZE, attention_on(self._mesh))
        one = jnp.zeros((1, 1), jnp.int32)
        optimizer, key = AdamW().build(1000), jax.random.key(0)

        def init(key: jax.Array) -> Any:
            return decoder.init(key, one, one, jnp.ones((1, 1, 1), bool))["params"]

        self.state: TrainState = initial_state(init, optimizer, key, self._mesh)
        self._step = make_train_step(NextTokenLoss(decoder), optimizer, 1, key, self._mesh, self.state)

    def first_loss(self, batch: Batch) -> float:
        """Mean of the untrained model: that of the first step."""
        self.state, sums = self._step(self.state, jax.device_put(batch, batch_sharding(self._mesh)))
        return float(sums["loss"][0] / sums["loss"][1])

    def side(self, batch: Batch) -> Callable[[], None]:
        """One step on a batch that is on the device."""
        placed = jax.device_put(batch, batch_sharding(self._mesh))

        def run() -> None:
            self.state, _ = self._step(self.state, placed)
            jax.block_until_ready(self.state)

        return run

    def data_wait_share(self, records: str, steps: int) -> float:
        """Share of the time of steps on packed records in which nothing is computed, for want of a batch."""
        feed = TokenBatches(records, self._case.rows, self._case.length)
        prefetcher = Prefetcher(*open_feed(feed, batch_sharding(self._mesh)))
        try:
            next(prefetcher)  # the first window is read before the first step
            waited, began = 0.0, time.perf_counter()
            for _ in range(steps):
                asked = time.perf_counter()
                batch = next(prefetcher).device
                waited += time.perf_counter() - asked
                self.state, _ = self._step(self.state, batch)
                jax.block_until_ready(self.state)
            return waited / (time.perf_counter() - began)
        finally:
            prefetcher.close()


def write_records(directory: str) -> None:
    """Token records of random ids, of lengths as of histories."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(*RECORD_LENGTHS, NUM_RECORDS)
    records = ((rng.integers(1, VOCAB_SIZE, n), np.ones(n, np.float32)) for n in lengths)
    token_records.write_task(f"{directory}/task", records, name="task", config={}, inputs={})
    token_records.write_manifest(directory, rates={"task": 1.0}, config={}, inputs={})


def random_batch(case: Case) -> Batch:
    """Full rows of one segment: PyTorch then needs no mask, and takes its fastest attention."""
    shape = (case.rows, case.length)
    tokens = np.random.default_rng(0).integers(0, VOCAB_SIZE, (case.rows, case.length + 1), np.int32)
    return {
        "decoder_input_tokens": np.ascontiguousarray(tokens[:, :-1]),
        "decoder_target_tokens": np.ascontiguousarray(tokens[:, 1:]),
        "decoder_segment_ids": np.ones(shape, np.int32),
        "decoder_positions": np.ascontiguousarray(np.broadcast_to(np.arange(case.length, dtype=np.int32), shape)),
        "decoder_loss_weights": np.ones(shape, np.float32),
    }


def torch_loss(model: torch.nn.Module, batch: Batch) -> Callable[[], torch.Tensor]:
    """The model's mean cross-entropy of a batch."""
    tokens, targets = (torch.from_numpy(batch[f"decoder_{name}_tokens"]).long() for name in ("input", "target"))

    def loss() -> torch.Tensor:
        logits = model(input_ids=tokens, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.view(-1, VOCAB_SIZE), targets.view(-1))

    return loss


def torch_side(model: torch.nn.Module, batch: Batch, threads: int, compiled: bool = False) -> Callable[[], None]:
    """One step: loss, backward, clipping, fused AdamW. Without the metrics that our step also gives."""
    model.train()
    loss = torch.compile(torch_loss(model, batch)) if compiled else torch_loss(model, batch)
    settings = AdamW()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(settings.b1, settings.b2), weight_decay=settings.weight_decay, fused=True
    )

    def run() -> None:
        torch.set_num_threads(threads)
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm or math.inf)
        optimizer.step()

    return run


def loss_difference(ours: float, model: torch.nn.Module, batch: Batch) -> float:
    """|theirs - ours| / ours of the same weights and batch.

    Raises:
      ValueError: more than 1e-5; then it is not the same model.
    """
    with torch.no_grad():
        theirs = float(torch_loss(model, batch)())
    difference = abs(theirs - ours) / ours
    if not difference < 1e-5:
        raise ValueError(f"expected the same loss of the same weights, got {ours} ours and {theirs} in PyTorch")
    return difference
