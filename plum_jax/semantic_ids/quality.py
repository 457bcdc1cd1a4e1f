"""How good Semantic IDs are, before any recommender is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse

from plum_jax.corpus.features import ItemFeatures
from plum_jax.corpus.features.block import normalised
from plum_jax.semantic_ids.quantization import Quantization
from plum_jax.semantic_ids.table import LEVEL_LETTERS, SidTable, number_prefixes


def quality(
    table: SidTable,
    *,
    quantization: Quantization | None = None,
    features: ItemFeatures | None = None,
    categories: pl.DataFrame | None = None,
    co_watches: pl.DataFrame | None = None,
) -> dict[str, Any]:
    """The quality report of a table, as JSON values; None where nothing can be said. Lists run over prefixes of 1..L.

    Args:
      table: what is judged.
      quantization: for the reconstruction error.
      features: for the cosine of items that share a prefix.
      categories: columns of N items, String or List(String), e.g. genres: for prefix purity.
      co_watches: "item_a", "item_b", "count" of training co-watches: for prefix overlap.

    Returns:
      "items", "unique_sids", "uniqueness" (share of items whose SID no other item has), "max_items_per_sid",
      "distinct_prefixes", "levels" (size, used codes, usage, perplexity of each), and where the arguments allow
      "reconstruction_error" (share of the latents' variance left after each level), "prefix_cosine" by block,
      "prefix_purity" by category and "co_watch_prefix_overlap", these three with what chance gives, "at_random".
    """
    _, prefixes = number_prefixes(table.codes, table.codebook_sizes)
    items_per_sid = np.bincount(prefixes[:, -1])
    report: dict[str, Any] = {
        "items": table.num_items,
        "collision_policy": table.collision_policy,
        "codebook_sizes": list(table.codebook_sizes),
        "unique_sids": len(items_per_sid),
        "uniqueness": float((items_per_sid == 1).sum() / table.num_items),
        "max_items_per_sid": int(np.max(items_per_sid)),
        "distinct_prefixes": [int(level.max()) + 1 for level in prefixes.T],
        "levels": code_usage(table.codes, table.codebook_sizes),
    }
    if quantization is not None:
        report["reconstruction_error"] = reconstruction_error(quantization)
    if features is not None:
        report["prefix_cosine"] = {
            block.name: prefix_cosine(prefixes, normalised(block.values), block.present) for block in features.blocks
        }
    if categories is not None:
        report["prefix_purity"] = {name: prefix_purity(prefixes, categories[name]) for name in categories.columns}
    if co_watches is not None:
        report["co_watch_prefix_overlap"] = co_watch_prefix_overlap(prefixes, co_watches)
    return report


def code_usage(codes: np.ndarray, codebook_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """For each level: its size, the codes that items use, their share, and the perplexity exp(entropy) of their use."""
    levels = []
    for level, size in enumerate(codebook_sizes):
        counts = np.bincount(codes[:, level], minlength=size)
        share = counts[counts > 0].astype(float) / len(codes)
        levels.append(
            {
                "level": LEVEL_LETTERS[level],
                "size": size,
                "used": len(share),
                "usage": len(share) / size,
                "perplexity": float(np.exp(-np.sum(share * np.log(share)))),
            }
        )
    return levels


def reconstruction_error(quantization: Quantization) -> list[float] | None:
    """Squared error after each level, divided by the latents' variance about their mean; None without latents."""
    codec, latents = quantization.codec, quantization.latents
    if codec is None or latents is None:
        return None
    total = float(np.square(latents - latents.mean(axis=0, dtype=np.float64)).sum())
    levels = range(1, len(codec.codebooks) + 1)
    residuals = (codec.residual(latents, quantization.codes, level) for level in levels)
    return [float(np.square(residual, dtype=np.float64).sum()) / total for residual in residuals]


def prefix_cosine(prefixes: np.ndarray, values: np.ndarray, present: np.ndarray) -> dict[str, Any]:
    """Mean cosine over all pairs of items that share a prefix of 1..L or more (papers §4.2: .41/.68/.91/.97).

    Sums over groups give it exactly, without the pairs: sum over a != b of x_a . x_b = |sum x|^2 - sum |x|^2.

    Args:
      prefixes: int64 [N, L] from `number_prefixes`.
      values: float32 [N, D], rows of length 1 (or 0).
      present: bool [N]; other items are left out.
    """
    values, prefixes = values[present].astype(np.float64), prefixes[present]
    at_random = _pairwise_mean(np.zeros(len(values), np.int64), values)
    return {
        "by_prefix": [_pairwise_mean(level, values) for level in prefixes.T],
        "at_random": [at_random] * prefixes.shape[1],
    }


def _pairwise_mean(group: np.ndarray, values: np.ndarray) -> float | None:
    members = np.bincount(group)
    pairs = float(np.sum(members * (members - 1.0)))
    if not pairs:
        return None
    of_group = scipy.sparse.csr_array((np.ones(len(group)), (group, np.arange(len(group)))))
    return float((np.square(of_group @ values).sum() - np.square(values).sum()) / pairs)


def prefix_purity(prefixes: np.ndarray, labels: pl.Series, seed: int = 0) -> dict[str, Any]:
    """How much items that share a prefix of 1..L share a label; chance: the same with the labels dealt out anew.

    Over labelled items that share the prefix with another such item: the share that has the most common label of its
    group. Items alone under their prefix say nothing and are left out; and where items have several labels, so are the
    labels of more than half of the items, which agree wherever one looks.

    Args:
      prefixes: int64 [N, L].
      labels: N strings or lists of strings.
      seed: of the deal.
    """
    frame = pl.DataFrame({"label": labels, "item": np.arange(len(labels))}, schema_overrides={"item": pl.Int64})
    if isinstance(labels.dtype, pl.List):
        frame = frame.explode("label").drop_nulls().unique(maintain_order=True)
        common = frame.group_by("label").len().filter(pl.col("len") > frame["item"].n_unique() / 2)
        frame = frame.join(common, on="label", how="anti")
    frame = frame.drop_nulls()
    items = frame["item"].to_numpy()
    dealt = np.random.default_rng(seed).permutation(len(labels))[items]
    return {
        "by_prefix": [_purity(frame, level[items]) for level in prefixes.T],
        "at_random": [_purity(frame, level[dealt]) for level in prefixes.T],
    }


def _purity(labelled: pl.DataFrame, group: np.ndarray) -> float | None:
    """Purity of rows "item", "label" whose items are in these groups."""
    frame = labelled.with_columns(group=pl.Series(group))
    members = frame.group_by("group").agg(members=pl.col("item").n_unique())
    agreeing = frame.group_by("group", "label").len().group_by("group").agg(agreeing=pl.col("len").max())
    groups = members.join(agreeing, on="group").filter(pl.col("members") > 1)
    return groups.select(pl.col("agreeing").sum() / pl.col("members").sum()).item() if groups.height else None


def co_watch_prefix_overlap(prefixes: np.ndarray, co_watches: pl.DataFrame) -> Mapping[str, Any]:
    """Share of co-watches whose two items share a prefix of 1..L, and the same of two items drawn at random."""
    a, b, count = (co_watches[column].to_numpy() for column in ("item_a", "item_b", "count"))
    if not len(count):
        return {"by_prefix": [None] * prefixes.shape[1], "at_random": [None] * prefixes.shape[1]}
    shared = [float(count[level[a] == level[b]].sum() / count.sum()) for level in prefixes.T]
    num_pairs = len(prefixes) * (len(prefixes) - 1.0)
    members = [np.bincount(level) for level in prefixes.T]
    return {"by_prefix": shared, "at_random": [float((m * (m - 1.0)).sum() / num_pairs) for m in members]}
