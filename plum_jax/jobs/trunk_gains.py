"""The job that asks what the trunks of a study give to applications, each beside its pre-training loss."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.jobs.trunk import figures_of_lists, later_targets
from plum_jax.ranking import judge
from plum_jax.ranking.labels import Label
from plum_jax.ranking.sequence_ranker import FittedSequenceRanker
from plum_jax.retrieval.recommend import select_rows
from plum_jax.stages import Stages
from plum_jax.studies.cell import TRAINING
from plum_jax.studies.places import Cell, StudyError
from plum_jax.studies.records import cell_directory, read_record, shared_directory
from plum_jax.studies.shared import shared
from plum_jax.studies.solve import cells_of
from plum_jax.studies.study import Study
from plum_jax.systems.popularity import Popularity
from plum_jax.systems.trunk.on_top import TrunkRanker
from plum_jax.systems.trunk.scaling import ScaledTrunk
from plum_jax.systems.trunk.system import FittedTrunk
from plum_jax.training.run_record import run_record, write_results

FOLDER = "gains"  # in the study's directory: a file a cell
# Of a cell's record, in its row here.
FACTS = (
    "size",
    "horizon",
    "seed",
    "tokens",
    "unique_tokens",
    "steps",
    "parameters",
    "non_embedding_parameters",
    "flops",
)
OF_LABELS = ("auc", "auc_se", "gauc", "gauc_se", "log_loss")


def gains(
    model_dir: str,
    study: Study,
    ranker: TrunkRanker,
    label: Label,
    behind: Sequence[int] = (0, 5),
    days: Sequence[float] = (1.0,),
    k: int = 10,
    results_file: str | None = None,
) -> None:
    """A row for each finished cell of a study: its pre-training loss, how well its lists find what is taken next and
    later, and what a ranker of a label on top of it, at rest, reaches; beside it what the same ranker reaches that
    begins with random parameters and learns all of them ("scratch_auc"). A row "popularity" has the lists' rival.

    What was asked of a cell is kept in `STUDY_DIR/gains/`, and is not asked again.

    Args:
      model_dir: STUDY_DIR; its cells have been run (`gin/run/study_run.gin`).
      study: as it was run, of a `systems.trunk.scaling.ScaledTrunk`.
      ranker: what is trained on top; its trunk is the cell's, its seed the cell's.
      label: of the ranker.
      behind, days: later targets, as of `jobs.trunk.horizons`.
      k: length of the lists.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      StudyError: what the study scales is no trunk, or none of its cells is finished.
    """
    if not isinstance(study.system, ScaledTrunk):
        raise StudyError(
            f"study {study.name} scales {type(study.system).__name__}, expected ScaledTrunk: put gin/study/trunk.gin "
            "behind the study's file"
        )
    cells = cells_of(study, shared(study, model_dir).data)
    records = {cell.cell_id: read_record(model_dir, cell.cell_id) for cell in cells}
    finished = [cell for cell in cells if (records[cell.cell_id] or {}).get("status") == "finished"]
    if not finished:
        raise StudyError(
            f"none of the {len(cells)} cells of study {study.name} in {model_dir} is finished: run them first "
            "(gin/run/study_run.gin)"
        )
    stages = study.system.data.stages(shared_directory(model_dir))
    targets = {
        said: found.take(select_rows(len(found), study.evaluation_users or len(found)))
        for said, found in later_targets(stages.split, behind, days).items()
    }
    common = {"data": stages.corpus.name, "study": study.name}
    popularity = of_lists(stages, Popularity().fit(stages, "popularity"), targets, k)
    rows = [run_record("popularity", popularity, **common)]
    folder = epath.Path(model_dir) / FOLDER
    for cell in finished:
        record = records[cell.cell_id]
        assert record is not None, "it is finished"
        asked = _Asked(study, cell, epath.Path(model_dir), stages, label)
        figures = asked.figures(ranker, targets, k, folder / f"{cell.cell_id}.json")
        known = {name: record[name] for name in FACTS} | {"loss": record["loss"], "loss_se": record["loss_se"]}
        rows.append(run_record(cell.cell_id, figures, **known, **common, config=record["config"]))
        write_results(folder, rows, results_file)
        print(f"{cell.cell_id}: loss {record['loss']:.4f}, " + ", ".join(_said(figures, targets, k)), flush=True)


@dataclasses.dataclass(frozen=True, eq=False)
class _Asked:
    """A cell and what is asked of it."""

    study: Study
    cell: Cell
    study_dir: epath.Path
    stages: Stages
    label: Label

    def figures(
        self, ranker: TrunkRanker, targets: Mapping[str, EvaluationSet], k: int, path: epath.Path
    ) -> dict[str, float]:
        """Of the cell's trunk; read from the file where the same was asked of the same trunk."""
        system: Any = self.study.system_of(self.cell)
        trial = system.trial(shared_directory(self.study_dir), self.study.evaluation_users)
        trained = trial.fitted(epath.Path(cell_directory(self.study_dir, self.cell.cell_id)) / TRAINING)
        seeded = dataclasses.replace(ranker.training, seed=self.cell.seed)
        ranker = dataclasses.replace(ranker, trunk=system.system, training=seeded)
        sets = {said: (some.user, some.target_event) for said, some in targets.items()}
        asked = artifact.fingerprint(trained.fingerprint, ranker, self.label, sets, k)
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["fingerprint"] == asked:
                return stored["figures"]
        found = of_lists(self.stages, trained, targets, k)
        found |= self._of_labels(ranker, trained, self.cell.cell_id, "")
        scratch = dataclasses.replace(ranker, frozen=False, pretrained=False)
        # One for all cells of a size and seed: nothing of it hangs on how long the trunk was trained.
        one = dataclasses.replace(system.system, training=seeded)
        scratch = dataclasses.replace(scratch, trunk=one)
        found |= self._of_labels(scratch, None, f"scratch-{self.cell.size}-s{self.cell.seed}", "scratch_")
        artifact.write_json(path, {"fingerprint": asked, "figures": found})
        return found

    def _of_labels(self, ranker: TrunkRanker, trained: FittedTrunk | None, name: str, said: str) -> dict[str, float]:
        row = judge.judged(self.stages, self.label, name, _OnTrained(ranker, trained))
        return {f"{said}{metric}": row[metric] for metric in OF_LABELS if metric in row}  # a GAUC needs both labels


@dataclasses.dataclass(frozen=True, eq=False)
class _OnTrained:
    """The ranker on a trunk that is there already, as `judge.judged` asks it."""

    ranker: TrunkRanker
    trained: FittedTrunk | None

    def fit(self, stages: Stages, label: Label, name: str) -> FittedSequenceRanker:
        return self.ranker.fit_on(self.trained, stages, label, name)


def of_lists(stages: Stages, fitted: Any, targets: Mapping[str, EvaluationSet], k: int) -> dict[str, float]:
    """Figures of the lists of the first k items for each of the targets, by their names."""
    found: dict[str, float] = {}
    for said, evaluation in targets.items():
        figures = figures_of_lists(stages, fitted, evaluation, k)
        found |= {f"{metric}_{said}": value for metric, value in figures.items()}
    return found


def _said(figures: Mapping[str, float], targets: Mapping[str, EvaluationSet], k: int) -> list[str]:
    lists = [f"{said} {figures[f'recall@{k}_unseen_{said}']:.4f}" for said in targets]
    return [*lists, f"AUC {figures['auc']:.4f} (from scratch {figures['scratch_auc']:.4f})"]
