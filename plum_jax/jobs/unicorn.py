"""UniCoRn (arXiv 2408.10394): models of several tasks, or of one, trained and judged task by task; and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from etils import epath

from plum_jax.ranking.knowledge import Knowledge
from plum_jax.stages import Data
from plum_jax.systems import judge_tasks
from plum_jax.systems.unicorn.requests import Request, answers
from plum_jax.systems.unicorn.system import Unicorn
from plum_jax.systems.unicorn.vectors import write_vectors
from plum_jax.training.run_record import write_results


def train_and_judge(
    model_dir: str,
    data: Data,
    models: Mapping[str, Unicorn],
    base: Mapping[str, str] | None = None,
    ks: Sequence[int] = (10,),
    max_examples: int | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Trains models, ranks all items for the test examples of each of their tasks, and compares each with its base.

    A row "<model>.<task>" each in `results.jsonl`, ranks of the examples in `evaluation/`, and a table.

    Args:
      model_dir: of the run.
      data: what the models share.
      models: name -> model, in the order of the table.
      base: name of a model -> name of the one that it is compared with, on the tasks of both; None: no differences.
      ks: cut-offs.
      max_examples: test examples of a task, evenly spread over its users; None: all.
      seed: of the run.
      results_file: a study's `results.jsonl` that also gets the rows.

    Raises:
      ValueError: no model, or a base that is none of them.
    """
    stages = data.stages(model_dir)
    rows = judge_tasks.compared(stages, models, base or {}, ks, max_examples, seed)
    write_results(stages.directory, rows, results_file)
    print(judge_tasks.table(rows, max(ks)))


def vectors_of_knowledge(model_dir: str, data: Data, knowledge: Knowledge) -> None:
    """A user model's vectors as `MODEL_DIR/vectors/users.parquet` and `items.parquet`, for `vectors.VectorFile`.

    Args:
      model_dir, data: of the run.
      knowledge: the model; it is trained where it is not yet.
    """
    directory = epath.Path(model_dir) / "vectors"
    write_vectors(data.stages(model_dir), knowledge, directory)
    print(f"vectors of users before every event, and of items: {directory}")


def ask(model_dir: str, data: Data, name: str, model: Unicorn, request: Request, k: int = 10) -> None:
    """Prints the first items of one request.

    Args:
      model_dir, data: of the run.
      name, model: of its models; it is trained where it is not yet.
      request: task, query, source item, user.
      k: items.
    """
    stages = data.stages(model_dir)
    (found,) = answers(model.fit(stages, name), [request], k)
    titles = dict(stages.corpus.items.select("item_id", model.text_fields[0]).iter_rows())
    for place, (item, logit) in enumerate(found, start=1):
        print(f"{place:3d}. {logit:8.3f}  {item}  {titles.get(item) or ''}".rstrip())
