"""What the store's index finds of what an exact search finds, and what either takes."""

from __future__ import annotations

import tempfile

import numpy as np
import pyarrow.parquet as pq
import timing
from etils import epath

from plum_jax import artifact
from plum_jax.retrieval.vector_store import VectorStore, vectors_table

WIDTH, CLUSTERS, K = 64, 200, 10


def measure(quick: bool) -> dict[str, float | None]:
    """The section's keys."""
    try:
        import lancedb  # noqa: F401
    except ImportError:
        print("store: LanceDB is not installed")
        return {"store_query_vs_exact_recall": None}
    count, queries = (20_000, 50) if quick else (200_000, 200)
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLUSTERS, WIDTH))
    vectors = centres[random.integers(0, CLUSTERS, count)] + random.normal(size=(count, WIDTH))
    asked = centres[random.integers(0, CLUSTERS, queries)] + random.normal(size=(queries, WIDTH))
    vectors, asked = vectors.astype(np.float32), asked.astype(np.float32)
    with tempfile.TemporaryDirectory() as directory:
        place = epath.Path(directory)

        def write(aside: epath.Path) -> None:
            pq.write_table(
                vectors_table("items", [str(n) for n in range(count)], vectors), str(aside / "trunk_items.parquet")
            )

        artifact.write_artifact(
            place / "items", kind="trunk_items", fingerprint="f", config={}, inputs={"trunk": "t"}, write=write
        )
        store = VectorStore(str(place / "store"))
        store.push("items", place / "items")
        found: dict[bool, np.ndarray] = {}

        def search(exact: bool) -> None:
            found[exact] = store.search("items", "t", asked, K, exact=exact)[0]

        sides = {"exact": lambda: search(True), "index": lambda: search(False)}
        seconds = timing.interleaved(sides, 1 if quick else 3)
    recall = float(np.mean([np.isin(a, b).mean() for a, b in zip(found[True], found[False], strict=True)]))
    millis = {name: 1000 * min(times) / queries for name, times in seconds.items()}
    print(
        f"store: {recall:.3f} of the exact ten of {count:,}; ms a query: index {millis['index']:.1f}, "
        f"exact {millis['exact']:.1f}"
    )
    return {
        "store_query_vs_exact_recall": recall,
        "store_query_ms": millis["index"],
        "store_exact_query_ms": millis["exact"],
    }
