"""Searches judged by graded judgements: nDCG over the judged items, recall among all items, query by query."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Any, Literal, Protocol

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.sources.judgements import JudgedQueries
from plum_jax.corpus.splits import FOLDS
from plum_jax.evaluation.files import write_frame
from plum_jax.evaluation.metrics import paired_bootstrap, summarise
from plum_jax.evaluation.metrics.graded import gains_of, ndcg_of_queries, recall_of_relevant
from plum_jax.retrieval.recommend import select_rows
from plum_jax.training.run_record import run_record

Vectors = tuple[np.ndarray, np.ndarray]  # float32 [Q, D] of queries and [N, D] of items, of length one or zero


class FittedJudgedSearch(Protocol):
    """A trained search of judged queries.

    Attributes:
      judged: the queries.
      facts: what its row says.
      text_vectors: of queries and items, that nothing was trained for.
    """

    @property
    def judged(self) -> JudgedQueries: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def text_vectors(self) -> Vectors: ...

    def pair_scores(self, pairs: np.ndarray) -> np.ndarray:
        """float32 [n], of judged pairs by number int [n]."""

    def best(self, queries: np.ndarray, k: int) -> np.ndarray:
        """int32 [n, k], the first items of all for queries by number."""


def judged_search(
    directory: epath.Path,
    name: str,
    fitted: FittedJudgedSearch,
    *,
    relevant: float,
    k: int = 10,
    max_queries: int | None = None,
    fold: Literal["validation", "test"] = "test",
    cosines: Mapping[str, Vectors] | None = None,
    base: str = "text_cosine",
    facts: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Rows of a model and of orders that nothing was trained for, on the queries of a fold.

    "ndcg@k" is over the judged items of each query, gain 2^(grade - lowest grade) - 1, queries without a gain left out;
    "recall@k" is the share of the judged items of grade `relevant` or more that are among the first k of all items, for
    `max_queries` of the queries ("recall_queries"); items that nobody judged count as misses, so it is a lower bound.
    "text_cosine" orders by the cosine of text vectors, which the network reads too; "no_order" is the mean of all
    orders. The model's row has its difference to `base`, those of `cosines` to "text_cosine", by paired bootstrap over
    queries.

    Args:
      directory: of the run; each query's figures are written to `evaluation/<name>.queries.parquet`.
      name: of the model's row.
      fitted: it.
      relevant: the least grade of a relevant item.
      k: cut-off.
      max_queries: that all items are ranked for, evenly spread; None: all of the fold.
      fold: whose queries judge.
      cosines: name of a row -> vectors whose cosine is an order too.
      base: name of the row of a cosine that the model is compared with.
      facts: what the rows say besides.

    Raises:
      ValueError: a `base` that is no row of a cosine.
    """
    require_cosine(base, cosines or {})
    start, judged = time.perf_counter(), fitted.judged
    vectors = {"text_cosine": fitted.text_vectors, **(cosines or {})}
    pairs = np.flatnonzero(np.isin(judged.query, queries_of_fold(judged, fold, None)))
    query, item = judged.query[pairs], judged.item[pairs]
    scores = {name: fitted.pair_scores(pairs)}
    scores |= {one: np.sum(of[query] * by[item], axis=1) for one, (of, by) in vectors.items()}
    scores["no_order"] = np.zeros(len(pairs))
    gains = gains_of(judged.grade[pairs], float(judged.grade.min()))
    ndcg = {one: ndcg_of_queries(query, of_pairs, gains, k) for one, of_pairs in scores.items()}
    asked = queries_of_fold(judged, fold, max_queries)
    lists = {name: fitted.best(asked, k), **{one: _nearest(both, asked, k) for one, both in vectors.items()}}
    recall = {one: _recall(judged, asked, found, relevant, k) for one, found in lists.items()}
    rows, common = [], {**(facts or {}), "task": "search", "fold": fold, "relevant": relevant}
    for one, of_each in ndcg.items():
        frame = pl.DataFrame({"query": np.unique(query), f"ndcg@{k}": of_each})
        metrics = _means({f"ndcg@{k}": of_each})
        if one in recall:
            metrics |= _means({f"recall@{k}": recall[one]}) | {"recall_queries": int(np.isfinite(recall[one]).sum())}
            frame = frame.join(pl.DataFrame({"query": asked, f"recall@{k}": recall[one]}), on="query", how="left")
        write_frame(directory / "evaluation" / f"{one}.queries.parquet", frame)
        said = {**common, **(fitted.facts if one == name else {"seed": fitted.facts["seed"]})}
        said |= {"queries": int(np.isfinite(of_each).sum())}
        rows.append(run_record(one, metrics, **said))
    compared = {name: base, **dict.fromkeys(cosines or {}, "text_cosine")}
    for row in (one for one in rows if one["name"] in compared):
        row["base"] = compared[row["name"]]
        for metric, values in ((f"ndcg@{k}", ndcg), (f"recall@{k}", recall)):
            row |= _difference(metric, values[row["name"]], values[row["base"]])
    seconds = time.perf_counter() - start
    rows[0]["wall_seconds"] = round(seconds + rows[0]["train_seconds"], 1)
    return rows


def require_cosine(base: str, cosines: Collection[str]) -> None:
    """Refuses a base that is neither the cosine of text vectors nor one of those named."""
    names = ("text_cosine", *cosines)
    if base not in names:
        raise ValueError(f"expected a base among {', '.join(names)}, got {base!r}")


def _difference(metric: str, values: np.ndarray, base: np.ndarray) -> dict[str, float]:
    both = np.isfinite(values) & np.isfinite(base)
    return paired_bootstrap(values[both], base[both]).named(f"{metric}_difference")


def queries_of_fold(judged: JudgedQueries, fold: str, at_most: int | None) -> np.ndarray:
    """Numbers of the queries of "validation" or "test", evenly spread; all for None."""
    found = np.flatnonzero(judged.fold == FOLDS[fold])
    return found[select_rows(len(found), at_most)]


def _recall(judged: JudgedQueries, queries: np.ndarray, lists: np.ndarray, relevant: float, k: int) -> np.ndarray:
    first, last = (np.searchsorted(judged.query, queries, side=side) for side in ("left", "right"))
    wanted = [judged.item[a:b][judged.grade[a:b] >= relevant] for a, b in zip(first, last, strict=True)]
    return np.array([recall_of_relevant(found, items, k) for found, items in zip(lists, wanted, strict=True)])


def _nearest(vectors: Vectors, queries: np.ndarray, k: int) -> np.ndarray:
    """int32 [n, k], items by their cosine with queries by number."""
    of_queries, of_items = vectors
    found = [np.argsort(-(of_items @ of_queries[query]), kind="stable")[:k] for query in queries]
    return np.stack(found).astype(np.int32)


def _means(of_queries: Mapping[str, np.ndarray]) -> dict[str, float]:
    return summarise({name: values[np.isfinite(values)] for name, values in of_queries.items()})


def table(rows: list[dict[str, Any]], k: int) -> str:
    """Rows as text."""
    lines = [f"{'':16s}{f'ndcg@{k}':>20s}{f'recall@{k}':>20s}"]
    for row in rows:
        cells = (f"{row[n]:.4f} ± {row[n + '_se']:.4f}" if n in row else "" for n in (f"ndcg@{k}", f"recall@{k}"))
        lines.append(f"{row['name']:16s}" + "".join(f"{cell:>20s}" for cell in cells))
    return "\n".join(lines)
