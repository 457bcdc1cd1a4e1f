"""What a request in words does: how much of the lists has the attribute, and what it costs, beside the trie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.evaluation.system import System
from plum_jax.jobs.chosen import chosen_decoder
from plum_jax.jobs.measured import write_measured
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import Recommender, rank_items, select_rows
from plum_jax.stages import Data
from tasks.item_attributes import ItemAttributeError, attributes, require_value
from tasks.requests import Requests, with_request

RAREST = 10


def steer(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    field: str,
    values: Sequence[str] | None = None,
    k: int = 10,
    users: int | None = None,
    system: str | None = None,
    results_file: str | None = None,
) -> list[dict[str, Any]]:
    """Prints, and writes to MODEL_DIR/steering_<field>.json, one row for each value of an attribute; returns the rows.

    Each test user gets three lists of `k`, seen items removed: without a request, with "more <value>" behind the
    history, and without a request but constrained by the trie to the items that have the value. A row: "share_plain",
    "share_asked" (of the lists that has the value) and their difference "gain" with its 95% interval; over the users
    whose target has the value ("targets") "recall_plain", "recall_asked", "recall_filtered", with the difference of the
    first two, "recall_gain", and its interval; "share_refused": with "not <value>"; "recall_all_plain",
    "recall_all_asked" and their difference "loss_all" with its interval, over all users, whatever their targets.

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      field: column of items.
      values: which of its values; None: the ten that the fewest items have, of those that some user's target has.
      k: length of a list, at most the number of beams.
      users: test users, evenly spread; None: all.
      system: name of the row; None: the last of the table.
      results_file: a study's rows, which also get these; None: none.

    Raises:
      ValueError: no such system, one without prompts, or a list longer than the beams.
      ItemAttributeError: no such field, or a value that no item has.
    """
    stages = data.stages(model_dir)
    name, fitted = chosen_decoder(stages, systems, system, "takes no words")
    own = fitted.stages
    if k > own.recommender.num_beams:
        raise ValueError(f"expected TOP of at most {own.recommender.num_beams}, the number of beams, got {k}")
    requests = own.config.retrieval_task.requests
    if requests is None:
        print("this run was not trained with requests (gin/tasks/requests.gin): what words do here, they do by chance")
        requests = Requests((field,))
    names, has = attributes(own.corpus, field)
    prompts = own.prompts("test")
    prompts = prompts[select_rows(len(prompts), users)]
    asked_for = [require_value(names, field, value) for value in values] if values is not None else None
    if asked_for is None:
        of_targets = has[prompts["target_item"].to_numpy()].any(axis=0)
        asked_for = [place for place in np.argsort(has.sum(axis=0), kind="stable").tolist() if of_targets[place]][
            :RAREST
        ]
    if not asked_for:
        raise ItemAttributeError(f"no target of these users has a value of {field!r}: name VALUES")
    lists = _Lists(own.recommender, fitted.params, prompts, k)
    plain = lists.found()
    rows = []
    for place in asked_for:
        wanted, refused = (
            lists.found(own.vocabulary.encode(text))
            for text in (requests.wanted(names[place]), requests.refusal(names[place]))
        )
        filtered = lists.found(items=has[:, place])
        rows.append({"value": names[place], **_figures(has[:, place], prompts, plain, wanted, refused, filtered)})
    print(_table(rows, k))
    write_measured(
        stages, fitted, f"steering_{field.replace(':', '_')}", rows, results_file, system=name, field=field, k=k
    )
    return rows


@dataclasses.dataclass(frozen=True, eq=False)
class _Lists:
    """Lists of some users."""

    recommender: Recommender
    params: Any
    prompts: pl.DataFrame
    k: int

    def found(self, request: list[int] | None = None, items: np.ndarray | None = None) -> np.ndarray:
        """int32 [U, k]: items, -1 where the beams had no more; with a request, or of some items (bool [N]) alone."""
        prompts = self.prompts if request is None else with_request(self.prompts, request)
        seen = Ragged.from_series(prompts["seen_items"])
        recommender = self.recommender if items is None else dataclasses.replace(self.recommender, item_sets=(items,))
        tokens = Ragged.from_series(prompts["prompt"])
        codes, log_probs = recommender.search(self.params, tokens, exclude=seen, description="steering")
        if items is None:
            return rank_items(codes, log_probs, recommender.table, self.k, seen)[0]
        # A Semantic ID of the set may be that of other items too.
        everything, _ = rank_items(codes, log_probs, recommender.table, 4 * self.k, seen)
        return _kept(everything, items, self.k)


def _kept(lists: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """The first k of each list that are of the set."""
    wanted = (lists >= 0) & items[np.maximum(lists, 0)]
    order = np.argsort(~wanted, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(wanted, order, axis=1), np.take_along_axis(lists, order, axis=1), -1)


def _figures(
    has: np.ndarray,
    prompts: pl.DataFrame,
    plain: np.ndarray,
    wanted: np.ndarray,
    refused: np.ndarray,
    filtered: np.ndarray,
) -> dict[str, Any]:
    target = prompts["target_item"].to_numpy()
    shares = [np.where(lists >= 0, has[np.maximum(lists, 0)], False).mean(axis=1) for lists in (plain, wanted, refused)]
    gain = paired_bootstrap(shares[1], shares[0])
    row: dict[str, Any] = {"items": int(has.sum()), "users": len(target), "targets": int(has[target].sum())}
    row |= {f"share_{of}": float(share.mean()) for of, share in zip(("plain", "asked", "refused"), shares, strict=True)}
    row |= gain.named("gain")
    everybody = [(lists == target[:, None]).any(axis=1).astype(float) for lists in (plain, wanted)]
    loss = paired_bootstrap(everybody[1], everybody[0])
    row |= {f"recall_all_{of}": float(hit.mean()) for of, hit in zip(("plain", "asked"), everybody, strict=True)}
    row |= loss.named("loss_all")
    if row["targets"]:
        of = has[target]
        hits = [(lists == target[:, None]).any(axis=1)[of].astype(float) for lists in (plain, wanted, filtered)]
        row |= {f"recall_{kind}": float(h.mean()) for kind, h in zip(("plain", "asked", "filtered"), hits, strict=True)}
        change = paired_bootstrap(hits[1], hits[0])
        row |= change.named("recall_gain")
    return row


def _table(rows: Sequence[Mapping[str, Any]], k: int) -> str:
    head = f"{'':31s}{f'share of the first {k}':>32s}{'':29s}{'recall of targets that have it':>33s}"
    columns = {"items": 7, "plain": 8, "more": 8, "not": 8, "gain": 8, "interval": 20, "targets": 9}
    names = f"{'':24s}" + "".join(f"{name:>{width}s}" for name, width in columns.items())
    names += "".join(f"{name:>8s}" for name in ("plain", "more", "trie"))
    lines = [head, names]
    for row in rows:
        interval = f"[{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]"
        line = f"{row['value']:24.24s}{row['items']:7d}{row['share_plain']:8.3f}{row['share_asked']:8.3f}"
        line += f"{row['share_refused']:8.3f}{row['gain']:+8.3f}{interval:>20s}{row['targets']:9d}"
        line += "".join(
            f"{row[name]:8.3f}" for name in ("recall_plain", "recall_asked", "recall_filtered") if name in row
        )
        lines.append(line)
    return "\n".join(lines)
