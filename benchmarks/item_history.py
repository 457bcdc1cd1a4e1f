"""One position an item beside one a Semantic-ID level, and SASRec's training beside RecBole's.

    python benchmarks/item_history.py           three sizes; 30 s of each side of SASRec's training
    python benchmarks/item_history.py --quick   50 s: one size

Needs PyTorch (`pip install -e .[bench]`). Prints tables, and at the end one line of JSON:

  item_vs_flat_train_flops_per_history: training FLOPs of a history of 50 items with one position an item, depth decoder
    and dense head included, over those with one position a level, same Transformer; most of the sizes.
  item_vs_flat_users_per_second: users a second of a beam search after 50 items, one position an item over one a level;
    same Transformer, catalogue and beams; least of the sizes.
  sasrec_vs_recbole_train: seconds of an epoch over the same histories, RecBole's SASRec with cross-entropy over ours
    at the same sizes.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib import metadata

import timing

VERSIONS = ("jax", "torch", "numpy")


def main() -> None:
    """Measures the sections one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most 50 s")
    quick = parser.parse_args().quick
    timing.bound_threads()
    os.environ["JAX_PLATFORMS"] = "cpu"

    # Imported here: what is set above is read when these libraries are loaded.
    import item_positions
    import sasrec_training

    versions = {name: metadata.version(name) for name in VERSIONS}
    print(f"{timing.machine()}; {', '.join(f'{name} {version}' for name, version in versions.items())}")
    result = {"machine": timing.machine(), **versions, "threads": timing.THREADS}
    result |= item_positions.measure(quick)
    result |= sasrec_training.measure(quick)
    print(json.dumps(timing.rounded(result)))


if __name__ == "__main__":
    main()
