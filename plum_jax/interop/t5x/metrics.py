"""Metrics of SeqIO's evaluator and lines of `t5x.infer`, from the beams that the model's decode function gives."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from plum_jax.evaluation.judge import judged
from plum_jax.evaluation.metrics import NOTHING, Catalogue
from plum_jax.interop.t5x.run_files import RunFiles
from plum_jax.ragged import Ragged
from plum_jax.retrieval.ranking import ranking_of
from plum_jax.retrieval.recommend import rank_items


@dataclasses.dataclass(frozen=True)
class RetrievalMetrics:
    """Recall and the other metrics of `evaluation.judge` over all items, from codes and scores.

    Attributes:
      run: whose prompts they are.
      ks: cut-offs, at most the model's number of beams.
    """

    run: RunFiles
    ks: tuple[int, ...] = (5, 10)

    def __call__(
        self, targets: Sequence[int], predictions: Sequence[Any], aux_values: Mapping[str, Sequence[Any]]
    ) -> dict[str, float]:
        """The metrics of users by their row among the run's prompts."""
        del predictions  # the first beam
        rows = self.run.prompts[np.asarray(targets, np.int64)]
        codes, scores = beams_of(aux_values)
        target_items = rows["target_item"].to_numpy()
        seen = Ragged.from_series(rows["seen_items"])
        table = self.run.table
        ranking = ranking_of(codes, scores, table, target_items, max(self.ks), seen)
        catalogue = Catalogue(table.num_items, codes=table.codes)
        metrics, _ = judged(ranking, rows["user"].to_numpy(), target_items, self.ks, catalogue)
        return {name: float(value) for name, value in metrics.items()}


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """`write_fn` of `t5x.infer` (mode "predict_with_aux"): a line a user, JSON, with names of users and items.

    Attributes:
      run: whose prompts they are.
      items_per_user: K, at most the model's number of beams.
      remove_seen: leave out what the user has watched.
    """

    run: RunFiles
    items_per_user: int = 10
    remove_seen: bool = True

    def __call__(self, path: str, inferences: Any, task_ds: Any, mode: str, vocabulary: Any = None, **_: Any) -> None:
        """Writes one chunk.

        Raises:
          ValueError: another mode, which has no beams.
        """
        if mode != "predict_with_aux":
            raise ValueError(f"expected infer.mode = 'predict_with_aux', which gives all beams, got {mode!r}")
        codes, scores = beams_of(inferences[1])
        rows = self.run.prompts[[int(example["row"]) for example in task_ds.as_numpy_iterator()]]
        seen = Ragged.from_series(rows["seen_items"]) if self.remove_seen else None
        table, users = self.run.table, rows["user"].to_numpy()
        items, found = rank_items(codes, scores, table, self.items_per_user, seen)
        lines = []
        for user, listed, of_items in zip(users, items, found, strict=True):
            there = listed != NOTHING
            line = {
                "user_id": self.run.user_ids[int(user)],
                "items": [str(item) for item in table.item_ids[listed[there]]],
                "scores": [round(float(score), 5) for score in of_items[there]],
            }
            lines.append(json.dumps(line) + "\n")
        epath.Path(path).write_text("".join(lines))


def beams_of(aux_values: Mapping[str, Sequence[Any]]) -> tuple[np.ndarray, np.ndarray]:
    """codes int32 [U, M, L] and scores float32 [U, M]."""
    return np.asarray(aux_values["codes"], np.int32), np.asarray(aux_values["scores"], np.float32)
