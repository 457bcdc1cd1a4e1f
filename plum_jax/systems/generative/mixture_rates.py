"""Rates of the tasks of continued pre-training by small proxies: no task shall be farther behind than another.

After DoReMi (arXiv 2305.10429), which lowers the worst excess of the tasks' losses over a reference model's. Here the
reference of a task is a *specialist*, a proxy that trains on this task alone for as many steps: DoReMi's own, a model
of the first rates, has no excess at these rates, where a search by whole proxies would end at once. With the excess
e_i(rates) of held-out loss, in nats a token, the rates move by Frank-Wolfe on the simplex,

    rates <- rates + 2 / (t + 4) (the task of the greatest excess - rates),

and it ends where the gap, the greatest excess less the mean under the rates, is small. (2 / (t + 4), not 2 / (t + 2):
no rate may come to zero.)
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.feeds import token_records
from plum_jax.feeds.batches import TokenBatches
from plum_jax.frank_wolfe.problem import gap_at
from plum_jax.frank_wolfe.sets import Simplex
from plum_jax.systems.generative.phase import Phase, train_phase
from plum_jax.systems.generative.pipeline import GenerativeStages

TRAINED = (0.0, 0.9)  # of each task's records; the rest judges
JUDGED = (0.9, 1.0)


@dataclasses.dataclass(frozen=True)
class MixtureSearch:
    """How rates are chosen.

    Attributes:
      proxy: training of one proxy: steps and batch; its model is the pipeline's decoder.
      rounds: at most, besides one specialist a task.
      tolerance: of the gap, nats a token.
      held_out_batches: of each task's held-out records, at most, that judge.
    """

    proxy: Phase = Phase()
    rounds: int = 8
    tolerance: float = 0.02
    held_out_batches: int = 20

    def choose(self, stages: GenerativeStages) -> list[dict[str, Any]]:
        """One row a round: "round", "rates", "losses", "excess", "gap". What is finished is read.

        Raises:
          ValueError: fewer than two tasks, or no round.
        """
        tasks = token_records.read_tasks(stages.cpt_records)
        names = [task.name for task in tasks]
        if len(names) < 2:
            raise ValueError(
                f"expected at least two tasks to choose rates of, got {names}: is there text in the corpus?"
            )
        if self.rounds < 1:
            raise ValueError(f"expected at least one round, got {self.rounds}")
        judge = _Judge(stages, self.proxy, self.held_out_batches, names)
        best = {name: self._losses(judge, f"specialist_{name}", {name: 1.0})[name] for name in names}
        rates = np.array([task.rate for task in tasks], np.float64)
        rates /= rates.sum()
        rows: list[dict[str, Any]] = []
        for number in range(self.rounds):
            asked = dict(zip(names, (float(f"{rate:.6f}") for rate in rates), strict=True))
            losses = self._losses(judge, f"round_{number}", asked)
            excess = np.array([losses[name] - best[name] for name in names])
            gap = float(gap_at(Simplex(), jnp.asarray(-excess), jnp.asarray(rates)))
            told = dict(zip(names, excess.tolist(), strict=True))
            rows.append({"round": number, "rates": asked, "losses": losses, "excess": told, "gap": gap})
            if gap <= self.tolerance:
                break
            worst = np.asarray(Simplex().vertex(jnp.asarray(-excess)))
            rates = rates + 2.0 / (number + 4.0) * (worst - rates)
        return rows

    def _losses(self, judge: _Judge, name: str, rates: Mapping[str, float]) -> dict[str, float]:
        """Held-out loss of every task under a proxy of these rates, nats a token."""
        stages = judge.stages
        directory = stages.directory / "mixture_rates" / name
        phase = dataclasses.replace(self.proxy, rates=dict(rates), share=TRAINED)
        made_from = {
            "sid_table": stages.table.fingerprint,
            "vocabulary": stages.vocabulary.fingerprint,
            "records": artifact.read_manifest(stages.cpt_records, token_records.KIND).fingerprint,
            "decoder": artifact.fingerprint(stages.decoder.config, phase, self.held_out_batches),
            "begins_with": stages.first_fingerprint,
        }
        told = directory / "losses.json"
        if told.exists():
            stored = json.loads(told.read_text())
            if stored["made_from"] == made_from:
                return stored["losses"]
        params = train_phase(
            phase,
            decoder=stages.decoder,
            records=stages.cpt_records,
            start_token=stages.vocabulary.start_id,
            made_from={name: made_from[name] for name in ("sid_table", "vocabulary")},
            directory=directory,
            warm_start=stages.first_params,
            warm_start_fingerprint=stages.first_fingerprint,
            description=name.replace("_", " "),
        )
        losses = {task: judge.loss(params, task) for task in judge.tasks}
        artifact.write_json(told, {"made_from": made_from, "losses": losses})
        return losses


@dataclasses.dataclass(frozen=True, eq=False)
class _Judge:
    """Loss on held-out records, by the phase's objective without dropout; one for all proxies, so compiled once.

    Attributes:
      stages: with the records and the decoder.
      phase: objective, and the shape of batches.
      batches: of each task, at most.
      tasks: that the records have.
    """

    stages: GenerativeStages
    phase: Phase
    batches: int
    tasks: list[str]

    @functools.cached_property
    def _sums(self) -> Any:
        objective = self.phase.objective.on(self.stages.decoder, self.phase.training.mesh.build())
        return jax.jit(lambda params, batch: objective(params, batch, None)[:2])

    def loss(self, params: Any, task: str) -> float:
        """Of one task, nats a token."""
        feed = TokenBatches(
            self.stages.cpt_records,
            batch_size=self.phase.batch_size,
            length=self.phase.length,
            rates={task: 1.0},
            share=JUDGED,
            num_epochs=1,
            start_token=self.stages.vocabulary.start_id,
        )
        total = weight = 0.0
        for _, batch in zip(range(self.batches), feed.make_iterator(), strict=False):
            loss_sum, weight_sum = self._sums(params, batch)
            total, weight = total + float(loss_sum), weight + float(weight_sum)
        return total / weight


def rates_gin(rates: Mapping[str, float]) -> str:
    """The rates as a gin file that a run includes."""
    lines = "".join(f"    {name!r}: {rate:.6g},\n" for name, rate in rates.items())
    head = "# Chosen by gin/run/mixture_rates.gin; another --gin_file of a run, behind its own."
    return f"{head}\nCPT_RATES = {{\n{lines}}}\n"


def write_choice(directory: epath.Path, rows: list[dict[str, Any]]) -> epath.Path:
    """`rounds.json`, and `rates.gin` with the rates of the round with the least greatest excess; the path of that."""
    chosen = min(rows, key=lambda row: max(row["excess"].values()))
    artifact.write_json(directory / "rounds.json", rows)
    artifact.write_text(directory / "rates.gin", rates_gin(chosen["rates"]))
    return directory / "rates.gin"
