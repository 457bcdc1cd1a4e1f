"""A first look at one NVIDIA GPU: training, search, and the tests of kernels there; under 8 minutes all in all.

    pip install -e .[gpu,bench,test] && python benchmarks/on_gpu.py    # on a machine with one GPU
    python benchmarks/on_gpu.py --rehearse                             # the same program, tiny, on any machine

Prints a line for each, and at the end one line of JSON (docs/gpu.md). Parts that fail are said with their error, and
the others go on. Parts:

  training: dense_110m and moe_110m in bfloat16, packed rows of 1,536 tokens: tokens/s, MFU against the published peak,
    peak memory, seconds to compile; the dense one beside transformers' Llama of the same sizes in PyTorch, bfloat16,
    with scaled_dot_product_attention (`tokens_per_second_vs_transformers`).
  search: constrained beams inside a million random items, 4 levels of 256 codes, the dense model: users/s, and the
    mask's share of the time (`mask_share`), against the same search over all codes.
  tests: attention kernels, and a sharded step against a single device's, in a process of their own.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

from plum_jax.model.config import DecoderConfig, MixtureOfExperts
from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.trie import SidTrie
from plum_jax.systems.generative.phase import Phase, step_recipe
from plum_jax.training.chips import gpu_peak
from plum_jax.training.step import initial_state, make_train_step
from plum_jax.training.training_config import TrainingConfig

ROOT = pathlib.Path(__file__).resolve().parents[1]
VERSIONS = ("jax", "flax", "numpy")
VOCAB_SIZE, LENGTH, ROWS = 48_128, 1536, 16
ITEMS, LEVELS, CODES, BEAMS, USERS, HISTORY = 1_000_000, 4, 256, 50, 64, 200
TESTS = ("tests/model/test_gpu_attention.py", "tests/model/test_decoder.py", "tests/training/test_mesh.py")
TEST_SECONDS, ROUNDS = 150, 10


def main() -> None:
    """Each part in turn, and the line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on any machine")
    rehearse = parser.parse_args().rehearse
    device = jax.devices()[0]
    if device.platform != "gpu" and not rehearse:
        raise SystemExit(f"expected an NVIDIA GPU, got {device}: install .[gpu] where there is one, or add --rehearse")
    began = time.perf_counter()
    result: dict[str, Any] = {"device": device.device_kind, "machine": timing.machine(), "rehearsal": rehearse}
    result |= {name: metadata.version(name) for name in VERSIONS}
    print(f"{result['device']}; {result['machine']}")
    parts: dict[str, Callable[[], Any]] = {
        "dense": functools.partial(training, "dense", rehearse),
        "moe": functools.partial(training, "moe", rehearse),
        "transformers": functools.partial(by_transformers, rehearse),
        "search": functools.partial(search, rehearse),
        "tests": functools.partial(tests, rehearse),
    }
    for name, part in parts.items():
        try:
            result[name] = part()
        except Exception as error:  # one part's end is not the others'
            traceback.print_exc()
            result[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(f"{name}: {json.dumps(timing.rounded(result[name]))}", flush=True)
    if {"tokens_per_second"} <= result["dense"].keys() & result["transformers"].keys():
        ours, theirs = (result[side]["tokens_per_second"] for side in ("dense", "transformers"))
        result["tokens_per_second_vs_transformers"] = ours / theirs
    result["seconds"] = time.perf_counter() - began
    print(json.dumps(timing.rounded(result)))


def config_of(name: str, rehearse: bool) -> DecoderConfig:
    """gin/model's dense_110m and moe_110m in bfloat16 without dropout, or two layers of their kinds."""
    if rehearse:
        moe = MixtureOfExperts(num_experts=4, experts_per_token=2, mlp_dim=64) if name == "moe" else None
        sizes = {"num_layers": 2, "d_model": 64, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "mlp_dim": 128}
        return DecoderConfig(**sizes, moe=moe, dtype="bfloat16")
    from gin import config as gin  # type: ignore[attr-defined]
    from plum_jax.run import configure

    configure(["gin/run/compile.gin", f"gin/model/{name}_110m.gin"], ["MODEL_DIR = ''"])
    found = gin.get_configurable(DecoderConfig)()
    return DecoderConfig(**{**vars(found), "dtype": "bfloat16", "dropout_rate": 0.0, "remat": "none"})


def sizes_of(rehearse: bool) -> tuple[int, int, int]:
    """Vocabulary, rows and length."""
    return (512, 2, 64) if rehearse else (VOCAB_SIZE, ROWS, LENGTH)


def training(name: str, rehearse: bool) -> dict[str, float]:
    """Our step: tokens/s (median of steps), MFU, peak memory in bytes, seconds to compile."""
    vocab_size, rows, length = sizes_of(rehearse)
    recipe = step_recipe(Phase(TrainingConfig(), rows, length), config_of(name, rehearse), vocab_size)
    mesh, key = recipe.training.mesh.build(jax.devices()[:1]), jax.random.key(0)
    optimizer = recipe.training.transformation()
    state = initial_state(recipe.init_params, optimizer, key, mesh)
    step = make_train_step(recipe.objective(mesh), optimizer, 1, key, mesh, state)
    batch = jax.device_put(recipe.batch())
    began = time.perf_counter()
    state, sums = step(state, batch)
    jax.block_until_ready(sums)
    compiled = time.perf_counter() - began
    seconds = []
    for _ in range(3 if rehearse else ROUNDS):
        began = time.perf_counter()
        state, sums = step(state, batch)
        jax.block_until_ready(sums)
        seconds.append(time.perf_counter() - began)
    a_step = statistics.median(seconds)
    found = {"tokens_per_second": rows * length / a_step, "compile_seconds": compiled, "step_seconds": a_step}
    found["model_flops_per_second"] = recipe.flops / a_step
    peak = gpu_peak(jax.devices()[0].device_kind)
    if peak:
        found["mfu"] = recipe.flops / a_step / peak
    used = jax.devices()[0].memory_stats() or {}
    return found | ({"peak_bytes": used["peak_bytes_in_use"]} if "peak_bytes_in_use" in used else {})


def by_transformers(rehearse: bool) -> dict[str, float]:
    """PyTorch's step of a Llama of the dense model's sizes, AdamW, the same rows without packing."""
    import torch
    import transformers

    c, (vocab_size, rows, length) = config_of("dense", rehearse), sizes_of(rehearse)
    config = transformers.LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=c.d_model,
        intermediate_size=c.mlp_dim,
        num_hidden_layers=c.num_layers,
        num_attention_heads=c.num_heads,
        num_key_value_heads=c.num_kv_heads,
        head_dim=c.head_dim,
        tie_word_embeddings=c.tied_embeddings,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa", torch_dtype=torch.bfloat16)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    tokens = torch.randint(0, vocab_size, (rows, length), device=device)

    def run() -> None:
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    run()
    seconds = []
    for _ in range(3 if rehearse else ROUNDS):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    a_step = statistics.median(seconds)
    found = {"tokens_per_second": rows * length / a_step, "step_seconds": a_step}
    return found | ({"peak_bytes": torch.cuda.max_memory_allocated()} if device == "cuda" else {})


def search(rehearse: bool) -> dict[str, float]:
    """Users a second of constrained beams, and the share of the time that the constraint is."""
    items, users, history = (1000, 4, 8) if rehearse else (ITEMS, USERS, HISTORY)
    random, vocab_size = np.random.default_rng(0), sizes_of(rehearse)[0] + LEVELS * CODES
    codes = np.unique(random.integers(0, CODES, (items, LEVELS)), axis=0)
    trie = SidTrie.from_codes(codes, (CODES,) * LEVELS)
    decoder, one = Decoder(config_of("dense", rehearse), vocab_size), jnp.zeros((1, 1), jnp.int32)
    init = jax.jit(lambda key: decoder.init(key, one, one, jnp.ones((1, 1, 1), bool)))
    params = jax.tree.map(lambda x: x.unbox(), init(jax.random.key(0))["params"], is_leaf=lambda x: hasattr(x, "unbox"))
    prompts = jnp.asarray(random.integers(0, vocab_size, (users, history)), jnp.int32)
    options = {
        "sid_offsets": tuple(vocab_size - LEVELS * CODES + CODES * level for level in range(LEVELS)),
        "codebook_sizes": (CODES,) * LEVELS,
        "num_beams": 8 if rehearse else BEAMS,
    }
    lengths = jnp.full(users, history, jnp.int32)

    def side(given: SidTrie | None) -> Callable[[], object]:
        return lambda: jax.block_until_ready(
            beam_search(decoder, params, prompts, lengths, trie=given, **options)  # type: ignore[arg-type]
        )

    seconds = timing.interleaved({"constrained": side(trie), "free": side(None)}, 2 if rehearse else 5)
    constrained, free = (statistics.median(seconds[name]) for name in ("constrained", "free"))
    return {
        "items": len(codes),
        "users_per_second": users / constrained,
        "mask_share": max(0.0, 1 - free / constrained),
    }


def tests(rehearse: bool) -> Mapping[str, Any]:
    """What pytest says of the kernels and of sharded steps, on the platform that JAX has found."""
    files = TESTS[:1] if rehearse else TESTS
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu" if rehearse else "cuda",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done in {TEST_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith("FAILED")]
    return {"summary": lines[-1] if lines else done.stderr[-300:], "failed": failed[:20]}


if __name__ == "__main__":
    main()
