"""Search beside recommendation: the index, the distilled student, cached segments, what option-adapters train.

    python benchmarks/search.py           more rounds, more points
    python benchmarks/search.py --quick   50 s

Prints a line for each section, and at the end one line of JSON:

  ann_recall_vs_exact: share of the exact first items that the index of HNSW over 4-bit codes finds.
  student_latency_vs_teacher: milliseconds of one query with its candidates by the student over those by the teacher.
  student_throughput_vs_teacher: pairs a second of the student over those of the teacher.
  late_interaction_vs_full_latency: milliseconds of a request whose segments are cached over those of the full model.
  tuned_parameter_share: parameters that option-adapters train over all.
"""

from __future__ import annotations

import timing

VERSIONS = ("jax", "numpy", "faiss-cpu")


def main() -> None:
    """Measures the sections one after the other."""
    timing.run(__doc__, VERSIONS, "search_index", "search_relevance", "search_late")


if __name__ == "__main__":
    main()
