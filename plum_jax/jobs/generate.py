"""A finished run asked in words: what its language model writes after prompts that mix words and Semantic IDs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from plum_jax import artifact
from plum_jax.evaluation.system import System
from plum_jax.jobs.chosen import chosen_decoder
from plum_jax.jobs.grown import table_of
from plum_jax.language.generation import Generation, LanguageModel
from plum_jax.language.prompts import PromptReader
from plum_jax.language.samples import sample_rows
from plum_jax.stages import Data

PHASES = ("cpt", "retrieval")


def generate(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    prompts: str | Sequence[str],
    generation: Generation = Generation(),  # noqa: B008 (frozen)
    system: str | None = None,
    phase: str = "cpt",
    sid_table: str | None = None,
) -> list[dict[str, Any]]:
    """Prints, and writes to MODEL_DIR/generated.jsonl, what follows some prompts; returns the rows.

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      prompts: one, or several (`PromptReader` says how they are written).
      generation: greedy, by draws or by beams, and how long.
      system: name of the row; None: the last of the table.
      phase: whose parameters: "cpt", which knows words best, or "retrieval", which is what recommends.
      sid_table: directory of an extended SidTable whose items may be named and written; None: the run's own.

    Raises:
      ValueError: no such system, one that is no language model, or no such phase.
      PromptError: a prompt that cannot be read.
      SidTableMismatch: a table that changes what the model has learnt.
    """
    stages = data.stages(model_dir)
    name, fitted = chosen_decoder(stages, systems, system, "writes no words")
    if phase not in PHASES:
        raise ValueError(f"expected PHASE to be one of {PHASES}, got {phase!r}")
    if phase == "cpt" and not fitted.cpt:
        raise ValueError(
            f"system {name!r} has no continued pre-training: set PHASE to 'retrieval', or SYSTEM to another"
        )
    own = fitted.stages
    table = table_of(own.table, sid_table)
    params = own.cpt_params if phase == "cpt" else fitted.params
    model = LanguageModel(own.decoder, params, own.vocabulary, table)
    reader = PromptReader(own.vocabulary, table, own.corpus)
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    found = model.generate([reader.read(text) for text in texts], generation)
    rows = sample_rows(model, list(zip(texts, found, strict=True)))
    path = stages.directory / "generated.jsonl"
    artifact.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        print(_text(row))
    print(f"written by {name} after {phase}: {path}")
    return rows


def _text(row: Mapping[str, Any]) -> str:
    items = "".join(f"\n  {' = '.join(ids)}" for ids in row["items"])
    return f"\n{row['prompt']}\n  -> {row['text']}  ({row['log_prob']:.2f} nats){items}"
