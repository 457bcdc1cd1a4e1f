"""Names of mixtures for T5X's gin files: a function registers what a run has written, and returns its name."""

from __future__ import annotations

from plum_jax.interop.t5x.metrics import RetrievalMetrics
from plum_jax.interop.t5x.run_files import RunFiles
from tasks import registered


def training(run: RunFiles, phase: str = "cpt", length: int = 128, name: str | None = None) -> str:
    """The token records of a phase, as `tasks.registered.register_records`."""
    return registered.register_records(run.records(phase), run.vocabulary, phase=phase, length=length, name=name)


def prompts(run: RunFiles, ks: tuple[int, ...] = (5, 10), name: str | None = None) -> str:
    """The prompts of validation and test, as `tasks.registered.register_prompts`, with recall@k as metrics."""
    return registered.register_prompts(
        run.folds,
        {fold: run.targets(fold) for fold in run.folds},
        run.vocabulary,
        metrics=[RetrievalMetrics(run, tuple(ks))],
        fingerprint=f"{run.prompts_fingerprint}_{'_'.join(map(str, ks))}",
        name=name,
    )


def prompt_lengths(run: RunFiles) -> dict[str, int]:
    """Tokens of the longest prompt of both folds, and of a Semantic ID: one shape for every program."""
    longest = int(run.prompts["prompt"].list.len().to_numpy().max())
    return {"inputs": longest, "targets": run.table.num_levels}
