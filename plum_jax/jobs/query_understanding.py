"""Query understanding: classifiers trained and judged, rewrites, what is served, related items; and one query asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax.evaluation.base import require_base
from plum_jax.query_understanding import judge, related_items, rewrite_judge, serving, serving_judge
from plum_jax.query_understanding.bag import Student
from plum_jax.query_understanding.classifier import Classifier
from plum_jax.query_understanding.log import BANDS, QueryLogConfig
from plum_jax.query_understanding.related_items import RelatedItems
from plum_jax.query_understanding.rewriter import Rewriter
from plum_jax.stages import Data
from plum_jax.training.run_record import run_record, write_results

SYSTEMS = "systems"
REWRITER, STUDENT, SERVED = "rewriter", "student", "query_understanding"


def classify(
    model_dir: str,
    data: Data,
    log: QueryLogConfig,
    classifiers: Mapping[str, Classifier],
    bases: Mapping[str, Sequence[str]] | None = None,
    max_queries: int | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains classifiers and judges each on test queries, head, torso and tail apart; a row each in `results.jsonl`.

    Args:
      model_dir: of the run.
      data: the events.
      log: queries and categories.
      classifiers: name -> classifier, in the order of the table.
      bases: name of a classifier -> those that it is compared with, query by query; None: no differences.
      max_queries: of the validation and the test fold, evenly spread; None: all.
      seed: of the run.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      ValueError: no classifier, or a base that is none of them.
    """
    bases = bases or {}
    if not classifiers:
        raise ValueError("expected at least one classifier to train, got none: set CLASSIFIERS")
    for name, others in bases.items():
        for other in others:
            require_base({name: other}, classifiers)
    stages = data.stages(model_dir)
    made, found, rows = log.of(stages.split), {}, []
    for name, classifier in classifiers.items():
        begun = time.perf_counter()
        fitted = classifier.fit(made, stages.directory / SYSTEMS / name)
        found[name] = judge.judged(made, fitted, max_queries)
        facts = {"data": stages.corpus.name, "seed": seed, "classes": made.num_classes, **fitted.facts}
        facts["wall_seconds"] = round(time.perf_counter() - begun, 1)
        rows.append(run_record(name, judge.means(made, found[name]), **facts))
    for row in rows:
        row["bases"] = list(bases.get(row["name"], ()))
        for other in row["bases"]:
            row |= judge.differences(made, found[row["name"]], found[other], other)
    write_results(stages.directory, rows, results_file)
    print(_table(rows, ["all", *BANDS, judge.NEW], judge.METRICS[:3]))


def rewrite(
    model_dir: str,
    data: Data,
    log: QueryLogConfig,
    rewriter: Rewriter,
    title_fields: Sequence[str],
    count: int = 3,
    k: int = 100,
    max_events: int | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains a rewriter and judges its rewrites by what they retrieve (`rewrite_judge.judged_rewrites`).

    Args:
      model_dir, data, log, seed, results_file: as of `classify`.
      rewriter: the model.
      title_fields: text of items that is searched.
      count: rewrites of a query.
      k: items of a result.
      max_events: test events, evenly spread; None: all.
    """
    begun, stages = time.perf_counter(), data.stages(model_dir)
    made = log.of(stages.split)
    fitted = rewriter.fit(made, stages.directory / SYSTEMS / REWRITER)
    search = rewrite_judge.TitleSearch.of(stages.split, title_fields)
    rows = rewrite_judge.judged_rewrites(made, fitted, search, count=count, k=k, at_most=max_events)
    facts = {"data": stages.corpus.name, "seed": seed, **fitted.facts}
    facts["wall_seconds"] = round(time.perf_counter() - begun, 1)
    rows = [run_record(f"rewrites: {row['rewrites']}", row, **facts) for row in rows]
    write_results(stages.directory, rows, results_file)
    for row in rows:
        shown = [name for name in ("zero", f"recall@{k}", f"zero_query_recall@{k}") if name in row]
        figures = "".join(f"  {name} {row[name]:.4f}" for name in shown)
        print(f"{row['rewrites']:12s}{figures}")


def serve(
    model_dir: str,
    data: Data,
    log: QueryLogConfig,
    teacher: Classifier,
    teacher_name: str,
    student: Student,
    served: serving.Serving,
    rewriter: Rewriter | None = None,
    max_queries: int | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Writes the table of head and torso, trains the student for the tail, and measures both as one function.

    Rows "student", judged as classifiers are and compared with its teacher, and "served".

    Args:
      model_dir, data, log, max_queries, seed, results_file: as of `classify`.
      teacher: what the table says and the student learns.
      teacher_name: under which `classify` has trained it, or would.
      student: for the tail.
      served: the table.
      rewriter: rewrites in the table; None: none.
    """
    stages = data.stages(model_dir)
    made, systems = log.of(stages.split), stages.directory / SYSTEMS
    taught = teacher.fit(made, systems / teacher_name)
    writes = None if rewriter is None else rewriter.fit(made, systems / REWRITER)
    learnt = student.learn(made, taught, systems / STUDENT)
    served.write(made, taught, writes, learnt, stages.directory / SERVED)
    found, of_teacher = (judge.judged(made, one, max_queries) for one in (learnt, taught))
    service = serving.open_served(stages.directory / SERVED)
    row = serving_judge.judged_serving(made, service, taught, max_queries)
    common = {"data": stages.corpus.name, "seed": seed}
    of_student = {**judge.means(made, found), **judge.differences(made, found, of_teacher, teacher_name)}
    rows = [
        run_record(STUDENT, of_student, **common, bases=[teacher_name], **learnt.facts),
        run_record("served", row, **common, teacher_parameters=taught.facts.get("parameters")),
    ]
    write_results(stages.directory, rows, results_file)
    print(_table(rows[:1], ["all", *BANDS, judge.NEW], judge.METRICS[:3]))
    print("\n".join(f"{name}: {value}" for name, value in row.items()))


def ask(model_dir: str, query: str) -> None:
    """Prints what is known of one query, from what `serve` has written.

    Args:
      model_dir: of the run.
      query: words.

    Raises:
      ValueError: a query without a word, or none of whose words is known.
      ArtifactError: nothing was written.
    """
    (found,) = serving.open_served(epath.Path(model_dir) / SERVED).understand([query])
    print(f"answered by the {found.by}")
    for category, share in found.categories:
        print(f"{share:8.3f}  {category}")
    for kind, queries in found.rewrites.items():
        print(f"{kind}: {', '.join(queries)}")


def related(
    model_dir: str,
    data: Data,
    items: RelatedItems,
    item: str | None = None,
    k: int = 10,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Prints complementary items and substitutes of one item; without one, judges all by the next items of test.

    Args:
      model_dir, data, seed, results_file: as of `classify`.
      items: how they are found.
      item: id; None: all are judged.
      k: items of a list.

    Raises:
      ValueError: no such item.
    """
    stages = data.stages(model_dir)
    fitted = items.fit(stages.split)
    if item is None:
        rows = [
            run_record(f"items: {row['list']}", row, data=stages.corpus.name, seed=seed)
            for row in related_items.judged_related(stages.split, fitted, k)
        ]
        write_results(stages.directory, rows, results_file)
        print("\n".join(f"{row['list']:18s}  recall@{k} {row[f'recall@{k}']:.4f}" for row in rows))
        return
    ids = stages.corpus.items["item_id"].to_list()
    if item not in ids:
        raise ValueError(
            f"ITEM: expected the id of an item of {stages.corpus.name!r}, such as {ids[0]!r}, got {item!r}"
        )
    source = np.array([ids.index(item)])
    for title, found in (("complementary", fitted.complementary), ("substitutes", fitted.substitutes)):
        print(f"{title}:")
        for line in related_items.named(stages.split, found(source, k)[0], items.text_fields[0]):
            print(f"  {line}")


def _table(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], metrics: Sequence[str]) -> str:
    """A block of lines for each group of queries."""
    lines = []
    for group in groups:
        lines.append(
            f"{group} ({rows[0][f'{group}_queries']:,} queries)".ljust(32) + "".join(f"{m:>12s}" for m in metrics)
        )
        for row in rows if rows[0][f"{group}_queries"] else ():
            lines.append(f"  {row['name']:30s}" + "".join(f"{row[f'{group}_{m}']:12.4f}" for m in metrics))
    return "\n".join(lines)
