"""All that a training reads, and no training: for programs that train on what a run has prepared."""

from __future__ import annotations

from plum_jax.systems.generative.pipeline import Pipeline

FOLDS = ("validation", "test")


def prepare(model_dir: str, pipeline: Pipeline) -> None:
    """Corpus, Semantic IDs, vocabulary, token records of both phases and prompts of both folds, in MODEL_DIR.

    Args:
      model_dir: of the run.
      pipeline: all stages.
    """
    stages = pipeline.stages(model_dir)
    for directory in (stages.cpt_records, stages.retrieval_records):
        print(f"records: {directory}")
    for fold in FOLDS:
        print(f"prompts of {fold}: {len(stages.prompts(fold)):,} users")
    print(f"vocabulary: {stages.vocabulary.vocab_size:,} tokens, {stages.vocabulary.fingerprint}")
