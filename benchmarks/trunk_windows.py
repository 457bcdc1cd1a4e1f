"""Events a second of the trunk's training on the latest windows, and on all sliding ones."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile

import jax
import numpy as np
import timing
from etils import epath

from plum_jax.corpus.features import CoWatchEmbedding
from plum_jax.corpus.sources.simulator import Simulator
from plum_jax.corpus.splits import UserTime
from plum_jax.feeds.windows import Windows
from plum_jax.model.config import DecoderConfig
from plum_jax.objectives.next_items import NextItems
from plum_jax.stages import Data
from plum_jax.systems.trunk import Trunk
from plum_jax.systems.trunk.known import TrunkFields
from plum_jax.systems.trunk.network import TrunkConfig
from plum_jax.systems.trunk.system import initial_trunk
from plum_jax.training.step import initial_state, make_train_step

SMALL = DecoderConfig(
    num_layers=2, d_model=64, num_heads=2, num_kv_heads=2, head_dim=32, mlp_dim=128, scan_layers=False
)
KINDS = ("latest", "sliding")


def measure(quick: bool) -> dict[str, float]:
    """The section's keys."""
    steps, rounds = (8, 3) if quick else (20, 7)
    source = Simulator(num_users=800, num_items=1000, mean_history=150)
    with tempfile.TemporaryDirectory() as directory:
        stages = Data(source, UserTime(), [CoWatchEmbedding()]).stages(epath.Path(directory))
        trunk = Trunk(
            TrunkConfig(SMALL), fields=TrunkFields(("gap",), ("watch_ratio",)), num_drawn=512, use_features=True
        )
        known = trunk.known(stages)
        network, mesh, key = trunk.network_of(known), trunk.training.mesh.build(jax.devices()[:1]), jax.random.key(0)
        optimizer = trunk.training.transformation()
        state = initial_state(functools.partial(initial_trunk, network), optimizer, key, mesh)
        step = make_train_step(NextItems().on(network, mesh), optimizer, 1, key, mesh, state)
        feeds = {
            kind: dataclasses.replace(trunk, windows=Windows(kind, 100, 50)).feed(stages.split, known).make_iterator()
            for kind in KINDS
        }
        states, events = {kind: jax.tree.map(np.asarray, state) for kind in KINDS}, dict.fromkeys(KINDS, 0)

        def run(kind: str) -> None:
            events[kind] = 0
            for _ in range(steps):
                batch = next(feeds[kind])
                events[kind] += int((batch["places"] > 0).sum())
                states[kind], _ = step(states[kind], batch)
            jax.block_until_ready(states[kind])

        rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(rounds):
            seconds = timing.interleaved({kind: functools.partial(run, kind) for kind in KINDS}, 1)
            for kind in KINDS:
                rates[kind].append(events[kind] / seconds[kind][0])
    ratio = timing.median_ratio(rates["sliding"], rates["latest"])
    said = {kind: statistics.median(found) for kind, found in rates.items()}
    print(
        f"training: {said['sliding']:,.0f} events/s on sliding windows, {said['latest']:,.0f} on the latest: "
        f"{ratio:.3f}"
    )
    return {"sliding_windows_tokens_per_second_vs_fixed": ratio}
