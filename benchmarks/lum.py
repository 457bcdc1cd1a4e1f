"""LUM: what a group of queries and packing save, a training step beside PyTorch's, and how much HNSW finds.

    python benchmarks/lum.py           each in three sizes
    python benchmarks/lum.py --quick   50 s: one size

Needs PyTorch (`pip install -e .[bench]`). Prints a line for each, and at the end one line of JSON:

  group_query_saving: share of the time that ten conditions take as queries by themselves, after a history of 256
    events, which a group of them saves; least of the sizes.
  cost_by_conditions: seconds of a group of N conditions over those of one, width 64 (not with --quick).
  packing_saving: share of the time of a pass over histories of 30 events on average that packing into rows of 256
    saves, against a row for each.
  train_step_vs_torch: seconds of PyTorch's step of the same network, loss and optimizer over ours; least of the sizes.
  recall_vs_exact: share of the exact ten nearest of a user among those that `evaluation.nearest` finds by HNSW, in a
    catalogue of 200,000 (quick: 50,000) clustered items.
"""

from __future__ import annotations

import timing

VERSIONS = ("jax", "torch", "numpy", "faiss-cpu")


def main() -> None:
    """Measures the sections one after the other."""
    timing.run(__doc__, VERSIONS, "lum_queries", "lum_training")


if __name__ == "__main__":
    main()
