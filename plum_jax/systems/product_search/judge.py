"""What quality gives at which recall, and what an index loses against the exact search, as rows of results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import Catalogue, paired_bootstrap
from plum_jax.evaluation.system import Ranking
from plum_jax.retrieval.ann_index import BuiltIndex
from plum_jax.stages import Stages
from plum_jax.systems.product_search.quality import FIRST, STATISTICS, Quality, good_items, highest
from plum_jax.systems.product_search.system import FittedProductSearch
from plum_jax.training.run_record import run_record

GOOD = f"good@{FIRST}"


def quality_rows(
    stages: Stages,
    name: str,
    fitted: FittedProductSearch,
    quality: Quality,
    task: str,
    ks: Sequence[int],
    facts: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows "<name>.plain.<task>" and "<name>.quality.<task>" of test searches: ranking metrics, and "good@10", the
    share of good items of the test fold in the first 10; the second with its differences to the first and 95%
    intervals, by paired bootstrap over searches.
    """
    users, vectors = fitted.searches_of(task, "test")
    good, catalogue = good_items(stages.split, "test"), Catalogue(len(fitted.data.items))
    sides = {
        "plain": (vectors, fitted.item_vectors),
        "quality": (quality.of_searches(vectors), quality.of_items(fitted.item_vectors)),
    }
    rows, of_searches = [], []
    for side, (searches, items) in sides.items():
        lists, scores = exact_top_k(searches, items, users, max(ks))
        share = good[lists.items[:, : min(FIRST, len(good))]].mean(axis=1)
        metrics, _ = judged(Ranking(lists, scores, shares={GOOD: share}), users.user, users.target_item, ks, catalogue)
        hits = {f"recall@{k}": (lists.items[:, :k] == users.target_item[:, None]).any(axis=1) for k in ks}
        of_searches.append({GOOD: share, **hits})
        said = {**facts, **fitted.facts, "model": name, "task": task, "side": side, "good_items": int(good.sum())}
        if side == "quality":
            said["weights"] = dict(
                zip(STATISTICS, (round(float(weight), 6) for weight in quality.weights), strict=True)
            )
        rows.append(run_record(f"{name}.{side}.{task}", metrics, **said))
    plain, with_quality = of_searches
    for metric in plain:
        found = paired_bootstrap(with_quality[metric].astype(float), plain[metric].astype(float))
        rows[1] |= found.named(f"{metric}_difference")
    return rows


def index_rows(
    name: str,
    index: BuiltIndex,
    searches: np.ndarray,
    items: np.ndarray,
    targets: np.ndarray,
    efforts: Sequence[int],
    shortlists: Sequence[int],
    k: int,
    facts: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows "<name>.exact" and "<name>.<effort>.<shortlist>": "of_exact@k", the share of the exact first k that is
    found; "recall@k" of the targets; searches a second on one core; bytes, in all and of the parts.

    Args:
      name: of the model.
      index: over the items.
      searches, items: float32 [B, D] and [N, D].
      targets: int32 [B].
      efforts, shortlists: of `BuiltIndex.search`, each with each.
      k: cut-off.
      facts: what all rows say besides.
    """
    began = time.perf_counter()
    first = highest(searches @ items.T, k)
    seconds = time.perf_counter() - began
    rows = [_row(f"{name}.exact", first, first, targets, seconds, {"total": items.nbytes}, k, facts)]
    for shortlist in shortlists:
        for effort in efforts:
            began = time.perf_counter()
            _, found = index.search(searches, k, effort, shortlist)
            seconds = time.perf_counter() - began
            said = {**facts, "effort": effort, "shortlist": shortlist}
            size = index.size_in_bytes if shortlist else {**index.size_in_bytes, "vectors": 0}
            size["total"] = sum(size[part] for part in ("codes", "links", "vectors"))
            rows.append(_row(f"{name}.{effort}.{shortlist}", found, first, targets, seconds, size, k, said))
    return rows


def _row(
    name: str,
    found: np.ndarray,
    exact: np.ndarray,
    targets: np.ndarray,
    seconds: float,
    size: Mapping[str, int],
    k: int,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    of_exact = np.array([np.isin(one, other).mean() for one, other in zip(exact, found, strict=True)])
    metrics = {f"of_exact@{k}": float(of_exact.mean()), f"of_exact@{k}_se": float(_error(of_exact))}
    metrics[f"recall@{k}"] = float((found == targets[:, None]).any(axis=1).mean())
    metrics["searches_per_second"] = round(len(found) / seconds, 1)
    return run_record(name, metrics | {f"bytes_{part}": value for part, value in size.items()}, **facts)


def _error(values: np.ndarray) -> float:
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0


def quality_table(rows: Sequence[Mapping[str, Any]], ks: Sequence[int]) -> str:
    """Rows of `quality_rows` as text."""
    names = [GOOD, *(f"recall@{k}" for k in ks)]
    lines = [f"{'':24s}" + "".join(f"{name:>20s}" for name in names)]
    for row in rows:
        lines.append(f"{row['name']:24s}" + "".join(f"{row[n]:.4f} ± {row[n + '_se']:.4f}".rjust(20) for n in names))
    return "\n".join([*lines, f"weights: {rows[-1]['weights']}"])


def index_table(rows: Sequence[Mapping[str, Any]], k: int) -> str:
    """Rows of `index_rows` as text."""
    lines = [f"{'':24s}{f'of exact@{k}':>14s}{f'recall@{k}':>12s}{'searches/s':>12s}{'MB':>8s}"]
    for row in rows:
        lines.append(
            f"{row['name']:24s}{row[f'of_exact@{k}']:>14.4f}{row[f'recall@{k}']:>12.4f}"
            f"{row['searches_per_second']:>12,.0f}{row['bytes_total'] / 1e6:>8.2f}"
        )
    return "\n".join(lines)
