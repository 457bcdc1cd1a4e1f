"""Jobs that use a trained model: lists for all users, lists for all items, an export for servers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from plum_jax import artifact
from plum_jax.retrieval.offline import recommend_all
from plum_jax.retrieval.serving import export_serving
from plum_jax.retrieval.shards import Worker
from plum_jax.retrieval.watch_next import write_watch_next
from plum_jax.systems.generative.pipeline import GenerativeStages, Pipeline
from plum_jax.training import processes
from plum_jax.training.checkpoints import PARAMS_KIND


def recommend(
    model_dir: str,
    pipeline: Pipeline,
    items_per_user: int = 10,
    remove_seen: bool = True,
    users_per_shard: int = 4096,
    beam_groups: int = 1,
    beam_penalty: float = 0.5,
) -> None:
    """Recommendations for every user of the test fold, as Parquet, from the model with CPT (trained if it is not yet).

    Args:
      model_dir: of the run.
      pipeline: all stages.
      items_per_user: length of a list.
      remove_seen: leave out what the user has in the history.
      users_per_shard: users that a kill can cost.
      beam_groups, beam_penalty: lists of more kinds of items, by `Recommender.beam_groups`; 1: the likeliest.

    Raises:
      ValueError: beams that the groups do not divide.
    """
    if pipeline.evaluation.num_beams % beam_groups:
        beams = pipeline.evaluation.num_beams
        raise ValueError(f"expected BEAM_GROUPS to divide NUM_BEAMS {beams}, got {beam_groups}")
    stages, worker = pipeline.stages(model_dir), _worker()
    _require_model(stages, worker)
    with _one_at_a_time(stages):
        recommender, params, prompts = stages.recommender, stages.params, stages.prompts("test")
    recommender = dataclasses.replace(recommender, beam_groups=beam_groups, beam_penalty=beam_penalty)
    path = recommend_all(
        recommender,
        params,
        prompts,
        directory=stages.directory / "recommendations",
        user_ids=stages.corpus.users["user_id"].to_list(),
        items_per_user=items_per_user,
        remove_seen=remove_seen,
        users_per_shard=users_per_shard,
        worker=worker,
    )
    _say(f"recommendations: {path}", path is not None, worker)


def watch_next(model_dir: str, pipeline: Pipeline, items_per_list: int = 10, prompts_per_shard: int = 4096) -> None:
    """What to watch after each item, for nobody in particular, as Parquet (the model is trained if need be).

    Args:
      model_dir: of the run.
      pipeline: all stages.
      items_per_list: length of a list.
      prompts_per_shard: lists that a kill can cost.
    """
    stages, worker = pipeline.stages(model_dir), _worker()
    _require_model(stages, worker)
    with _one_at_a_time(stages):
        recommender, params = stages.recommender, stages.params
    path = write_watch_next(
        recommender,
        params,
        stages.config.retrieval_task.watch_next_prompts(stages.split, stages.table, stages.vocabulary),
        directory=stages.directory / "watch_next",
        items_per_list=items_per_list,
        prompts_per_shard=prompts_per_shard,
        worker=worker,
    )
    _say(f"watch-next table: {path}", path is not None, worker)


def export_for_serving(
    model_dir: str,
    pipeline: Pipeline,
    lengths: Sequence[int] | None = None,
    platforms: Sequence[str] = ("cpu", "tpu"),
    overwrite: bool = False,
) -> None:
    """The model with CPT (trained if it is not yet) as MODEL_DIR/serving, which servers run with JAX and numpy alone.

    Args:
      model_dir: of the run.
      pipeline: all stages.
      lengths: tokens that prompts are padded to; None: a quarter, a half and all of a training row's, less one.
      platforms: that the programs can be compiled for.
      overwrite: whether another export that is there gives way.
    """
    stages = pipeline.stages(model_dir)
    longest = stages.config.retrieval.length
    recipe = stages.config.retrieval_task.prompt_recipe(stages.split, stages.table, stages.vocabulary)
    directory = export_serving(
        stages.recommender,
        stages.params,
        directory=stages.directory / "serving",
        # The start token comes before a prompt.
        lengths=lengths or [max(longest // part, 2) - 1 for part in (4, 2, 1)],
        prompt_recipe=recipe,
        platforms=platforms,
        overwrite=overwrite,
    )
    print(f"exported for serving: {directory}")


def _worker() -> Worker:
    return Worker(*processes.share())


def _one_at_a_time(stages: GenerativeStages) -> contextlib.AbstractContextManager[None]:
    """A stage that is out of date is made by the first process that comes; the others wait, and read it."""
    return artifact.alone(stages.directory / "stages")


def _require_model(stages: GenerativeStages, worker: Worker) -> None:
    """Several processes share searching, and nothing else: what they need must be there."""
    if worker.count == 1:
        return
    for directory, kind in (("train/retrieval/params", PARAMS_KIND), ("prompts/test", "prompts")):
        try:
            artifact.read_manifest(stages.directory / directory, kind)
        except artifact.ArtifactError as error:
            raise artifact.ArtifactError(
                f"{worker.count} processes share lists, not training: run gin/run/pipeline.gin to its end ({error})"
            ) from None


def _say(done: str, is_done: bool, worker: Worker) -> None:
    print(
        done if is_done else f"process {worker.index} of {worker.count} has done its part; process 0 puts all together"
    )
