"""RQ-VAE training, items a second: our compiled step against the same network in PyTorch, eager and compiled."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Callable, Iterator

import jax
import numpy as np
import polars as pl
import timing
import torch
import torch_rqvae
from tqdm import tqdm

from plum_jax.allocator import keep_freed_memory
from plum_jax.semantic_ids.rqvae import RqVae
from plum_jax.semantic_ids.rqvae.objective import RqVaeObjective, draw_levels
from plum_jax.semantic_ids.rqvae.pairs import CoWatched, ItemBatches
from plum_jax.training.mesh import batch_sharding
from plum_jax.training.step import FromHost, initial_state, make_train_step
from plum_jax.training.training_config import TrainingConfig

NUM_ITEMS = 20_000
ITEMS_IN_A_ROUND = 16_384  # of each side


@dataclasses.dataclass(frozen=True)
class Size:
    """A quantiser, the widths of the feature blocks it is given, and whether the key's minimum is over it."""

    name: str
    quantizer: RqVae
    block_dims: tuple[int, ...]
    is_default: bool = True


SID_V2 = RqVae()
SID_V1 = dataclasses.replace(
    SID_V2, codebook_sizes=(256, 256, 256), fuse_blocks=True, contrastive_weight=0.0, progressive_masking=False
)


def sizes(quick: bool) -> list[Size]:
    """SID-v1 and SID-v2 at the default batch of 512; unless `quick` also at 256 and 2048."""
    found = []
    for batch_size in (512,) if quick else (512, 256, 2048):
        for name, quantizer, dims in (("SID-v1", SID_V1, (768,)), ("SID-v2", SID_V2, (256, 256))):
            quantizer = dataclasses.replace(quantizer, batch_size=batch_size)
            is_default = batch_size == RqVae().batch_size
            found.append(Size(f"{name}, batch {batch_size}", quantizer, dims, is_default))
    return found


def measure(quick: bool) -> dict[str, float | dict]:
    """Ratios of speed, ours over PyTorch's: the least over the default sizes, and each; prints a table."""
    keep_freed_memory()  # as `train` does; PyTorch has it too, being in the same process
    details: dict[str, dict[str, float]] = {}
    print(f"\nRQ-VAE training, items a second (medians; {timing.THREADS} threads, PyTorch the better of that and 1)")
    print(f"{'':24}{'ours':>10}{'eager':>10}{'compiled':>10}{'ratio':>8}{'compiled':>10}{'loss differs by':>17}")
    chosen = sizes(quick)
    for size in tqdm(chosen, desc="RQ-VAE training", unit="size", leave=False):
        row = _measure_size(size, quick)
        details[size.name] = row
        compiled = f"{row['compiled']:>10,.0f}" if "compiled" in row else f"{'-':>10}"
        versus = f"{row['vs_compiled']:>10.2f}" if "compiled" in row else f"{'-':>10}"
        tqdm.write(
            f"{size.name:24}{row['ours']:>10,.0f}{row['eager']:>10,.0f}{compiled}{row['vs_eager']:>8.2f}{versus}"
            f"{row['loss_difference']:>17.1e}"
        )
    defaults = [details[size.name] for size in chosen if size.is_default]
    result: dict[str, float | dict] = {"rqvae_training_vs_torch": min(row["vs_eager"] for row in defaults)}
    if not quick:
        result["rqvae_training_vs_torch_compiled"] = min(row["vs_compiled"] for row in defaults)
    return {**result, "rqvae_training": details}


def _measure_size(size: Size, quick: bool) -> dict[str, float]:
    """Items a second of each side, ratios, and how far apart the losses of the same batch are."""
    feed = item_batches(size)
    network = size.quantizer.network(size.block_dims)
    params = jax.device_get(size.quantizer.initial_params(network, feed.blocks, feed.present, jax.random.key(0)))
    steps = max(4, ITEMS_IN_A_ROUND // (2 if quick else 1) // size.quantizer.batch_size)
    objective = size.quantizer.objective(network)
    rounds = 5 if quick else 15
    eager = functools.partial(torch_side, objective, feed, params)
    sides = {"ours": our_side(size.quantizer.training, objective, feed, params, steps)}
    threads = fastest_threads(eager)
    sides |= {f"eager, threads {count}": eager(steps, threads=count) for count in threads}
    if not quick:
        sides["compiled"] = eager(steps, threads=threads[0], compiled=True)
    seconds = timing.interleaved(sides, rounds)
    best = min((name for name in sides if name.startswith("eager")), key=lambda name: statistics.median(seconds[name]))
    seconds = {"eager" if name == best else name: values for name, values in seconds.items()}
    # A pair is two items, though both sides could be counted in steps alike.
    items = steps * size.quantizer.batch_size
    row = {name: items / statistics.median(values) for name, values in seconds.items()}
    row |= {f"vs_{name}": timing.median_ratio(seconds[name], seconds["ours"]) for name in seconds if name != "ours"}
    return {**row, "loss_difference": loss_difference(objective, feed, params)}


def fastest_threads(side: Callable[..., Callable[[], object]]) -> list[int]:
    """The numbers of threads that PyTorch is timed with, the fastest of a trial first.

    Its threads wait for each other in a loop: best on free cores (asleep, OMP_WAIT_POLICY=passive, 20% slower),
    and ten times slower than one thread where another process has a core. A number that slow is left out.
    """
    seconds = {
        threads: min(timing.interleaved({"": side(2, threads=threads)}, 3)[""]) for threads in (1, timing.THREADS)
    }
    fastest = min(seconds.values())
    return sorted((threads for threads in seconds if seconds[threads] < 1.5 * fastest), key=lambda n: seconds[n])


def item_batches(size: Size) -> ItemBatches:
    """The feed of `RqVae.quantize` over random items of the mean squared length that it gives them."""
    rng = np.random.default_rng(0)
    scale = [np.sqrt(size.quantizer.latent_dim / dim) for dim in size.block_dims]
    blocks = tuple(
        np.float32(s) * rng.standard_normal((NUM_ITEMS, d), dtype=np.float32)
        for s, d in zip(scale, size.block_dims, strict=True)
    )
    present = tuple(rng.random(NUM_ITEMS) < 0.95 for _ in blocks)
    contrast = bool(size.quantizer.contrastive_weight)
    co_watched = None
    if contrast:
        a, b = rng.integers(0, NUM_ITEMS, (2, 4 * NUM_ITEMS), dtype=np.int32)
        pairs = pl.DataFrame({"item_a": a, "item_b": b, "count": rng.integers(1, 5, len(a))})
        co_watched = CoWatched.from_pairs(pairs, NUM_ITEMS, size.quantizer.popularity_exponent)
    return ItemBatches(blocks, present, size.quantizer.batch_size // (2 if contrast else 1), 0, co_watched)


def our_side(
    training: TrainingConfig, objective: RqVaeObjective, feed: ItemBatches, params: dict, steps: int
) -> Callable[[], object]:
    """Runs `steps` steps as `trainer.train` does: batches drawn, put on the device, the compiled step."""
    mesh, key = training.mesh.build(), jax.random.key(0)
    optimizer = training.optimizer.build(training.steps)
    state = initial_state(FromHost(lambda _: params), optimizer, key, mesh)
    step = make_train_step(objective, optimizer, training.microbatches, key, mesh, state)
    iterator = feed.make_iterator()

    def run() -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = step(state, jax.device_put(next(iterator), batch_sharding(mesh)))
        jax.block_until_ready(state)

    return run


def torch_side(
    objective: RqVaeObjective, feed: ItemBatches, params: dict, steps: int, threads: int, compiled: bool = False
) -> Callable[[], object]:
    """Runs `steps` steps: batches by index from tensors in memory, the pairs drawn beforehand; fused AdamW, clipping.

    It computes the loss alone, where our step also gives metrics.
    """
    model = torch_rqvae.from_jax(objective.network, params)
    loss_of = torch_rqvae.TorchObjective(model, objective)
    loss_fn = torch.compile(loss_of) if compiled else loss_of
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2000)
    batches, levels = torch_batches(feed), len(objective.network.codebook_sizes)

    def run() -> None:
        torch.set_num_threads(threads)
        for batch in itertools.islice(batches, steps):
            rows = batch["block_0"].shape[0] * batch["block_0"].shape[1]
            keep = torch.randint(1, levels + 1, (rows,)) if objective.progressive_masking else None
            optimizer.zero_grad(set_to_none=True)
            loss_fn(batch, keep).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    return run


def torch_batches(feed: ItemBatches) -> Iterator[torch_rqvae.Batch]:
    """Endless batches like `feed`'s from tensors in memory."""
    blocks = [torch.from_numpy(block) for block in feed.blocks]
    present = [torch.from_numpy(has) for has in feed.present]
    rng = np.random.default_rng(0)
    drawn: list[tuple[torch.Tensor, torch_rqvae.Batch]] = []
    for _ in range(64):
        chosen = rng.choice(NUM_ITEMS, (feed.rows, 1), replace=False)
        facts: torch_rqvae.Batch = {}
        if feed.co_watched is not None:
            partners, paired = feed.co_watched.draw(chosen[:, 0], rng)
            chosen = np.stack([chosen[:, 0], partners], axis=1)
            facts = {"item": torch.from_numpy(chosen), "paired": torch.from_numpy(paired)}
        drawn.append((torch.from_numpy(chosen), facts))
    for items, facts in itertools.cycle(drawn):
        found = {f"block_{m}": block[items] for m, block in enumerate(blocks)}
        yield {**facts, **found, **{f"present_{m}": has[items] for m, has in enumerate(present)}}


def loss_difference(objective: RqVaeObjective, feed: ItemBatches, params: dict) -> float:
    """How far the two losses of one batch, with the same levels kept, are apart: |theirs - ours| / ours.

    Raises:
      ValueError: more than 1e-4; then it is not the same network.
    """
    batch, rng = feed.batch(0), jax.random.key(1)
    total, items, _ = jax.jit(lambda params, batch: objective(params, batch, rng))(params, batch)
    keep = None
    if objective.progressive_masking:
        keep = torch.tensor(np.asarray(draw_levels(rng, int(items), len(objective.network.codebook_sizes))))
    torch_batch = {name: torch.tensor(value) for name, value in batch.items()}
    with torch.no_grad():
        model = torch_rqvae.from_jax(objective.network, params)
        theirs = float(torch_rqvae.TorchObjective(model, objective)(torch_batch, keep))
    ours = float(total / items)
    difference = abs(theirs - ours) / ours
    if not difference < 1e-4:
        raise ValueError(f"expected the same loss of the same batch, got {ours} ours and {theirs} in PyTorch")
    return difference
