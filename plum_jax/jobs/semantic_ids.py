"""Jobs about Semantic IDs alone: making and judging a table, and what a retrieval model makes of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any

from plum_jax import artifact
from plum_jax.model.counts import parameter_counts
from plum_jax.report import page
from plum_jax.report.tables import quality_text
from plum_jax.semantic_ids.build import QUALITY_FILE
from plum_jax.systems.generative.phase import Phase
from plum_jax.systems.generative.pipeline import GenerativeStages, Pipeline
from plum_jax.training.run_record import run_record, write_results
from tasks.retrieval import Retrieval


def semantic_ids(model_dir: str, pipeline: Pipeline) -> None:
    """Corpus, features and SidTable, its quality as JSON, table and pictures in report.html; no model."""
    stages = pipeline.stages(model_dir)
    table = stages.table
    print(quality_text(json.loads((stages.directory / "sids" / QUALITY_FILE).read_text())))
    print(f"SidTable {table.fingerprint}: {stages.directory / 'sids'}")
    print(f"report: {page.write_report(stages.directory)}")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a retrieval model is trained on Semantic IDs to see what they are worth, without CPT.

    Attributes:
      retrieval_task: what a prompt shows. PLUM's Table 4 leaves the watch history out, so that the ID of the item being
        watched must carry the signal.
      phase: steps and sizes.
    """

    retrieval_task: Retrieval
    phase: Phase


def judge_semantic_ids(
    model_dir: str,
    pipeline: Pipeline,
    variant: str,
    protocols: Mapping[str, Protocol],
    max_users: int | None = None,
    results_file: str | None = None,
) -> None:
    """Makes a SidTable, trains a retrieval model on it under each protocol, and writes a row for each.

    Args:
      model_dir: of the run.
      pipeline: all stages; its retrieval task and phase are replaced by the protocols'.
      variant: name of this way to make Semantic IDs; a row is named "corpus/variant/protocol".
      protocols: name -> how the table is judged.
      max_users: test users of an evaluation, evenly spread; None: all.
      results_file: a study's `results.jsonl` that also gets the rows.
    """
    shared = pipeline.stages(model_dir)
    start = time.perf_counter()
    table = shared.table
    sid_seconds = round(time.perf_counter() - start, 1)
    quality = json.loads((shared.directory / "sids" / QUALITY_FILE).read_text())
    print(quality_text(quality))
    for name, protocol in protocols.items():
        start = time.perf_counter()
        config = dataclasses.replace(pipeline, retrieval_task=protocol.retrieval_task, retrieval=protocol.phase)
        stages = GenerativeStages(config, shared.directory / name, shared.shared)
        params = stages.params_without_cpt
        evaluator = dataclasses.replace(stages.evaluator("test"), max_users=max_users, free_search_users=0)
        row = run_record(
            f"{shared.corpus.name}/{variant}/{name}",
            evaluator(params),
            corpus=shared.corpus.name,
            variant=variant,
            protocol=name,
            seed=protocol.phase.training.seed,
            config=artifact.fingerprint(config),
            users=min(len(evaluator.prompts), max_users or len(evaluator.prompts)),
            parameters=parameter_counts(stages.decoder.config, stages.decoder.vocab_size)["total"],
            sid_table=table.fingerprint,
            sid_seconds=sid_seconds,
            wall_seconds=round(time.perf_counter() - start, 1),
            **_facts(quality),
        )
        write_results(shared.directory, [row], results_file)
        metric = f"recall@{max(pipeline.evaluation.ks)}"
        print(f"{row['name']}: {metric} {row[metric]:.4f} ± {row[f'{metric}_se']:.4f}")


def _facts(quality: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of its table."""
    return {
        "codebook_sizes": quality["codebook_sizes"],
        "uniqueness": quality["uniqueness"],
        "max_items_per_sid": quality["max_items_per_sid"],
        "usage": [level["usage"] for level in quality["levels"]],
        "perplexity": [level["perplexity"] for level in quality["levels"]],
        "co_watch_prefix_overlap": quality["co_watch_prefix_overlap"]["by_prefix"],
    }
