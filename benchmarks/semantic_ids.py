"""Speed of Semantic IDs beside what others do on the same cores, and beside what the machine can do.

    python benchmarks/semantic_ids.py           all sizes, PyTorch compiled too
    python benchmarks/semantic_ids.py --quick   50 s: the default sizes, eager PyTorch

Needs PyTorch (`pip install -e .[bench]`). Prints tables, and at the end one line of JSON, in which above 1 is faster
than the others:

  rqvae_training_vs_torch: items a second of our training step over eager PyTorch's, least of SID-v1 and SID-v2.
  residual_kmeans_vs_faiss: seconds of faiss's `ResidualQuantizer` over ours at no larger error, least of the cases.
  assignment_share_of_bound: time of the plain matrix products over that of our assignment, least of the sizes.
"""

from __future__ import annotations

import timing

VERSIONS = ("jax", "torch", "faiss-cpu", "numpy")


def main() -> None:
    """Measures the sections one after the other."""
    timing.run(__doc__, VERSIONS, "assignment_speed", "residual_kmeans_speed", "rqvae_training")


if __name__ == "__main__":
    main()
