"""The trunk: what sliding windows cost in training, what the store's search finds, what an event of a stream costs.

    python benchmarks/trunk.py           more rounds, more vectors
    python benchmarks/trunk.py --quick   50 s

The store needs LanceDB (`pip install -e .[store]`). Prints a line for each section, and at the end one line of JSON:

  sliding_windows_tokens_per_second_vs_fixed: events a second of training on all sliding windows, batches made and all,
    over those on the latest window of each user; a batch has as many rows of either.
  store_query_vs_exact_recall: share of the exact ten nearest items of a user that the store's index finds; beside it
    milliseconds a query of either. None where LanceDB is not installed.
  streaming_event_ms, streaming_vs_recompute: of payments_streaming.py.
"""

from __future__ import annotations

import timing

VERSIONS = ("jax", "numpy")
# Modules beside this one, each with `measure(quick) -> {key: figure}`; an application of the trunk adds its own.
SECTIONS = ("trunk_windows", "trunk_store", "payments_streaming")


def main() -> None:
    """Measures the sections one after the other."""
    timing.run(__doc__, VERSIONS, *SECTIONS)


if __name__ == "__main__":
    main()
