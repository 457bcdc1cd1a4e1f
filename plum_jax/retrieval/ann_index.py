"""A small index of vectors: a graph (HNSW) over product codes of 4 bits, whose shortlist is ranked once more."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import cast

import faiss
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.semantic_ids.assignment import bounded_threads

KIND = "ann_index"
_GRAPH, _VECTORS, _IDS = "graph.faiss", "vectors.npy", "ids.json"
_CENTROIDS = 16  # of a 4-bit code
NOTHING = -1  # instead of an item, where the graph reached fewer


@dataclasses.dataclass(frozen=True)
class AnnIndex:
    """HNSW (arXiv 1603.09320) whose vectors are product codes of 4 bits (Jégou et al. 2011), as Etsy serves (arXiv
    2306.04833), for the largest inner products.

    A graph needs a distance: each item gets one more dimension, sqrt(R² - |x|²) with R the longest vector's length, and
    a query 0 there, so that the order by distance is that by the product (Bachrach et al., RecSys 2014). Codes of 4
    bits are coarse; what the graph finds is ranked once more by the vectors themselves, kept as float16.

    Attributes:
      links: M of HNSW, links of an item on each level, 2 M on the lowest.
      build_effort: efConstruction: more finds more and takes longer.
      code_dims: dimensions that share a code of 4 bits.
      keep_vectors: whether vectors are kept for the second ranking; without, scores are the codes'.
    """

    links: int = 16
    build_effort: int = 200
    code_dims: int = 2
    keep_vectors: bool = True

    def build(self, vectors: np.ndarray, ids: Sequence[str], encoder: str) -> BuiltIndex:
        """The index of vectors float32 [N, D], with the same result at every call.

        Args:
          vectors: of the items.
          ids: theirs, N.
          encoder: fingerprint of what made the vectors.

        Raises:
          ValueError: no vectors, some that are not finite, or not as many as ids.
        """
        if len(vectors) != len(ids) or not len(vectors) or not np.isfinite(vectors).all():
            raise ValueError(
                f"expected finite vectors, one an id, got {len(vectors)} vectors, {len(ids)} ids and "
                f"{int((~np.isfinite(vectors)).sum())} numbers that are not finite"
            )
        longest = np.linalg.norm(vectors, axis=1).max()
        rest = np.sqrt(np.maximum(longest**2 - np.sum(vectors**2, axis=1, keepdims=True), 0))
        wide = self._padded(np.concatenate([vectors, rest], axis=1))
        graph = faiss.IndexHNSWPQ(wide.shape[1], wide.shape[1] // self.code_dims, self.links, 4)
        graph.hnsw.efConstruction = self.build_effort
        with bounded_threads(1):
            graph.train(np.resize(wide, (max(len(wide), _CENTROIDS), wide.shape[1])))
            graph.add(wide)
        kept = vectors.astype(np.float16) if self.keep_vectors else None
        return BuiltIndex(self, graph, kept, float(longest), tuple(ids), encoder)

    def _padded(self, vectors: np.ndarray) -> np.ndarray:
        """float32 [n, D'], with zeros behind, for whole codes."""
        return np.pad(vectors, ((0, 0), (0, -vectors.shape[1] % self.code_dims))).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class BuiltIndex:
    """An index that can be asked.

    Attributes:
      config: how it was made.
      graph: faiss's `IndexHNSWPQ`.
      vectors: float16 [N, D], for the second ranking; None: none.
      longest: R.
      ids: of the items.
      encoder: fingerprint of what made the vectors.
    """

    config: AnnIndex
    graph: faiss.IndexHNSWPQ
    vectors: np.ndarray | None
    longest: float
    ids: tuple[str, ...]
    encoder: str

    @functools.cached_property
    def size_in_bytes(self) -> dict[str, int]:
        """Of "codes" (with their centroids), "links" (with all else that the graph has), "vectors" and the "total"."""
        codes = int(faiss.serialize_index(faiss.downcast_index(self.graph.storage)).nbytes)
        parts = {"codes": codes, "links": int(faiss.serialize_index(self.graph).nbytes) - codes}
        parts["vectors"] = 0 if self.vectors is None else self.vectors.nbytes
        return {**parts, "total": sum(parts.values())}

    def search(
        self, queries: np.ndarray, k: int, effort: int = 64, shortlist: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The items with the largest products, nearly: scores float32 [B, k] and items int32 [B, k], best first.

        Args:
          queries: float32 [B, D].
          k: items; `NOTHING` with a score of -inf where fewer were reached.
          effort: efSearch, items that a search keeps in sight; at least as many as are asked of the graph.
          shortlist: so many are ranked once more by their vectors, k at least; 0: none, scores are the codes'.

        Raises:
          ValueError: a shortlist without vectors.
        """
        if shortlist and self.vectors is None:
            raise ValueError("expected an index with vectors for a shortlist: make it with keep_vectors=True")
        wanted = min(max(k, shortlist), len(self.ids))
        self.graph.hnsw.efSearch = max(effort, wanted)
        zeros = np.zeros((len(queries), 1), np.float32)
        with bounded_threads(1):
            wide = self.config._padded(np.concatenate([queries, zeros], axis=1))
            distances, found = self.graph.search(wide, wanted)
        lengths = np.sum(queries.astype(np.float32) ** 2, axis=1, keepdims=True)
        scores = (self.longest**2 + lengths - distances) / 2
        if shortlist and self.vectors is not None:
            near = self.vectors[np.maximum(found, 0)].astype(np.float32)
            scores = np.einsum("BD,BKD->BK", queries.astype(np.float32), near)
        scores = np.where(found >= 0, scores, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        filled = ((0, 0), (0, k - order.shape[1]))
        scores, found = (np.take_along_axis(part, order, axis=1) for part in (scores, found))
        scores = np.pad(scores, filled, constant_values=-np.inf).astype(np.float32)
        return scores, np.pad(found, filled, constant_values=NOTHING).astype(np.int32)

    def write(self, directory: epath.PathLike) -> None:
        """As an artefact "ann_index", made by the encoder; what is there is replaced."""

        def write(aside: epath.Path) -> None:
            artifact.write_bytes(aside / _GRAPH, faiss.serialize_index(self.graph).tobytes())
            artifact.write_json(aside / _IDS, {"ids": self.ids, "longest": self.longest})
            if self.vectors is not None:
                with (aside / _VECTORS).open("wb") as file:
                    np.save(file, self.vectors)

        made = artifact.fingerprint(self.config, self.encoder, self.ids)
        inputs = {"encoder": self.encoder}
        artifact.write_artifact(directory, kind=KIND, fingerprint=made, config=self.config, inputs=inputs, write=write)


def read_index(directory: epath.PathLike, encoder: str) -> BuiltIndex:
    """The index of a directory.

    Args:
      directory: that `BuiltIndex.write` has written.
      encoder: fingerprint of what makes the queries' vectors.

    Raises:
      artifact.ArtifactError: no index there, or that of another encoder.
    """
    directory = epath.Path(directory)
    manifest = artifact.read_manifest(directory, KIND)
    if manifest.inputs["encoder"] != encoder:
        raise artifact.ArtifactError(
            f"the index at {directory} has vectors of encoder {manifest.inputs['encoder']}, and the queries' are of "
            f"encoder {encoder}: products of the two mean nothing; make the index again with this encoder, or ask the "
            "one that made it"
        )
    graph = cast(faiss.IndexHNSWPQ, faiss.deserialize_index(np.frombuffer((directory / _GRAPH).read_bytes(), np.uint8)))
    said, vectors = json.loads((directory / _IDS).read_text()), None
    if (directory / _VECTORS).exists():
        with (directory / _VECTORS).open("rb") as file:
            vectors = np.load(file)
    config = AnnIndex(**{name: value for name, value in manifest.config.items() if name != "type"})
    return BuiltIndex(config, graph, vectors, said["longest"], tuple(said["ids"]), encoder)
