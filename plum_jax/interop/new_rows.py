"""Rows for new tokens, such as Semantic IDs, in the tables of a pre-trained decoder."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from plum_jax.interop import InteropError
from plum_jax.interop.layout import Params, host_params

HEWITT_NOISE = 1e-5**0.5


@dataclasses.dataclass(frozen=True)
class RowSources:
    """Old ids that new rows are averages of: entry i gives `weights[i]` of old row `ids[i]` to new row `rows[i]`.

    Attributes:
      rows: int [entries], from 0 (the first new row); in any order, a pair of row and id may come more than once.
      ids: int [entries], old ids.
      weights: float [entries], not negative; only their ratio within a row matters.
    """

    rows: np.ndarray
    ids: np.ndarray
    weights: np.ndarray


def grow_vocabulary(
    params: Any,
    vocab_size: int,
    *,
    seed: int,
    kept_rows: int | None = None,
    sources: RowSources | None = None,
    noise: float = HEWITT_NOISE,
) -> Params:
    """Parameters with a row for each of `vocab_size` ids in the embedding, and in the head where it is a table apart.

    A new row is the mean of the old rows plus noise of their covariance (Hewitt, "Initializing New Word Embeddings for
    Pretrained Language Models", 2021: the model's distribution over old tokens stays, and no new one has a logit that
    stands out), or, where `sources` has entries for it, their average instead of the mean. Embedding and head draw the
    same noise. Logits of old tokens do not change, except for those of ids that `kept_rows` drops.

    Args:
      params: a decoder's parameters; not changed.
      vocab_size: V of the result.
      seed: of the noise.
      kept_rows: how many old rows stay; the rest is replaced. For tables with more rows than the tokenizer has pieces;
        None: all.
      sources: what each new row is made of.
      noise: standard deviations of the old rows, along their own directions.

    Raises:
      InteropError: no new row, or sources outside the old and new rows.
    """
    params = host_params(params)
    kept = params["embedding"].shape[0] if kept_rows is None else kept_rows
    if not 0 < kept <= params["embedding"].shape[0] or vocab_size < kept:
        raise InteropError(
            f"expected 0 < kept_rows <= {params['embedding'].shape[0]} (the old rows) and kept_rows <= vocab_size, "
            f"got kept_rows={kept}, vocab_size={vocab_size}"
        )
    tables = {name: params[name] for name in ("embedding", "head") if name in params}
    grown = {name: _grown(table[:kept], vocab_size - kept, seed, sources, noise) for name, table in tables.items()}
    return {**params, **grown}


def rows_from_sources(table: np.ndarray, new_rows: int, sources: RowSources) -> np.ndarray:
    """float32 `[new_rows, D]` weighted averages of the rows of `table` [V, D]; rows without sources are the mean row.

    Raises:
      InteropError: rows or ids out of range, negative weights.
    """
    rows, ids, weights = (np.asarray(a) for a in (sources.rows, sources.ids, sources.weights))
    if rows.size and (rows.min() < 0 or rows.max() >= new_rows or ids.min() < 0 or ids.max() >= len(table)):
        raise InteropError(
            f"expected rows below {new_rows} and ids below {len(table)}, got rows {rows.min()} to {rows.max()} and ids "
            f"{ids.min()} to {ids.max()}"
        )
    if rows.size and weights.min() < 0:
        raise InteropError(f"expected weights of 0 or more, got {weights.min()}")
    shape = (new_rows, len(table))
    mixture = scipy.sparse.csr_matrix((weights.astype(np.float32), (rows, ids)), shape=shape)
    total = np.asarray(mixture.sum(axis=1))
    averages = (mixture @ table.astype(np.float32)) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, averages, table.astype(np.float32).mean(axis=0)).astype(np.float32)


def _grown(table: np.ndarray, new_rows: int, seed: int, sources: RowSources | None, noise: float) -> np.ndarray:
    old = table.astype(np.float32)
    none = np.zeros(0, np.int64)
    centre = rows_from_sources(old, new_rows, sources or RowSources(none, none, none.astype(np.float32)))
    draws = np.random.default_rng(seed).standard_normal((new_rows, old.shape[1]), np.float32)
    centred = old - old.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / max(len(old) - 1, 1))
    spread = (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)  # spread @ spread.T is the covariance
    return np.concatenate([table, (centre + noise * draws @ spread.T).astype(table.dtype)])
