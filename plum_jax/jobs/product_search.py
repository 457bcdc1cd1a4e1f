"""Product search (Etsy, arXiv 2306.04833): trained and judged, its quality tuned, its index made and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plum_jax import artifact
from plum_jax.retrieval.ann_index import AnnIndex, read_index
from plum_jax.stages import Data, Stages
from plum_jax.systems import judge_tasks
from plum_jax.systems.product_search import judge
from plum_jax.systems.product_search.quality import Quality, QualitySearch, tuned_quality
from plum_jax.systems.product_search.requests import Request, answer
from plum_jax.systems.product_search.system import KNOWN_SEARCH, SEARCH, FittedProductSearch, ProductSearch
from plum_jax.training.run_record import write_results


def train_and_judge(
    model_dir: str,
    data: Data,
    models: Mapping[str, ProductSearch],
    base: Mapping[str, str] | None = None,
    ks: Sequence[int] = (10, 100),
    max_examples: int | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains models, ranks all items for the test searches, those with queries that are new and those with queries that
    are not, and compares each model with its base.

    Rows "<model>.search" and "<model>.search_known" in `results.jsonl`, ranks of the searches in `evaluation/`, and a
    table.

    Args:
      model_dir: of the run.
      data: what the models share.
      models: name -> model, in the order of the table.
      base: name of a model -> name of the one that it is compared with; None: no differences.
      ks: cut-offs.
      max_examples: test searches of a kind, evenly spread; None: all.
      seed: of the run.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      ValueError: no model, or a base that is none of them.
    """
    stages = data.stages(model_dir)
    rows = judge_tasks.compared(stages, models, base or {}, ks, max_examples, seed)
    write_results(stages.directory, rows, results_file)
    print(judge_tasks.table(rows, max(ks)))


def tune_quality(
    model_dir: str,
    data: Data,
    name: str,
    model: ProductSearch,
    search: QualitySearch,
    ks: Sequence[int] = (10, 100),
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Tunes the weights of quality on validation searches, and judges lists of test searches with it and without.

    Args:
      model_dir, data: of the run.
      name, model: of its models; it is trained where it is not yet.
      search: how the weights are found.
      ks, seed, results_file: as in `train_and_judge`.
    """
    stages, fitted, quality = with_quality(model_dir, data, name, model, search)
    facts = {"data": stages.corpus.name, "seed": seed}
    rows = []
    for task in (SEARCH, KNOWN_SEARCH):
        rows += judge.quality_rows(stages, name, fitted, quality, task, ks, facts)
    write_results(stages.directory, rows, results_file)
    print(judge.quality_table(rows, ks))


def build_index(
    model_dir: str,
    data: Data,
    name: str,
    model: ProductSearch,
    search: QualitySearch,
    index: AnnIndex,
    efforts: Sequence[int] = (16, 32, 64, 128, 256, 512),
    shortlists: Sequence[int] = (0, 40, 100),
    k: int = 10,
    max_examples: int | None = 2000,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Writes the index of a model's items, with their quality, to `MODEL_DIR/index`, and says for test searches what it
    finds of what the exact search does.

    Args:
      model_dir, data: of the run.
      name, model, search: of its models, and how its quality is tuned; both are made where they are not yet.
      index: how it is made.
      efforts, shortlists: that it is asked with.
      k: cut-off.
      max_examples: test searches, evenly spread; None: all.
      seed, results_file: as in `train_and_judge`.
    """
    stages, fitted, quality = with_quality(model_dir, data, name, model, search)
    items = quality.of_items(fitted.item_vectors)
    built = index.build(items, stages.corpus.items["item_id"].to_list(), encoder_of(fitted, quality))
    built.write(stages.directory / "index")
    users, vectors = fitted.searches_of(SEARCH, "test", max_examples)
    searches, facts = quality.of_searches(vectors), {"data": stages.corpus.name, "seed": seed}
    rows = judge.index_rows(f"{name}.index", built, searches, items, users.target_item, efforts, shortlists, k, facts)
    write_results(stages.directory, rows, results_file)
    print(judge.index_table(rows, k))


def ask(
    model_dir: str, data: Data, name: str, model: ProductSearch, search: QualitySearch, request: Request, k: int = 10
) -> None:
    """Prints the first items of one request, found by the index of `build_index`.

    Args:
      model_dir, data: of the run.
      name, model, search: as there.
      request: query and user.
      k: items.
    """
    stages, fitted, quality = with_quality(model_dir, data, name, model, search)
    index = read_index(stages.directory / "index", encoder_of(fitted, quality))
    titles = dict(stages.corpus.items.select("item_id", model.text_fields[0]).iter_rows())
    for place, (item, score) in enumerate(answer(fitted, quality, index, request, k), start=1):
        print(f"{place:3d}. {score:8.3f}  {item}  {titles.get(item) or ''}".rstrip())


def encoder_of(fitted: FittedProductSearch, quality: Quality) -> str:
    """Fingerprint of what makes vectors of searches and of items, by which an index knows its own."""
    return artifact.fingerprint(fitted.fingerprint, quality.fingerprint)


def with_quality(
    model_dir: str, data: Data, name: str, model: ProductSearch, search: QualitySearch
) -> tuple[Stages, FittedProductSearch, Quality]:
    """The run's stages, the model and its quality, both made where they are not yet; arguments as of `tune_quality`."""
    stages = data.stages(model_dir)
    fitted = model.fit(stages, name)
    return stages, fitted, tuned_quality(stages, name, fitted, search)
