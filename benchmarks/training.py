"""Speed of training a decoder beside the same Llama in PyTorch, of its data, and from `plum` to the first step.

    python benchmarks/training.py           every size and length, PyTorch compiled too
    python benchmarks/training.py --quick   50 s: two cases, eager PyTorch

Needs PyTorch and transformers (`pip install -e .[bench]`). Prints tables, and at the end one line of JSON:

  train_step_vs_torch_min: time of eager PyTorch's step over ours, least of the cases (above 1: we are faster).
  gemm_share_max: FLOP/s of the step over those of the fastest large float32 product, most of the cases.
  data_wait_share_max: share of the time that steps wait for packed batches, most of the cases.
  import_seconds: `import plum_jax` and what a training loop needs; startup_seconds: from `plum` to the end of the first
    step, with all that precedes training made and XLA's compilations cached.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib import metadata

import timing

VERSIONS = ("jax", "torch", "transformers", "numpy")


def main() -> None:
    """Measures the sections one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most 50 s")
    quick = parser.parse_args().quick
    timing.bound_threads()
    os.environ["JAX_PLATFORMS"] = "cpu"

    # Imported here: what is set above is read when these libraries are loaded.
    import startup_speed
    import train_step_speed

    versions = {name: metadata.version(name) for name in VERSIONS}
    print(f"{timing.machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}")
    result = {"machine": timing.machine(), **versions, "threads": timing.THREADS}
    result |= startup_speed.measure(quick)
    result |= train_step_speed.measure(quick)
    print(json.dumps(timing.rounded(result)))


if __name__ == "__main__":
    main()
