"""Speed of constrained retrieval: the masks of a trie alone, and whole searches beside `transformers`.

    python benchmarks/retrieval.py           1 to 20 million items; 4 and 8 levels, 20 and 50 items, d 128 and 256
    python benchmarks/retrieval.py --quick   50 s: a million items; one search
    python benchmarks/retrieval.py --only "d 128, 4 levels"   some of the searches, in full

Needs PyTorch and transformers (`pip install -e .[bench]`). Prints tables, and at the end one line of JSON:

  users_per_second_vs_transformers_min: our users a second over those of `generate` with `prefix_allowed_tokens_fn`,
    least of the cases.
  mask_time_vs_static_max, index_memory_vs_static_max: a step's time and the index's bytes over STATIC's.
  constraint_cost_max: time of a search inside the catalogue over that of one without constraint, most of the cases.
  gemm_share_min: FLOP/s that a search needs over those of the fastest large float32 product, least of the cases.
"""

from __future__ import annotations

import argparse
import json
import os

import timing

VERSIONS = ("jax", "torch", "transformers", "numpy")


def main() -> None:
    """Measures the sections one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most 50 s")
    parser.add_argument("--only", default="", metavar="TEXT", help="searches alone, those whose name holds this text")
    arguments = parser.parse_args()
    quick = arguments.quick
    timing.bound_threads()
    os.environ["JAX_PLATFORMS"] = "cpu"

    # Imported here: what is set above is read when these libraries are loaded.
    import beam_search_speed
    import retrieval_masks

    result = timing.told(VERSIONS)
    result |= beam_search_speed.measure(quick, arguments.only)
    if not arguments.only:
        result |= retrieval_masks.measure(quick)
    print(json.dumps(timing.rounded(result)))


if __name__ == "__main__":
    main()
