"""A search of judged queries, whichever system's it is: trained, and judged on test queries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from etils import epath

from plum_jax.corpus.sources.judgements import JudgedQueries, Judgements
from plum_jax.encoders.language_model import LanguageModel
from plum_jax.encoders.text_vectors import TextVectors
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
    fold: Literal["validation", "test"] = "test",
    cosines: Mapping[str, LanguageModel] | None = None,
    cosines_dir: str | None = None,
    base: str = "text_cosine",
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains, and judges the queries of a fold (`judge_search.judged_search`).

    Args:
      model_dir: of the run.
      name: of the model's row, and of its folder in `systems/`.
      judgements: queries, items and grades.
      search: the model.
      relevant: the least grade of a relevant item.
      k: cut-off.
      max_queries: queries that all items are ranked for; None: all.
      fold: whose queries judge.
      cosines: name of a row -> imported language model whose vectors' cosine is an order too, untrained; None: none.
      cosines_dir: where these vectors are kept, which runs of other seeds read too; None: `model_dir`.
      base: name of the row of a cosine that the model is compared with.
      seed: of the run.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      ValueError: before the training, a `base` that is no row of a cosine, or a model of `cosines` without weights.
    """
    directory, kept = epath.Path(model_dir), epath.Path(cosines_dir or model_dir)
    cosines = cosines or {}
    judge_search.require_cosine(base, cosines)
    judged = judgements.read()
    vectors = {
        one: TextVectors(model.start((), kept)).of_both(judged.queries, judged.texts, kept)
        for one, model in cosines.items()
    }
    fitted = search.fit(judged, directory / "systems" / name, name)
    facts = {"data": judgements.name, "seed": seed}
    rows = judge_search.judged_search(
        directory,
        name,
        fitted,
        relevant=relevant,
        k=k,
        max_queries=max_queries,
        fold=fold,
        cosines=vectors,
        base=base,
        facts=facts,
    )
    write_results(directory, rows, results_file)
    print(judge_search.table(rows, k))
