"""LUM's three steps (arXiv 2502.08309): construct a user model, ask it, use what it says in rankers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plum_jax.jobs.compare import compare
from plum_jax.jobs.rank import rank_events
from plum_jax.ranking.labels import Label
from plum_jax.ranking.protocol import Ranker
from plum_jax.retrieval.shards import Worker
from plum_jax.stages import Data
from plum_jax.systems.lum.knowledge import LumKnowledge, write_moments, write_users
from plum_jax.training import processes


def construct(model_dir: str, data: Data, knowledge: LumKnowledge, ks: Sequence[int] = (5, 10), seed: int = 0) -> None:
    """Step 1: trains the user model, and judges it as a recommender under the condition that its ranking asks for.

    Args:
      model_dir: of the run.
      data: events and items.
      knowledge: the model, its name, and what will be asked of it.
      ks: cut-offs of recall.
      seed: of the run.
    """
    compare(model_dir, data, {knowledge.name: knowledge.lum}, ks, seed)


def query(model_dir: str, data: Data, knowledge: LumKnowledge) -> None:
    """Step 2: answers to every condition before every event (`knowledge/NAME`, what rankers learn from) and about every
    user after all events (`users/NAME`, what is served), as Parquet; a kill costs a shard, and several processes share
    the shards (`--multi_process`).

    Args:
      model_dir: of the run.
      data: events and items.
      knowledge: the model, trained where it is not yet, and the conditions.
    """
    stages, worker = data.stages(model_dir), Worker(*processes.share())
    fitted = knowledge.lum.fit(stages, knowledge.name)
    asked = knowledge.asked
    for write, folder in ((write_moments, "knowledge"), (write_users, "users")):
        path = write(stages, fitted, asked, stages.directory / folder / knowledge.name, worker)
        if path is None:
            print(f"process {worker.index} of {worker.count} has done its part; process 0 puts all together")
        else:
            print(f"{len(asked)} conditions ({', '.join(asked)}): {path}")


def all_steps(
    model_dir: str,
    data: Data,
    knowledge: LumKnowledge,
    label: Label,
    rankers: Mapping[str, Ranker],
    base: Mapping[str, str] | None = None,
    ks: Sequence[int] = (5, 10),
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """`construct`, `query`, and `rank.rank_events`, step 3, one after another; what is made already is read.

    Args:
      model_dir, data, knowledge, ks: as in `construct`.
      label, rankers, base, seed, results_file: as in `rank.rank_events`; rankers that have `knowledge` should have it
        of the same name.
    """
    construct(model_dir, data, knowledge, ks, seed)
    query(model_dir, data, knowledge)
    rank_events(model_dir, data, label, rankers, base, seed, results_file)
