"""Reasons of a recommendation: what it loses without each item of the history, and what the model itself says of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from plum_jax import ragged
from plum_jax.corpus.splits import EvaluationSet
from plum_jax.language.generation import Generation, LanguageModel
from plum_jax.language.prompts import Prompt
from plum_jax.retrieval.target_loss import item_nats
from plum_jax.systems.generative.pipeline import GenerativeStages
from tasks.explanations import Explanations, ExplanationWriter
from tasks.histories import Windows, evaluation_windows
from tasks.item_attributes import ItemAttributeError

SAID_TOKENS = 16  # of what is shared, in words


@dataclasses.dataclass(frozen=True)
class Said:
    """A model's own sentence.

    Attributes:
      place: of the named event in the history.
      words: what is said to be shared.
    """

    place: int
    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class Reasons:
    """Of the recommendations of one decoder.

    Attributes:
      stages: of its run.
      params: that recommend.
      cpt: whether it has continued pre-training, whose parameters write.
    """

    stages: GenerativeStages
    params: Any
    cpt: bool = True

    @property
    def task(self) -> Explanations | None:
        """What its continued pre-training has learnt of explanations; None: nothing."""
        found = [task for task in self.stages.config.further_tasks if isinstance(task, Explanations)]
        return found[0] if found and self.cpt else None

    @functools.cached_property
    def writer(self) -> ExplanationWriter:
        """Of the task, or of the corpus's item features (its texts, where it has none) where there is no task.

        Raises:
          ItemAttributeError: items without a feature and without a text.
        """
        stages, task = self.stages, self.task
        if task is None:
            features = tuple(stages.corpus.item_features or stages.corpus.text_fields)
            if not features:
                raise ItemAttributeError(
                    f"the items of corpus {stages.corpus.name!r} have neither features nor texts that could be shared: "
                    "set item_features of its source"
                )
            task = Explanations(fields=features, history_length=stages.config.retrieval_task.history_length)
        return ExplanationWriter(task, stages.split, stages.table, stages.vocabulary)

    def windows(self, users: EvaluationSet) -> Iterator[Windows]:
        """The part of each user's history that the prompt has, thousands of users at a time."""
        return evaluation_windows(users, self.stages.config.retrieval_task.history_length)

    def log_probs(self, windows: Windows, items: np.ndarray) -> np.ndarray:
        """float64 [R], nats: of the Semantic ID of an item (int [R]) after each window's prompt."""
        stages = self.stages
        task = stages.config.retrieval_task
        prompts = task.prompts_of([windows], stages.split, stages.table, stages.vocabulary)
        return -item_nats(stages.recommender, self.params, prompts, items).astype(np.float64).sum(axis=1)

    def drops(self, windows: Windows, items: np.ndarray) -> np.ndarray:
        """float64 [sum of lengths], nats: how much less likely an item is where one event of the history is left out.

        Args:
          windows: R histories.
          items: int [R].

        Returns:
          A value for each event of the histories, in their order; below 0: the item is likelier without it.
        """
        row = np.repeat(np.arange(len(windows)), windows.lengths)
        return self.log_probs(windows, items)[row] - self.log_probs(without_each(windows), items[row])

    def said(self, windows: Windows, items: np.ndarray) -> list[Said]:
        """What the model says of each item (int [R]): which event of the history it names first, and the words behind.

        The named event is the one whose item's Semantic ID is the likeliest behind "because of", of equals the newest;
        the words are greedy. None of the windows may be empty.

        Raises:
          ItemAttributeError: its continued pre-training had no explanations.
        """
        if self.task is None:
            raise ItemAttributeError(
                "this run was not trained to explain: train with gin/tasks/explanations.gin, and ask a system with CPT"
            )
        stages, writer = self.stages, self.writer
        prompts, history = writer.prompts(windows, items), writer.items(windows.history_events)
        row = np.repeat(np.arange(len(windows)), windows.lengths)
        of_rows = prompts.rows()
        asked = ragged.from_rows([of_rows[of] for of in row.tolist()])
        nats = item_nats(stages.recommender, stages.cpt_params, asked, history).sum(axis=1)
        places = [len(some) - 1 - int(some[::-1].argmin()) for some in np.split(nats, np.cumsum(windows.lengths)[:-1])]
        named = history[np.cumsum(windows.lengths) - windows.lengths + places]
        sids = stages.vocabulary.encode_sid(stages.table.codes[named])
        model = LanguageModel(stages.decoder, stages.cpt_params, stages.vocabulary, stages.table)
        begun = [
            Prompt("because of", (*tokens.tolist(), *sid.tolist(), *writer.behind_reason))
            for tokens, sid in zip(of_rows, sids, strict=True)
        ]
        found = model.generate(begun, Generation(max_tokens=SAID_TOKENS, words_only=True), "explaining")
        return [Said(place, one.text.strip()) for place, (one,) in zip(places, found, strict=True)]


def without_each(windows: Windows) -> Windows:
    """Every window as often as it has events, each time without another of them, in the order of the events."""
    left_out = ragged.Ragged(windows.history_events, windows.lengths).places
    every = windows.take(np.repeat(np.arange(len(windows)), windows.lengths))
    places = ragged.Ragged(every.history_events, every.lengths).places
    kept = places != np.repeat(left_out, every.lengths)
    return dataclasses.replace(
        every,
        history_events=every.history_events[kept],
        lengths=every.lengths - 1,
        learnt=every.learnt[kept],
    )
