"""The report's curves and samples of a decoder as a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.report import charts
from plum_jax.training.metrics_log import read_metrics

_PREFIX = "language/"


def language_section(run: epath.Path) -> dict[str, Any]:
    """Curves of each training that was judged as a language model, and what it wrote first and last.

    Raises:
      ArtifactError: none was.
    """
    logs = {folder.name: read_metrics(folder) for folder in sorted(run.glob("train/*")) if folder.is_dir()}
    logs = {name: [row for row in log if any(key.startswith(_PREFIX) for key in row)] for name, log in logs.items()}
    samples = {name: _samples(run / "train" / name) for name in logs}
    if not any(logs.values()) and not any(samples.values()):
        raise artifact.ArtifactError("no training was judged as a language model: gin/tasks/language.gin asks for it")
    pictures = [picture for name, log in logs.items() if log for picture in _pictures(name, log)]
    return {"curves": pictures, "samples": {name: rows for name, rows in samples.items() if rows}}


def _pictures(name: str, log: Sequence[Mapping[str, Any]]) -> list[str]:
    words = name.replace("_", " ").replace("cpt", "CPT")
    names = sorted({key.removeprefix(_PREFIX) for row in log for key in row if key.startswith(_PREFIX)})
    losses = [key for key in names if key.startswith("loss_")]
    tasks = [key for key in losses if key.startswith("loss_task_")]
    kinds = ["loss", *(key for key in losses if key not in tasks)] if losses else []
    matches = [key for key in names if key.startswith(("match_", "new_match_")) and key[-1].isdigit()]
    matches += [f"{key}_shuffled" for key in matches]
    groups = {
        "loss by kind of token": ("nats a token", kinds, "loss_"),
        "loss by task": ("nats a token", tasks, "loss_task_"),
        "words that are the item's": ("share", matches, ""),
    }
    return [
        charts.curves(
            {key.removeprefix(prefix).replace("_", " "): _points(log, key) for key in keys},
            title=f"{words}: {title}",
            ylabel=label,
        )
        for title, (label, keys, prefix) in groups.items()
        if keys
    ]


def _points(log: Sequence[Mapping[str, Any]], key: str) -> charts.Points:
    rows = [row for row in log if _PREFIX + key in row]
    return [row["step"] for row in rows], [row[_PREFIX + key] for row in rows]


def _samples(folder: epath.Path) -> list[dict[str, Any]]:
    """For each prompt, in order, what was written at the first and at the last evaluation."""
    path = folder / "samples.jsonl"
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    found = []
    for prompt in dict.fromkeys(row["prompt"] for row in rows):
        of_prompt = [row for row in rows if row["prompt"] == prompt]
        steps = sorted({row["step"] for row in of_prompt})
        shown = [{"step": step, "texts": [r for r in of_prompt if r["step"] == step]} for step in {steps[0], steps[-1]}]
        found.append({"prompt": prompt, "written": sorted(shown, key=lambda one: one["step"])})
    return found
