"""The trunk's jobs: vectors for a store, versions of them, an application's fine-tuning, later targets."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet, Split
from plum_jax.evaluation.horizons import days_later, events_later
from plum_jax.evaluation.judge import catalogue_of, judged
from plum_jax.evaluation.system import Fitted, System
from plum_jax.ranking.labels import Label
from plum_jax.retrieval.alignment import Version, align, kept_share
from plum_jax.retrieval.recommend import select_rows
from plum_jax.retrieval.shards import Worker
from plum_jax.retrieval.vector_store import KEYS, VectorStore
from plum_jax.stages import Data, Stages
from plum_jax.systems.trunk import Trunk
from plum_jax.systems.trunk.embedding import StoredVectors, Until, write_vectors
from plum_jax.training import processes
from plum_jax.training.run_record import run_record, write_results

COMPARED_USERS = 5000  # of two versions


def embed(
    model_dir: str, data: Data, trunk: Trunk, name: str = "trunk", until: Until = None, store: str | None = None
) -> None:
    """Vectors of all users and items as artefacts, and in a store where one is named: for applications that know
    nothing of the trunk. A kill costs a shard; several processes share them (`--multi_process`).

    Args:
      model_dir: of the run.
      data: events and items.
      trunk: trained where it is not yet.
      name: of its directory in `systems/`, and of the vectors' in `embeddings/`.
      until: "validation" or "test": events of that fold and later ones are not read; None: all are.
      store: directory of a LanceDB store that gets them as a version; None: none does.
    """
    stages, worker = data.stages(model_dir), Worker(*processes.share())
    paths = write_vectors(stages, trunk.fit(stages, name), name, until, worker)
    for what, path in paths.items():
        if path is None:
            print(f"process {worker.index} of {worker.count} has done its part of the {what}")
        elif store is None:
            print(f"{what}: {path}")
        else:
            print(f"{what}: {path}, in {store} as {VectorStore(store).push(what, path.parent)}")


def versions(
    model_dir: str,
    first: str,
    second: str,
    k: int = 10,
    store: str | None = None,
    name: str = "versions",
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """What a consumer of the vectors of one trunk keeps when another takes its place, as they are and aligned; and the
    new vectors in the old space, as artefacts `MODEL_DIR/aligned/` and in the store.

    A consumer has old vectors of users and asks for the first k items: how many of those it had are among those of the
    new items. `retrained` is what one keeps that takes both anew: new users among new items.

    Args:
      model_dir: gets the files.
      first, second: folders of the old and the new vectors (`embeddings/NAME` of two runs over the same corpus).
      k: length of the lists.
      store: directory of a LanceDB store that gets the aligned vectors; None: none does.
      name: of the row.
      seed: of the run, in its row.
      results_file: a study's `results.jsonl` that also gets the row.

    Raises:
      ValueError: both are of one trunk, too few users or items are in both, or the vectors have other widths.
    """
    old, new = StoredVectors.read(first), StoredVectors.read(second)
    if old.trunk == new.trunk:
        raise ValueError(f"{first} and {second} are of one trunk, {old.trunk}: there is nothing to align")
    (old_users, new_users), (old_items, new_items) = (
        _common(old.user_ids, new.user_ids, "users"),
        _common(old.item_ids, new.item_ids, "items"),
    )
    before = Version(old.version.users[old_users], old.version.items[old_items])
    after = Version(new.version.users[new_users], new.version.items[new_items])
    asked = select_rows(len(old_users), COMPARED_USERS)
    kept = functools.partial(kept_share, before.users[asked], before.items, k=k)
    maps = {how: align(after, before, how) for how in ("orthogonal", "low_rank")}
    metrics = {"kept_unaligned": kept(after.items, others=before.users[asked])}
    for how, found in maps.items():
        turned = after.aligned(found)
        metrics[f"kept_{how}"] = kept(turned.items, others=before.users[asked])
    metrics["kept_retrained"] = kept(after.items, others=after.users[asked])
    folder = epath.Path(model_dir) / "aligned"
    turned = new.version.aligned(maps["low_rank"])
    StoredVectors(new.user_ids, new.item_ids, turned, new.trunk, new.corpus).write(folder, aligned_to=old.trunk)
    facts = {"old": old.trunk, "new": new.trunk, "users": len(asked), "items": len(old_items), "seed": seed}
    rows = [run_record(name, metrics, config=artifact.fingerprint(first, second, k), **facts)]
    write_results(model_dir, rows, results_file)
    print(f"of the first {k} items of {len(asked):,} users of trunk {old.trunk} are among those of trunk {new.trunk}:")
    print("\n".join(f"  {name.removeprefix('kept_'):12s}{share:8.4f}" for name, share in metrics.items()))
    if store is not None:
        for what in KEYS:
            print(f"{what}: in {store} as {VectorStore(store).push(what, folder / what)}")


def fine_tune(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    label: Label,
    k: int = 10,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Recommending what users will like: systems judged on the test users whose next item has the label. The trunk as
    it is, extracted and fine-tuned, and a model of the application's own.

    Args:
      model_dir: of the run.
      data: what the systems share.
      systems: name of a row -> system, trained in this order: one that begins with another stands behind it.
      label: what the application is judged by.
      k: length of the lists.
      seed: of the run, in the rows of systems that have none of their own.
      results_file: a study's `results.jsonl` that also gets the rows.
    """
    stages = data.stages(model_dir)
    evaluation = stages.split.evaluation("test")
    liked = evaluation.take(np.flatnonzero(label.of(stages.split).label[evaluation.target_event] == 1))
    if not len(liked):
        raise ValueError(f"no test user's next item has the label {label}: choose another")
    for name, system in systems.items():
        fitted = system.fit(stages, name)
        metrics = figures_of_lists(stages, fitted, liked, k)
        row = _row(stages, f"{name}_liked", metrics, seed, (system, label), fitted)
        write_results(stages.directory, [row], results_file)
        said = (f"{metrics[f'recall@{k}{end}']:.4f} ± {metrics[f'recall@{k}{end}_se']:.4f}" for end in ("", "_unseen"))
        print(f"{name:16s}  recall@{k} {next(said)}, seen removed {next(said)}, {len(liked):,} users")


def horizons(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    behind: Sequence[int] = (0, 1, 3, 7, 15),
    days: Sequence[float] = (1.0,),
    k: int = 10,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """One list for each test user, judged by what the user takes next and later: how myopic systems are.

    Args:
      model_dir: of the run.
      data: what the systems share.
      systems: name of a row -> system, trained where it is not yet.
      behind: events behind the first of the test fold that are targets, each by itself.
      days: the same in days behind the history; () where times are not known.
      k: length of the lists.
      seed: of the run, in the rows of systems that have none of their own.
      results_file: a study's `results.jsonl` that also gets the rows.
    """
    stages = data.stages(model_dir)
    targets = later_targets(stages.split, behind, days)
    for name, system in systems.items():
        fitted = system.fit(stages, name)
        metrics: dict[str, float] = {}
        for said, evaluation in targets.items():
            found = figures_of_lists(stages, fitted, evaluation, k)
            metrics |= {f"{metric}_{said}": value for metric, value in found.items()}
        row = _row(stages, f"{name}_horizons", metrics, seed, system, fitted)
        write_results(stages.directory, [row], results_file)
        print(f"{name:16s}" + "".join(f"  {said}: {metrics[f'recall@{k}_unseen_{said}']:.4f}" for said in targets))


def later_targets(split: Split, behind: Sequence[int], days: Sequence[float]) -> dict[str, EvaluationSet]:
    """Test users with later targets by what they are called: "5_behind", "1_days"."""
    targets = {f"{number}_behind": events_later(split, "test", number) for number in behind}
    return targets | {f"{number:g}_days": days_later(split, "test", number) for number in days}


def figures_of_lists(stages: Stages, fitted: Fitted, evaluation: EvaluationSet, k: int) -> dict[str, float]:
    """Recall and NDCG at k of lists, seen items kept and removed, and how many users there are."""
    found, _ = judged(fitted.rank(evaluation, k), evaluation.user, evaluation.target_item, (k,), catalogue_of(stages))
    names = [f"{metric}@{k}{end}" for metric in ("recall", "ndcg") for end in ("", "_unseen")]
    return {"users": float(len(evaluation))} | {n: found[n] for name in names for n in (name, f"{name}_se")}


def _row(
    stages: Stages, name: str, metrics: Mapping[str, Any], seed: int, config: Any, fitted: Fitted
) -> dict[str, Any]:
    common = {"data": stages.corpus.name, "seed": seed, **fitted.facts}
    common["wall_seconds"] = common.get("train_seconds", 0.0)
    return run_record(name, metrics, config=artifact.fingerprint(stages.data, config), **common)


def _common(old: list[str], new: list[str], what: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of the ids that both have, in either, in the old order."""
    place = {name: number for number, name in enumerate(new)}
    both = [(number, place[name]) for number, name in enumerate(old) if name in place]
    if len(both) < 2:
        raise ValueError(f"two versions have {len(both)} {what} in common: they are of other corpora")
    found = np.array(both)
    return found[:, 0], found[:, 1]
