"""A finished run of `plum` as T5X's programs see it, and how they are started."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
from fast_compiling import FAST_COMPILING
from jax.sharding import Mesh

from plum_jax.feeds.batches import TokenBatches
from plum_jax.model.config import DecoderConfig, MixtureOfExperts

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
ABSENT = "T5X is not importable here: make test-t5x T5X=/path/to/sources (docs/t5x.md)"
LENGTH = 64

NANO = DecoderConfig(num_layers=2, d_model=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=64)
EXPERTS = DecoderConfig(
    num_layers=2,
    d_model=32,
    num_heads=2,
    num_kv_heads=2,
    head_dim=16,
    moe=MixtureOfExperts(num_experts=4, experts_per_token=2, mlp_dim=16),
)


def batch_of(run_dir, phase="retrieval", rows=8):
    """One batch as `plum` feeds it, with fractional weights."""
    feed = TokenBatches(f"{run_dir}/records/{phase}", batch_size=rows, length=LENGTH)
    batch = dict(next(feed.make_iterator()))
    random = np.random.default_rng(0)
    scale = random.uniform(0.1, 2.0, batch["decoder_loss_weights"].shape).astype(np.float32)
    return batch | {"decoder_loss_weights": batch["decoder_loss_weights"] * scale}


def one_device():
    return Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1, 1, 1), ("data", "fsdp", "expert", "tensor"))


def program(name: str, *arguments: str, devices: int = 1) -> subprocess.CompletedProcess:
    """`python -m t5x.<name>` from the repository's root."""
    flags = f"{FAST_COMPILING} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", f"t5x.{name}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
