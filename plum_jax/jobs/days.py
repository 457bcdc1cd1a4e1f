"""Continued training day by day: a row for each day and each way to keep up with it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

import polars as pl
from etils import epath

from plum_jax import artifact, guard
from plum_jax.corpus.splits import TRAIN
from plum_jax.evaluation.files import per_user_path, read_evaluation, write_evaluation
from plum_jax.evaluation.judge import with_ids
from plum_jax.model.counts import parameter_counts
from plum_jax.semantic_ids.build import QUALITY_FILE
from plum_jax.systems.generative.days.chain import Chain, Days
from plum_jax.systems.generative.days.judge import DayJudge, differences
from plum_jax.systems.generative.phase import phase_step_flops
from plum_jax.systems.generative.pipeline import GenerativeStages
from plum_jax.training.metrics_log import read_metrics, seconds_of
from plum_jax.training.run_record import run_record, write_results

NEVER, DAILY, SCRATCH = "never", "daily", "scratch"


def day_by_day(model_dir: str, days: Days, seed: int = 0, results_file: str | None = None) -> None:
    """Trains the base, then goes on day by day; every update is judged on the day that follows.

    What is finished is read, what was killed goes on where it was: the figures are those of a run that was not, bit for
    bit, seconds aside. Rows: "never_0" (the base, on the first day), then for each update "never_1" (the base's
    parameters with the table of that day), "daily_1" and, where it is asked for, "scratch_1".

    Args:
      model_dir: of the run.
      days: what is trained.
      seed: of the run, in the rows.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      CorpusError: a day without events, before anything is trained.
      SidTableMismatch: a day's table has another ID for an item that was there.
    """
    chain = Chain.over(days, epath.Path(model_dir))
    common = {"seed": seed, "config": artifact.fingerprint(days)}
    params: Any = None
    spent = 0.0
    for day in range(days.updates + 1):
        arms: list[_Arm] = []
        with guard.guarded(chain.place(day), remake=guard.remakes()):
            stages = chain.run(day)
            learnt = stages.params
            flops = flops_of(stages)
            spent += flops
            if day == 0:
                params, base = learnt, flops
                arms.append(_Arm(NEVER, stages, params, flops, base))
            else:
                arms.append(_Arm(NEVER, stages, params, 0.0, base))
                arms.append(_Arm(DAILY, stages, learnt, flops, spent))
        if day in days.scratch:
            with guard.guarded(chain.place(day, scratch=True), remake=guard.remakes()):
                rival = chain.run(day, scratch=True)
                arms.append(_Arm(SCRATCH, rival, rival.params, flops_of(rival), flops_of(rival)))
        rows = _rows(chain, day, arms, common)
        write_results(model_dir, rows, results_file)
        print("\n".join(_said(row, max(days.pipeline.evaluation.ks)) for row in rows), flush=True)


def flops_of(stages: GenerativeStages) -> float:
    """Training FLOPs of both phases."""
    decoder, phases = stages.decoder, (stages.config.cpt, stages.config.retrieval)
    return sum(phase.training.steps * phase_step_flops(phase, decoder.config, decoder.vocab_size) for phase in phases)


@dataclasses.dataclass(frozen=True, eq=False)
class _Arm:
    """One way to keep up: its parameters on a day, and the training FLOPs of the day and of all days."""

    name: str
    stages: GenerativeStages
    params: Any
    update_flops: float
    train_flops: float


def _rows(chain: Chain, day: int, arms: list[_Arm], common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row an arm; the first is what the others are compared with."""
    found: list[tuple[dict[str, Any], pl.DataFrame]] = []
    for arm in arms:
        found.append(_judged(chain, day, arm, found[0][1] if found else None, common))
    return [row for row, _ in found]


def _judged(
    chain: Chain, day: int, arm: _Arm, never: pl.DataFrame | None, common: Mapping[str, Any]
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The row and the users' figures; made unless they are there from the same parameters."""
    stages, k = arm.stages, max(chain.days.pipeline.evaluation.ks)
    path = stages.directory / "evaluation" / f"{arm.name}.json"
    made_from = (artifact.tree_fingerprint(arm.params), stages.split.fingerprint, stages.table.fingerprint)
    compared = None if never is None else artifact.fingerprint(never["rank"].to_list(), never["rank_unseen"].to_list())
    fingerprint = artifact.fingerprint(*made_from, stages.config.evaluation, common, compared)
    there = path.exists() and per_user_path(path).exists()
    if there and json.loads(path.read_text())["fingerprint"] == fingerprint:
        return read_evaluation(path)
    start = time.perf_counter()
    metrics, per_user = DayJudge(stages, int(chain.cuts[0])).judge(arm.params)
    named = with_ids(stages.corpus, per_user)
    if never is not None:
        metrics |= differences(named, never, k)
    facts: dict[str, Any] = {
        "data": stages.corpus.name,
        "day": day,
        "arm": arm.name,
        "judged_day": chain.judged_day(day),
    }
    facts |= _learnt(stages) | _drift(stages)
    facts |= {"update_flops": arm.update_flops, "train_flops": arm.train_flops}
    facts["train_seconds"] = 0.0 if arm.name == NEVER and day else _seconds(stages)
    facts["wall_seconds"] = round(facts["train_seconds"] + time.perf_counter() - start, 1)
    row = run_record(f"{arm.name}_{day}", metrics, **facts, **common)
    write_evaluation(path, row, named, fingerprint)
    return row, named


def _learnt(stages: GenerativeStages) -> dict[str, Any]:
    """What the training of a day reads: events, texts of items, steps; and the model's size."""
    split, counts = stages.split, parameter_counts(stages.decoder.config, stages.decoder.vocab_size)
    events = split.fold == TRAIN
    if split.before is not None:
        events &= ~split.before.events
    steps = {f"{name}_steps": phase.training.steps for name, phase in _phases(stages).items()}
    sizes = {"parameters": counts["total"], "non_embedding_parameters": counts["non_embedding"]}
    return {"events": int(events.sum()), "texts": int(split.spoken_items.sum())} | steps | sizes


def _phases(stages: GenerativeStages) -> dict[str, Any]:
    return {"cpt": stages.config.cpt, "retrieval": stages.config.retrieval}


def _drift(stages: GenerativeStages) -> dict[str, Any]:
    """Of the items that have come, against those that the codebooks were made for; {} where none have."""
    report = json.loads((stages.directory / "sids" / QUALITY_FILE).read_text())["quantizer"].get("drift")
    if report is None:
        return {}
    return {
        "drift_error_ratio": report["error"]["ratio"],
        "drift_large_errors": report["large_errors"],
        "drift_unshared": report["unshared"]["new"],
        "drift_crowded": report["crowded"],
        "drift_divergence": report["levels"][0]["divergence"],
        "drift_divergence_by_chance": report["levels"][0]["divergence_by_chance"],
        "drift_verdict": report["verdict"],
    }


def _seconds(stages: GenerativeStages) -> float:
    return round(sum(seconds_of(read_metrics(stages.directory / "train" / name)) for name in _phases(stages)), 1)


def _said(row: Mapping[str, Any], k: int) -> str:
    """A row as one line of text."""
    figures = [f"recall@{k} {row[f'recall@{k}']:.4f}, seen removed {row[f'recall@{k}_unseen']:.4f}"]
    less = row.get(f"recall@{k}_unseen_less_never")
    if less is not None:
        figures.append(f"less never updated {less:+.4f} ± {row[f'recall@{k}_unseen_less_never_se']:.4f}")
    if row["cold_targets"]:
        figures.append(
            f"cold items {row[f'cold_recall@{k}']:.4f} of {row['cold_targets']:,} (chance {row[f'chance@{k}']:.4f})"
        )
    return f"{row['name']:12s} {row['users']:,} users: {'; '.join(figures)}; {row['train_flops']:.2e} FLOPs in all"
