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

import argparse
import json
from importlib import metadata

import timing

VERSIONS = ("jax", "torch", "faiss-cpu", "numpy")


def main() -> None:
    """Measures the three sections and the stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most 50 s")
    quick = parser.parse_args().quick
    timing.bound_threads()

    # Imported here: what is set above is read when these libraries are loaded.
    import assignment_speed
    import residual_kmeans_speed
    import rqvae_training

    versions = {name: metadata.version(name) for name in VERSIONS}
    print(f"{timing.machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}")
    result = {"machine": timing.machine(), **versions, "threads": timing.THREADS}
    result |= assignment_speed.measure(quick)
    result["stream"] = assignment_speed.stream(quick)
    result |= residual_kmeans_speed.measure(quick)
    result |= rqvae_training.measure(quick)
    print(json.dumps(timing.rounded(result)))


if __name__ == "__main__":
    main()
