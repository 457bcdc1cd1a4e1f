"""Seconds of imports, and from `plum` to the end of the first training step."""

from __future__ import annotations

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What a training loop of one's own imports besides the package.
IMPORTS = ("plum_jax", "plum_jax.training.trainer, plum_jax.feeds.batches, plum_jax.objectives.next_token")
IMPORT_LIMIT_PROBE = "import sys; assert 'tensorflow' not in sys.modules, 'TensorFlow was imported'"
# A small simulated corpus; one step a phase, so that the first row of metrics is written when the first step is done.
RUN = (
    *("--gin_file=gin/run/pipeline.gin", "--gin_file=gin/corpus/simulator.gin", "--gin_file=gin/model/cpu_tiny.gin"),
    *("--gin.simulator.Simulator.num_users=200", "--gin.simulator.Simulator.num_items=300"),
    *("--gin.CODEBOOK_SIZES=(32, 32, 64)", "--gin.NUM_PIECES=400", "--gin.LENGTH=160"),
    *("--gin.CPT_STEPS=1", "--gin.RETRIEVAL_STEPS=1"),
)


def measure(quick: bool) -> dict[str, float]:
    """Medians of three imports, the faster of two starts (one each where `quick`); prints them."""
    package, training = (
        statistics.median(_import_seconds(modules) for _ in range(1 if quick else 3))
        for modules in (IMPORTS[0], ", ".join(IMPORTS))
    )
    with tempfile.TemporaryDirectory() as directory:
        cold = _first_step_seconds(pathlib.Path(directory))
        warm = min(_first_step_seconds(pathlib.Path(directory)) for _ in range(1 if quick else 2))
    print(f"\nimport plum_jax {package:.2f} s; with all that training needs {training:.2f} s, without TensorFlow")
    print(f"plum to the end of the first step: {cold:.1f} s with everything to make, {warm:.1f} s warm")
    return {
        "import_seconds": package,
        "import_training_seconds": training,
        "startup_seconds": warm,
        "cold_seconds": cold,
    }


def _import_seconds(modules: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}; {IMPORT_LIMIT_PROBE}"], check=True, env=_environment())
    return time.perf_counter() - began


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def _first_step_seconds(directory: pathlib.Path) -> float:
    """Seconds of one start in `directory`, whose trainings and their evaluations are made anew."""
    run = directory / "run"
    shutil.rmtree(run / "train", ignore_errors=True)
    log = directory / "log.txt"
    began = time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "plum_jax.run", *RUN, f"--gin.MODEL_DIR='{run}'"],
            env=_environment(XDG_CACHE_HOME=str(directory / "cache")),
            cwd=ROOT,
            stdout=file,
            stderr=file,
        )
    try:
        while not any(path.stat().st_size for path in run.glob("train/*/metrics.jsonl")):
            if process.poll() is not None:
                raise RuntimeError(
                    f"expected a training, but `plum` ended with {process.returncode}: {log.read_text()}"
                )
            time.sleep(0.02)
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
