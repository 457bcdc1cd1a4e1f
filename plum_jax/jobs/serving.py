"""Jobs that use a trained model: lists for all users, lists for all items, an export for servers."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.evaluation.system import Fitted, System
from plum_jax.jobs.chosen import chosen_system
from plum_jax.jobs.grown import table_of
from plum_jax.retrieval.new_items import NewItems
from plum_jax.retrieval.offline import recommend_all, recommend_ranked
from plum_jax.retrieval.recommend import Recommender
from plum_jax.retrieval.serving import export_serving
from plum_jax.retrieval.shards import Worker
from plum_jax.retrieval.watch_next import write_watch_next, write_watch_next_ranked
from plum_jax.stages import Data, Stages
from plum_jax.systems.generative.system import FittedDecoder
from plum_jax.systems.item_history.system import FittedItemHistory
from plum_jax.training import processes
from tasks.requests import with_request

_PARTS = (4, 2, 1)  # of the longest prompt: lengths that an export has a program for


def recommend(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    system: str | None = None,
    items_per_user: int = 10,
    remove_seen: bool = True,
    users_per_shard: int = 4096,
    beam_groups: int = 1,
    beam_penalty: float = 0.5,
    sid_table: str | None = None,
    request: str | None = None,
    new_item_share: float = 0.0,
) -> None:
    """Recommendations for every user of the test fold, as Parquet, from a system of the run (trained if it is not yet).

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      system: name of the row; None: the last of the table, whose lists the report shows.
      items_per_user: length of a list.
      remove_seen: leave out what the user has in the history.
      users_per_shard: users that a kill can cost.
      beam_groups, beam_penalty: lists of more kinds of items, by `Recommender.beam_groups`, of decoders that search;
        1: the likeliest.
      sid_table: directory of an extended SidTable, whose new items may be recommended too, by decoders; the lists are
        in MODEL_DIR/recommendations_extended then. None: the run's own.
      request: in words, behind every user's history ("more Comedy"), for decoders that were trained with requests; the
        lists are in MODEL_DIR/recommendations_asked then.
      new_item_share: of each list, for items without a training event, for decoders (`NewItems`).

    Raises:
      ValueError: no such system, beams that the groups do not divide, or groups, an extended table or a request of a
        system that has no beams.
      SidTableMismatch: a table that changes what the model has learnt.
    """
    worker = _worker()
    name, stages, fitted = _trained(model_dir, data, systems, system, worker)
    shared: dict[str, Any] = {
        "directory": stages.directory / "recommendations",
        "user_ids": stages.corpus.users["user_id"].to_list(),
        "items_per_user": items_per_user,
        "remove_seen": remove_seen,
        "users_per_shard": users_per_shard,
        "worker": worker,
    }
    if isinstance(fitted, FittedDecoder):
        recommender = _in_groups(_serving(fitted, sid_table), beam_groups, beam_penalty)
        parts = ["recommendations", *(["extended"] if sid_table else []), *(["asked"] if request else [])]
        shared["directory"] = stages.directory / "_".join(parts)
        with _one_at_a_time(stages.directory):
            prompts = fitted.stages.prompts("test")
        if request is not None:
            prompts = with_request(prompts, fitted.stages.vocabulary.encode(request))
        new = NewItems.of(stages.split.item_popularity, new_item_share, recommender.table.num_items)
        path = recommend_all(recommender, fitted.params, prompts, new_items=new, **shared)
    elif sid_table is not None or request is not None:
        raise ValueError(
            f"SID_TABLE or REQUEST is set, but system {name!r} has a row for each item, knows no others and no words"
        )
    elif beam_groups > 1:
        raise ValueError(f"BEAM_GROUPS is {beam_groups}, but system {name!r} searches without groups of beams")
    else:
        path = recommend_ranked(evaluation=stages.split.evaluation("test"), **_ranking(stages, fitted), **shared)
    _say(f"recommendations of {name}: {path}", path is not None, worker)


def watch_next(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    system: str | None = None,
    items_per_list: int = 10,
    prompts_per_shard: int = 4096,
) -> None:
    """What to watch after each item, for nobody in particular, as Parquet (the system is trained if need be).

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      system: name of the row; None: the last of the table.
      items_per_list: length of a list.
      prompts_per_shard: lists that a kill can cost.

    Raises:
      ValueError: no such system.
    """
    worker = _worker()
    name, stages, fitted = _trained(model_dir, data, systems, system, worker)
    shared: dict[str, Any] = {
        "directory": stages.directory / "watch_next",
        "items_per_list": items_per_list,
        "prompts_per_shard": prompts_per_shard,
        "worker": worker,
    }
    if isinstance(fitted, FittedDecoder):
        own = fitted.stages
        prompts = own.config.retrieval_task.watch_next_prompts(own.split, own.table, own.vocabulary)
        path = write_watch_next(own.recommender, fitted.params, prompts, **shared)
    else:
        path = write_watch_next_ranked(**_ranking(stages, fitted), **shared)
    _say(f"watch-next table of {name}: {path}", path is not None, worker)


def export_for_serving(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    system: str | None = None,
    lengths: Sequence[int] | None = None,
    platforms: Sequence[str] = ("cpu", "tpu"),
    overwrite: bool = False,
    sid_table: str | None = None,
) -> None:
    """A system's beam search (trained if it is not yet) as MODEL_DIR/serving, for servers with JAX and numpy alone.

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      system: name of the row; None: the last of the table.
      lengths: numbers that prompts are padded to; None: a quarter, a half and all of the longest that training had.
      platforms: that the programs can be compiled for.
      overwrite: whether another export that is there gives way.
      sid_table: as in `recommend`.

    Raises:
      ValueError: no such system, one without a beam search, or an extended table for one that has rows of items.
      SidTableMismatch: a table that changes what the model has learnt.
    """
    stages = data.stages(model_dir)
    name, chosen = chosen_system(stages, systems, system)
    fitted = chosen.fit(stages, name)
    if isinstance(fitted, FittedDecoder):
        own = fitted.stages
        (recommender, params), values = (_serving(fitted, sid_table), fitted.params), None
        # The start token comes before a prompt.
        usual = [max(own.config.retrieval.length // part, 2) - 1 for part in _PARTS]
        recipe = own.config.retrieval_task.prompt_recipe(own.split, own.table, own.vocabulary)
    elif sid_table is not None:
        raise ValueError(f"SID_TABLE is set, but system {name!r} has a row for each item and knows no others")
    elif isinstance(fitted, FittedItemHistory):
        (recommender, params), sizes = fitted.search, fitted.ranker.network.field_sizes
        values = max(fitted.ranker.network.num_items, *sizes, 0)
        longest = fitted.ranker.history_length
        usual = [max(longest // part, 1) * (1 + len(sizes)) for part in _PARTS]
        recipe = None if sizes else {"items": True, "history_length": longest}
    else:
        raise ValueError(f"system {name!r} has no beam search to export: set SYSTEM to one that writes Semantic IDs")
    directory = export_serving(
        recommender,
        params,
        directory=stages.directory / "serving",
        lengths=lengths or usual,
        prompt_recipe=recipe,
        prompt_values=values,
        platforms=platforms,
        overwrite=overwrite,
    )
    print(f"exported for serving: {directory}")


def _worker() -> Worker:
    return Worker(*processes.share())


def _one_at_a_time(directory: epath.Path) -> contextlib.AbstractContextManager[None]:
    """A stage that is out of date is made by the first process that comes; the others wait, and read it."""
    return artifact.alone(directory / "stages")


def _trained(
    model_dir: str, data: Data, systems: Mapping[str, System], system: str | None, worker: Worker
) -> tuple[str, Stages, Fitted]:
    """The system that is asked, its name, and the stages of the run."""
    stages = data.stages(model_dir)
    name, chosen = chosen_system(stages, systems, system)
    _require_judged(stages, name, worker)
    with _one_at_a_time(stages.directory):
        return name, stages, chosen.fit(stages, name)


def _ranking(stages: Stages, fitted: Fitted) -> dict[str, Any]:
    """What a table of lists must know of a system that ranks items itself."""

    def rank(users: EvaluationSet, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        found = fitted.rank(users, k)
        return found.lists.items, found.lists.unseen, found.scores

    item_ids = stages.corpus.items["item_id"].cast(pl.String).to_list()
    return {"rank": rank, "fingerprint": fitted.fingerprint, "item_ids": item_ids}


def _serving(fitted: FittedDecoder, sid_table: str | None) -> Recommender:
    """The search over the run's items, or over those of an extended table."""
    own = fitted.stages.recommender
    return own if sid_table is None else dataclasses.replace(own, table=table_of(own.table, sid_table))


def _in_groups(recommender: Recommender, groups: int, penalty: float) -> Recommender:
    """Searching in groups of beams; an error where they do not divide the beams."""
    if recommender.num_beams % groups:
        raise ValueError(f"expected BEAM_GROUPS to divide NUM_BEAMS {recommender.num_beams}, got {groups}")
    return dataclasses.replace(recommender, beam_groups=groups, beam_penalty=penalty)


def _require_judged(stages: Stages, name: str, worker: Worker) -> None:
    """Several processes share searching, and nothing else: the system must be trained."""
    path = stages.directory / "evaluation" / f"{name}.json"
    if worker.count > 1 and not path.exists():
        raise artifact.ArtifactError(
            f"{worker.count} processes share lists, not training: run gin/run/pipeline.gin to its end ({path} is not "
            "there)"
        )


def _say(done: str, is_done: bool, worker: Worker) -> None:
    print(
        done if is_done else f"process {worker.index} of {worker.count} has done its part; process 0 puts all together"
    )
