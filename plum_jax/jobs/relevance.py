"""Relevance of items to queries (Pinterest, arXiv 2410.17152): teachers, assistants, students; judged and asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from etils import epath

from plum_jax.corpus.sources.judgements import JudgedQueries, Judgements
from plum_jax.encoders.language_model import LanguageModel, LanguageModelStart
from plum_jax.evaluation.base import require_base
from plum_jax.evaluation.files import write_frame
from plum_jax.model.int8 import size_in_bytes
from plum_jax.ranking.ranker import table_sizes
from plum_jax.relevance import baselines
from plum_jax.relevance.classes import OrderedClasses
from plum_jax.relevance.fitted import FittedRelevance
from plum_jax.relevance.judge import JudgedFold, cross_entropy, differences
from plum_jax.relevance.model import RelevanceModel
from plum_jax.relevance.pairs import NearPairs, RelevanceData
from plum_jax.relevance.speed import QUERIES, speed_of
from plum_jax.training.run_record import run_record, write_results

INT8 = "_int8"  # behind the name of a model whose weights are in 8 bits
BASELINES = ("no_order", "text_cosine", "bm25")


def train_and_judge(
    model_dir: str,
    judgements: Judgements,
    classes: OrderedClasses,
    unlabelled: NearPairs,
    models: Mapping[str, RelevanceModel],
    base: Mapping[str, str] | None = None,
    int8: Sequence[str] = (),
    cosines: Mapping[str, LanguageModel] | None = None,
    fold: Literal["validation", "test"] = "test",
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains models, each with the teacher that stands before it, and judges them all, their speed too.

    A row each in `results.jsonl`, as soon as it is made, each query's figures in
    `evaluation/<seed>/<name>.queries.parquet`, and a table.

    Args:
      model_dir: of the run. A model's directory has its own seed in its name: a teacher is trained once for all seeds
        of its students.
      judgements: queries, items and grades.
      classes: of the grades.
      unlabelled: pairs that teachers judge for their students.
      models: name -> model, in the order of training.
      base: name of a row -> name of the one before it that it is compared with; None: no differences.
      int8: models that are judged once more with weights in 8 bits, as "<name>_int8".
      cosines: name of a row -> imported language model whose vectors' cosine is an order too, untrained; None: none.
      fold: whose queries judge.
      seed: of the run.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      CorpusError: a grade outside of the classes' scale, and what else `Judgements.read` refuses.
      ValueError: no model, a teacher that stands behind its student, or a base or int8 that names no row.
    """
    directory, base, cosines = epath.Path(model_dir), base or {}, cosines or {}
    if not models:
        raise ValueError("expected at least one model to train, got none: set MODELS")
    require_base({name: name for name in int8}, models)
    names = [*BASELINES, *cosines]
    for name in models:
        names += [name, f"{name}{INT8}"] if name in int8 else [name]
    require_base(base, names)
    for name, other in base.items():
        if names.index(other) > names.index(name):
            raise ValueError(
                f"BASE compares {name!r} with {other!r}, which is made behind it: change the order of MODELS"
            )
    judged = classes.read(judgements)
    data = RelevanceData(judged, classes, unlabelled.of(judged))
    of_fold, common = JudgedFold.of(data, fold), {"data": judgements.name, "fold": fold}
    found: dict[str, pl.DataFrame] = {}
    rows = []

    def write(name: str, of_queries: pl.DataFrame, facts: Mapping[str, Any]) -> None:
        found[name] = of_queries
        write_frame(directory / "evaluation" / str(seed) / f"{name}.queries.parquet", of_queries)
        compared = {"base": base[name], **differences(of_queries, found[base[name]])} if name in base else {}
        rows.append(run_record(name, of_fold.metrics(of_queries), **common, **facts, **compared))
        write_results(directory, rows[-1:], results_file)

    starts = {name: model.start((), directory) for name, model in cosines.items()}
    for name, scores in _untrained(judged, of_fold, starts, directory).items():
        write(name, of_fold.by_query(scores), {"seed": seed})
    fitted: dict[str, FittedRelevance] = {}
    for name, model in models.items():
        fitted[name] = model.fit(data, directory, name, fitted)
        write(name, *_judged(fitted[name], of_fold, fold))
        if name in int8:
            write(f"{name}{INT8}", *_judged(fitted[name].int8(), of_fold, fold, fitted[name]))
    print(table(rows))


def ask(
    model_dir: str,
    judgements: Judgements,
    classes: OrderedClasses,
    unlabelled: NearPairs,
    models: Mapping[str, RelevanceModel],
    name: str,
    query: str,
    nearest: int = 100,
    k: int = 10,
) -> None:
    """Prints the most relevant of the items that are nearest to a query by text, with their expected levels.

    Args:
      model_dir, judgements, classes, unlabelled, models: of the run; what is not trained yet is trained.
      name: of the model that is asked.
      query: words; it need not be one of the data's.
      nearest: items that are looked at.
      k: items that are printed.

    Raises:
      ValueError: no such model, or a query without a word.
    """
    if name not in models:
        raise ValueError(f"NAME is {name!r}, expected one of {', '.join(models)}")
    judged = classes.read(judgements)
    near = baselines.nearest_items(query, judged.texts, nearest)
    data = RelevanceData(judged, classes, unlabelled.of(judged))
    fitted: dict[str, FittedRelevance] = {}
    for before, model in models.items():
        fitted[before] = model.fit(data, epath.Path(model_dir), before, fitted)
        if before == name:
            break
    levels = fitted[name].levels(query, near)
    for place, row in enumerate(np.argsort(-levels, kind="stable")[:k], start=1):
        print(f"{place:3d}. {levels[row]:6.3f}  {judged.item_ids[near[row]]}  {judged.texts[near[row]]}")


def _untrained(
    judged: JudgedQueries, of_fold: JudgedFold, starts: Mapping[str, LanguageModelStart], run: epath.Path
) -> dict[str, np.ndarray]:
    texts = judged.queries, judged.texts, of_fold.pairs
    scores = (np.zeros(len(of_fold.pairs)), baselines.text_cosine(*texts), baselines.BM25().scores(*texts))
    cosines = {name: baselines.language_model_cosine(start, *texts, run) for name, start in starts.items()}
    return {**dict(zip(BASELINES, scores, strict=True)), **cosines}


def _judged(
    fitted: FittedRelevance,
    of_fold: JudgedFold,
    fold: Literal["validation", "test"],
    exact: FittedRelevance | None = None,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Each query's figures, and what a row says besides; `exact` is the model whose weights are in 8 bits here."""
    began, judged = time.perf_counter(), fitted.data.judged
    logits = fitted.logits(fold)
    facts = {
        **fitted.facts,
        "cross_entropy": cross_entropy(logits, of_fold.pairs.label),
        "bytes": size_in_bytes(fitted.served_params),
        **table_sizes((exact or fitted).served_params),
        **speed_of(fitted, [judged.queries[number] for number in np.unique(of_fold.pairs.query)[:QUERIES]]),
    }
    if exact is not None:
        facts["logit_error"] = float(np.abs(logits - exact.logits(fold)).max())
    facts |= {"train_seconds": fitted.train_seconds} if exact is None else {}
    facts["wall_seconds"] = round(time.perf_counter() - began + facts.get("train_seconds", 0.0), 1)
    return of_fold.by_query(fitted.data.classes.expected(logits), logits.argmax(axis=1)), facts


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as text."""
    columns = {"accuracy": ".4f", "ndcg@10": ".4f", "ndcg@20": ".4f", "ms_20": ".2f", "pairs_per_second": ",.0f"}
    lines = [f"{'':24s}" + "".join(f"{name:>18s}" for name in columns)]
    for row in rows:
        cells = (format(row[name], form) if name in row else "" for name, form in columns.items())
        lines.append(f"{row['name']:24s}" + "".join(f"{cell:>18s}" for cell in cells))
    return "\n".join(lines)
