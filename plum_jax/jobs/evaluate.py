"""A finished run judged again: other cut-offs, another width of the search; nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plum_jax.evaluation.judge import evaluated
from plum_jax.evaluation.system import System
from plum_jax.jobs.compare import results_table
from plum_jax.stages import Data
from plum_jax.training.run_record import write_rows


def evaluate(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    ks: Sequence[int],
    num_beams: int,
    new_item_share: float = 0.0,
) -> None:
    """All systems of a run on its test users, as a table and as files in MODEL_DIR/evaluations/ks_..._beams_...

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      ks: cut-offs.
      num_beams: width of the search that `systems` are configured with, for the folder's name.
      new_item_share: of each list, for new items, that they are configured with, for the same.
    """
    stages = data.stages(model_dir)
    folder = f"evaluations/ks_{'_'.join(map(str, ks))}_beams_{num_beams}"
    folder += f"_new_{new_item_share}" if new_item_share else ""
    rows = [evaluated(stages, name, system, ks, folder=folder) for name, system in systems.items()]
    write_rows(stages.directory / folder / "results.jsonl", rows)
    print(results_table(rows, ks))
    print(f"evaluations: {stages.directory / folder}")
