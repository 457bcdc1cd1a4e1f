"""M6-Rec writes: why an item is recommended, or the answer of a conversation, for test events; and how well it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.ranking.labels import Label
from plum_jax.retrieval.recommend import select_rows
from plum_jax.stages import Data
from plum_jax.systems.m6rec.continuing import Continuing
from plum_jax.systems.m6rec.pretraining import Pretrained, Pretraining
from plum_jax.systems.m6rec.writer import Text
from plum_jax.systems.m6rec.zero_shot import mean_log_likelihoods
from plum_jax.training.run_record import run_record, write_results

Kind = Literal["explanation", "conversation"]
_SHOWN = 5


def write(
    model_dir: str,
    data: Data,
    label: Label,
    pretraining: Pretraining,
    kind: Kind = "explanation",
    continuing: Continuing | None = None,
    events: int = 200,
    said: str | None = None,
    seed: int = 0,
    results_file: str | None = None,
) -> None:
    """Writes for test events with label 1, prints some, and a row of results.

    Of an explanation the item is given, and what follows "because it is" is written; of a conversation the user's turn
    is given. The row has "matched", the share of texts that name a category of the item (explanations; the paper's
    feature matching ratio, FMR), "unique", of different texts among all (USR), and "perplexity" of the texts that the
    templates would have.

    Args:
      model_dir: of the run.
      data: of it.
      label: how behaviours ended.
      pretraining: the trunk, trained where it is not yet.
      kind: what is written.
      continuing: how; None: the likeliest words.
      events: how many, evenly spread over those whose item has a category.
      said: instead: the user's turn of one conversation, whose answer is printed.
      seed: of the run.
      results_file: a study's `results.jsonl` that also gets the row.

    Raises:
      ValueError: another kind, or no test event that anything could be said of.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"expected KIND to be one of {get_args(Kind)}, got {kind!r}")
    continuing, stages = continuing or Continuing(), data.stages(model_dir)
    trunk = pretraining.fit(stages, label.of(stages.split))
    if said is not None:
        print(_answer(trunk, continuing, said))
        return
    texts = _texts(trunk, kind, events)
    begun = [_begun(text, kind) for text in texts.values()]
    written = continuing.write(trunk, begun)
    facts = _measured(trunk, kind, texts, written)
    config = artifact.fingerprint(data, label, pretraining, continuing)
    row = run_record(kind, {}, config=config, data=stages.corpus.name, seed=seed, texts=len(written), **facts)
    write_results(epath.Path(model_dir), [row], results_file)
    for text, answer in zip(begun[:_SHOWN], written, strict=False):
        print(f"{' '.join((*text.user, *text.candidate))}\n  -> {answer}")
    print(f"{len(written)} of kind {kind}: {', '.join(f'{name} {figure:.4g}' for name, figure in facts.items())}")


def _answer(trunk: Pretrained, continuing: Continuing, said: str) -> str:
    """The system's turn behind a user's."""
    if not said.strip():
        raise ValueError("expected SAID to be what a user says, got no word")
    return continuing.write(trunk, [Text((f"USER: {said}",), ("SYSTEM:",))])[0]


def _texts(trunk: Pretrained, kind: Kind, at_most: int) -> dict[int, Text]:
    """By their events, what the templates say of liked test events whose item has a category, evenly spread."""
    writer, events = trunk.writer, trunk.writer.events
    rows = [row for row in events.rows["test"].tolist() if events.label[row] == 1 and _categories(trunk, row)]
    whole = {rows[number]: _whole(trunk, kind, rows[number]) for number in select_rows(len(rows), at_most)}
    texts = {row: text for row, text in whole.items() if text is not None}
    if not texts:
        raise ValueError(f"no test event of corpus {writer.corpus.name!r} has a category to speak of: set M6_CATEGORY")
    return texts


def _measured(trunk: Pretrained, kind: Kind, texts: Mapping[int, Text], written: Sequence[str]) -> dict[str, float]:
    """ "matched" of explanations, "unique" and "perplexity", as `write` has them."""
    facts = {}
    if kind == "explanation":
        named = [_names(text, _categories(trunk, row)) for text, row in zip(written, texts, strict=True)]
        facts["matched"] = float(np.mean(named))
    facts["unique"] = len({*written}) / len(written)
    nats = -mean_log_likelihoods(trunk.network, trunk.written_by, trunk.tokens.rows([*texts.values()]))
    return {**facts, "perplexity": float(np.exp(nats.mean()))}


def _categories(trunk: Pretrained, event: int) -> list[str]:
    return trunk.writer.categories[trunk.writer.item_of(event)]


def _whole(trunk: Pretrained, kind: Kind, event: int) -> Text | None:
    """What the templates say of an event; None for nothing, or more than a row has room for."""
    text = trunk.writer.explanation(event) if kind == "explanation" else trunk.writer.conversation(event)
    return text if text is not None and trunk.tokens.fits(text) else None


def _begun(text: Text, kind: Kind) -> Text:
    """Without what is to be written."""
    if kind == "conversation":
        return Text(text.user, ("SYSTEM:",))
    *before, last = text.candidate
    return Text(text.user, (*before, last[: last.rindex("because it is") + len("because it is")]))


def _names(text: str, categories: Sequence[str]) -> bool:
    return any(category.lower() in text.lower() for category in categories)
