"""A search of judged queries, whichever system's it is: trained, and judged on test queries."""

from __future__ import annotations

from typing import Protocol

from etils import epath

from plum_jax.corpus.sources.judgements import JudgedQueries, Judgements
from plum_jax.systems import judge_search
from plum_jax.training.run_record import write_results


class JudgedSearcher(Protocol):
    """`systems.unicorn.judged_search.JudgedSearch`, `systems.product_search.judged_search.JudgedTextSearch`."""

    def fit(
        self, judged: JudgedQueries, directory: epath.PathLike, description: str
    ) -> judge_search.FittedJudgedSearch:
        """Trains on the judged pairs of training queries, or goes on, or reads what was trained."""


def train_and_judge(
    model_dir: str,
    name: str,
    judgements: Judgements,
    search: JudgedSearcher,
    relevant: float,
    k: int = 10,
    max_queries: int | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains, and judges test queries (`judge_search.judged_search`).

    Args:
      model_dir: of the run.
      name: of the model's row, and of its folder in `systems/`.
      judgements: queries, items and grades.
      search: the model.
      relevant: the least grade of a relevant item.
      k: cut-off.
      max_queries: test queries that all items are ranked for; None: all.
      seed: of the run.
      results_file: a study's `results.jsonl` that also gets the rows.
    """
    directory = epath.Path(model_dir)
    fitted = search.fit(judgements.read(), directory / "systems" / name, name)
    facts = {"data": judgements.name, "seed": seed}
    rows = judge_search.judged_search(
        directory, name, fitted, relevant=relevant, k=k, max_queries=max_queries, facts=facts
    )
    write_results(directory, rows, results_file)
    print(judge_search.table(rows, k))
