"""What a model writes after fixed prompts, at every evaluation: `samples.jsonl` beside a training's metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.language.generation import Continuation, LanguageModel

FILE = "samples.jsonl"


def sample_rows(model: LanguageModel, found: Sequence[tuple[str, Sequence[Continuation]]]) -> list[dict[str, Any]]:
    """Rows of JSON: "prompt", "text", "log_prob" (nats), "items" (ids of each ID that was written), "ended"."""
    index, ids = model.table.items_of_sid(), model.table.item_ids
    return [
        {
            "prompt": prompt,
            "text": one.text,
            "log_prob": round(one.log_prob, 4),
            "items": [ids[index.items_at(row)].tolist() for row in one.sids],
            "ended": one.ended,
        }
        for prompt, continuations in found
        for one in continuations
    ]


def write_samples(directory: epath.PathLike, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Adds the rows of a step to the file. Rows of this step and of later ones give way: a run that went back."""
    path = epath.Path(directory) / FILE
    kept = [row for row in read_samples(directory) if row["step"] < step]
    lines = [json.dumps({"step": step, **row}) + "\n" for row in rows]
    artifact.write_text(path, "".join([*(json.dumps(row) + "\n" for row in kept), *lines]))


def read_samples(directory: epath.PathLike) -> list[dict[str, Any]]:
    """The rows; [] where there is no file."""
    path = epath.Path(directory) / FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
