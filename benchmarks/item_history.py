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

import timing

VERSIONS = ("jax", "torch", "numpy")


def main() -> None:
    """Measures the sections one after the other."""
    timing.run(__doc__, VERSIONS, "item_positions", "sasrec_training")


if __name__ == "__main__":
    main()
