"""One self-contained page about a run: figures, curves, Semantic IDs, samples, and all it takes to run it again.

Reads only what the stages left in the run's directory. What is not there is named as missing, never shown as 0.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.evaluation.files import read_evaluation
from plum_jax.evaluation.metrics import compare_per_user
from plum_jax.report import charts
from plum_jax.report.language import language_section
from plum_jax.report.provenance import provenance
from plum_jax.report.tables import (
    COMPARED,
    label,
    latest_rows,
    popularity_table,
    result_columns,
    result_table,
    verdicts,
)
from plum_jax.semantic_ids.table import SidTable
from plum_jax.training.metrics_log import read_metrics

_SAMPLED_HISTORY = 10  # the last items of a user's history that a sample shows

Section = dict[str, Any]


def write_report(run_directory: epath.PathLike) -> epath.Path:
    """Writes `report.html` into the run's directory, whole or not at all, and returns its path.

    Args:
      run_directory: as a pipeline leaves it; any part may be missing.
    """
    run = epath.Path(run_directory)
    if not run.exists():
        raise artifact.ArtifactError(f"expected the directory of a run, but there is no {run}")
    rows = read_results(run)
    page = _template().render(
        name=run.name,
        corpus=_section(_corpus, run),
        results=_section(_results, run, rows),
        training=_section(_training, run),
        language=_section(language_section, run),
        semantic_ids=_section(_semantic_ids, run),
        samples=_section(_samples, run),
        provenance=_section(provenance, run, rows),
    )
    artifact.write_text(run / "report.html", page)
    return run / "report.html"


def read_results(run: epath.Path) -> list[dict[str, Any]]:
    """Rows of `results.jsonl`, a row for each name and seed (the last one written); [] when there is none."""
    path = run / "results.jsonl"
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise artifact.ArtifactError(f"row {number} of {path} is not JSON ({error}): evaluate again") from None
    return latest_rows(rows)


def _section(make: Callable[..., Section], *arguments: Any) -> Section:
    """The section, or one that says what is missing."""
    try:
        return make(*arguments)
    except artifact.ArtifactError as error:
        return {"missing": str(error)}


def _corpus(run: epath.Path) -> Section:
    corpus = Corpus.load(run / "corpus")
    per_user = np.diff(corpus.history_offsets)
    return {
        "name": corpus.name,
        "facts": {
            "users": f"{corpus.num_users:,}",
            "items": f"{corpus.num_items:,}",
            "events": f"{corpus.num_events:,}",
            "events of a user (median)": f"{np.median(per_user):g}" if len(per_user) else None,
            "rows skipped as bad": ", ".join(f"{n:,} {kind}" for kind, n in sorted(corpus.problems.items())) or "none",
        },
    }


def _results(run: epath.Path, rows: Sequence[Mapping[str, Any]]) -> Section:
    if not rows:
        raise artifact.ArtifactError("there is no results.jsonl in the run's directory: the evaluation writes it")
    ks, has_unseen = result_columns(rows)
    suffixes = {"seen items kept": ""} | ({"seen items removed": "_unseen"} if has_unseen else {})
    dots = {
        group: {
            label(row, rows): (row[f"recall@{ks[-1]}{suffix}"], row.get(f"recall@{ks[-1]}{suffix}_se"))
            for row in rows
            if row.get(f"recall@{ks[-1]}{suffix}") is not None
        }
        for group, suffix in suffixes.items()
    }
    paired = _paired(run, rows, ks[-1])
    return {
        "dots": charts.recall_dots(dots, f"Recall@{ks[-1]}"),
        "tables": [(group, result_table(rows, ks, suffix)) for group, suffix in suffixes.items()],
        "by_popularity": popularity_table(rows, ks[-1]),
        "verdicts": verdicts(rows, f"recall@{ks[-1]}", paired),
        "paired": bool(paired),
    }


def _paired(run: epath.Path, rows: Sequence[Mapping[str, Any]], k: int) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Differences in Recall@k user by user, where both evaluations left their users' ranks."""
    evaluations = {}
    for row in rows:
        with contextlib.suppress(artifact.ArtifactError):
            stored, ranks = read_evaluation(run / "evaluation" / f"{row['name']}.json")
            if stored.get("seed") == row.get("seed") and stored.get(f"recall@{k}") == row.get(f"recall@{k}"):
                evaluations[row["name"]] = ranks
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for first, second in COMPARED:
        if first in evaluations and second in evaluations:
            compared = compare_per_user(evaluations[first], evaluations[second], (k,))
            found[first, second] = next(row for row in compared if row["metric"] == f"recall@{k}")
    return found


def _training(run: epath.Path) -> Section:
    """Curves of all the runs under `train/` and, where a quantiser was trained, of it."""
    folders = [*sorted(run.glob("train/*")), *sorted(run.glob("sids_training")), *sorted(run.glob("sids_training/*"))]
    logs = {_run_name(run, folder): read_metrics(folder) for folder in folders if folder.is_dir()}
    logs = {name: log for name, log in logs.items() if any("loss" in row for row in log)}
    if not logs:
        raise artifact.ArtifactError("there is no train/*/metrics.jsonl in the run's directory: training writes it")
    pictures = []
    for group in _comparable(logs):
        losses = {_words(name): _points(logs[name], "loss") for name in group}
        tokens = _tokens_per_step(logs[group[0]])
        title = f"loss: {' and '.join(losses)}"
        pictures.append(charts.curves(losses, title=title, ylabel="loss", tokens_per_step=tokens, smooth=True))
    recall = sorted({key for log in logs.values() for row in log for key in row if "/recall@" in key})
    if recall:
        key = max(recall, key=lambda key: (int(key.rpartition("@")[2]) if key.rpartition("@")[2].isdigit() else 0, key))
        validation = {_words(name): _points(log, key) for name, log in logs.items() if any(key in row for row in log)}
        tokens = _tokens_per_step(logs[next(iter(logs))])
        pictures.append(charts.curves(validation, title=key, ylabel=key.partition("/")[2], tokens_per_step=tokens))
    usage = sorted({key for log in logs.values() for row in log for key in row if key.startswith("sids/usage_")})
    for log in (log for log in logs.values() if any("sids/uniqueness" in row for row in log)):
        shares = {f"codes of level {key[-1]} in use": _points(log, key) for key in usage}
        shares["items alone on their ID"] = _points(log, "sids/uniqueness")
        pictures.append(charts.curves(shares, title="Semantic IDs while they are trained", ylabel="share"))
    return {"curves": pictures, "runs": [_run_facts(n, logs[n]) for n in logs]}


def _run_name(run: epath.Path, folder: epath.Path) -> str:
    """A quantiser's folder is named by a fingerprint that says nothing to readers."""
    return f"RQ-VAE {folder.name[:4]}" if folder.parent.name == "sids_training" else folder.name


def _comparable(names: Mapping[str, Any]) -> list[list[str]]:
    """Runs whose losses mean the same share a picture: `retrieval` and `retrieval_without_cpt`."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition("_without_")[0], []).append(name)
    return list(groups.values())


def _points(log: Sequence[Mapping[str, Any]], key: str) -> charts.Points:
    rows = [row for row in log if key in row]
    return [row["step"] for row in rows], [row[key] for row in rows]


def _tokens_per_step(log: Sequence[Mapping[str, Any]]) -> float | None:
    for row in log:
        if row.get("tokens_per_second") and row.get("steps_per_second"):
            return row["tokens_per_second"] / row["steps_per_second"]
    return None


def _run_facts(name: str, log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = [row for row in log if "loss" in row][-1]
    speeds = {key: [row[key] for row in log if key in row] for key in ("tokens_per_second", "model_gflops_per_second")}
    tokens = _tokens_per_step(log)
    return {
        "name": _words(name),
        "steps": f"{last['step']:,}",
        "last loss": f"{last['loss']:.4f}",
        "million tokens": f"{tokens * last['step'] / 1e6:,.2f}" if tokens else None,
        "tokens a second (median)": f"{np.median(speeds['tokens_per_second']):,.0f}" if tokens else None,
        "model GFLOP a second (median)": (
            f"{np.median(speeds['model_gflops_per_second']):,.1f}" if speeds["model_gflops_per_second"] else None
        ),
    }


def _semantic_ids(run: epath.Path) -> Section:
    table = SidTable.load(run / "sids")
    path = run / "sids" / "quality.json"
    quality = json.loads(path.read_text()) if path.exists() else None
    return {
        "usage": charts.code_usage(table.codes, table.codebook_sizes),
        "tree": charts.prefix_tree(table.codes),
        "quality": quality,
        "by_prefix": _by_prefix(quality or {}),
        "families": _families(run, table),
    }


def _by_prefix(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the measures that run over prefixes of 1..L: what, of what, and (value, value by chance) for each."""
    names = {
        "prefix_cosine": "mean cosine of items that share the prefix",
        "prefix_purity": "share of items with the prefix's most common label",
        "co_watch_prefix_overlap": "share of co-watches inside one prefix",
    }
    rows = []
    for measure, description in names.items():
        found = quality.get(measure) or {}
        for of, values in {"": found}.items() if "by_prefix" in found else found.items():
            chance = values["at_random"]  # of any two items: one number, or one for each prefix length
            chances = chance if isinstance(chance, list) else [chance] * len(values["by_prefix"])
            cells = list(zip(values["by_prefix"], chances, strict=True))
            rows.append({"measure": description, "of": of, "cells": cells})
    return rows


def _families(run: epath.Path, table: SidTable) -> list[dict[str, Any]]:
    """The titles of the most watched items under some large prefixes, so that a reader sees what a prefix means."""
    try:
        corpus = Corpus.load(run / "corpus")
    except artifact.ArtifactError:
        return []
    if corpus.fingerprint != table.corpus_fingerprint or not corpus.text_fields:
        return []
    titles = corpus.items[corpus.text_fields[0]].to_list()
    watched = np.bincount(corpus.events["item"].to_numpy(), minlength=corpus.num_items)
    depth = min(2, table.num_levels)
    prefixes, of_item, counts = np.unique(table.codes[:, :depth], axis=0, return_inverse=True, return_counts=True)
    families = []
    for prefix in np.argsort(-counts, kind="stable")[:6]:
        members = np.flatnonzero(of_item.reshape(-1) == prefix)
        shown = members[np.argsort(-watched[members], kind="stable")][:5]
        sid = " ".join(table.sid_string(members[0]).split()[:depth])
        families.append({"sid": sid, "items": len(members), "titles": [titles[i] or "(no text)" for i in shown]})
    return families


def _samples(run: epath.Path) -> Section:
    path = run / "samples.json"
    if not path.exists():
        raise artifact.ArtifactError("there is no samples.json in the run's directory: the evaluation writes it")
    samples = json.loads(path.read_text())
    for sample in samples:
        sample["left_out"] = max(0, len(sample["history"]) - _SAMPLED_HISTORY)
        sample["history"] = sample["history"][-_SAMPLED_HISTORY:]
    return {"users": samples}


def _words(name: str) -> str:
    return name.replace("_without_cpt", " without CPT").replace("cpt", "CPT").replace("_", " ")


def _number(value: Any, digits: int = 3) -> str:
    """A figure for a reader; missing is missing."""
    if value is None:
        return "missing"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html")
