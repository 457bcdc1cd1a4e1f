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

import timing

VERSIONS = ("jax", "torch", "transformers", "numpy")


def main() -> None:
    """Measures the sections one after the other."""
    timing.run(__doc__, VERSIONS, "startup_speed", "train_step_speed")


if __name__ == "__main__":
    main()
