"""Retrieval: the next item's Semantic ID from history, user and context, weighted by reward (PLUM §5)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from etils import epath

from plum_jax import artifact, ragged
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from tasks.examples import drawn_by_reward, with_later_targets
from tasks.histories import HistoryRenderer, HistoryTemplates, Slider, Windows, evaluation_windows
from tasks.requests import Requests

if TYPE_CHECKING:
    import seqio

PROMPTS_KIND = "prompts"
PROMPTS_FILE = "prompts.parquet"


@dataclasses.dataclass(frozen=True)
class Reward:
    """r(user, watch) of PLUM's loss: an engagement column times a scale, or 1 for every watch.

    Attributes:
      column: of `corpus.events`, e.g. "rating"; None: reward 1.
      scale: factor, e.g. 0.2 for ratings up to 5.
      minimum: smaller rewards, and negative ones, are raised to this.
      missing: reward where the column is null; None: that is an error.
    """

    column: str | None = None
    scale: float = 1.0
    minimum: float = 0.0
    missing: float | None = None

    def __call__(self, corpus: Corpus, events: np.ndarray) -> np.ndarray:
        """float32 [R], rewards of rows `events` of `corpus.events`.

        Raises:
          ValueError: no such column, one that is not a number, or a missing value where `missing` is None.
        """
        if self.column is None:
            return np.full(len(events), max(self.scale, self.minimum), np.float32)
        columns = corpus.events.schema
        if self.column not in columns or not columns[self.column].is_numeric():
            valid = [name for name, dtype in columns.items() if dtype.is_numeric() and name not in ("user", "item")]
            raise ValueError(
                f"reward: corpus {corpus.name!r} has no number {self.column!r}; valid are {', '.join(valid)}"
            )
        values = corpus.events[self.column].gather(events).cast(pl.Float32).fill_nan(None)
        if values.null_count() and self.missing is None:
            row = events[values.is_null().arg_max()]
            raise ValueError(
                f"reward: {self.column!r} of event {row} is missing; set Reward.missing to give it a reward"
            )
        rewards = np.maximum((values * self.scale).to_numpy(), self.minimum)
        return np.nan_to_num(rewards, nan=self.missing or 0.0).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Fine-tuning sequences, and the prompts that evaluation continues: the same tokens up to the target.

    Loss weights are the reward on the target's SID tokens, `history_weight` times the reward on those of history items
    that no other window predicts, and 0 elsewhere. With a layout that puts nothing between history and target,
    each history item stands where a target would, so one sequence trains all its prefixes; PLUM: one example a target.

    Attributes:
      templates: how a window reads.
      history_length: events in the prompt, at most.
      stride: events from one window's end to the next one's; None: half of `history_length` with a history weight (each
        target then has at least that much history), else 1 (each event is a target once).
      minimum_history: events with fewer before them are no targets.
      windows_per_user: examples of a user, the newest; None: all. Keeps long histories from being most of the examples.
      history_weight: 0 is PLUM's.
      eos_weight: times the reward, on the EOS after the target.
      reward: of an event.
      reward_use: "weight" of the loss, or "sampling" as PLUM does: examples are drawn by the reward of their target,
        and all that are drawn weigh the same. It takes one example a target (`history_weight` 0).
      targets: events after a history that are its target, an example each; 1: the next alone.
      seed: of the draws by reward.
      requests: what stands in words between history and target in some examples; None: nothing.
      name: of the task.
    """

    templates: HistoryTemplates = HistoryTemplates("{user} <history> {history} {target}")
    history_length: int = 20
    stride: int | None = None
    minimum_history: int = 1
    windows_per_user: int | None = None
    history_weight: float = 1.0
    eos_weight: float = 0.0
    reward: Reward = Reward()
    reward_use: str = "weight"
    targets: int = 1
    seed: int = 0
    requests: Requests | None = None
    name: str = "retrieval"

    def __post_init__(self) -> None:
        if self.reward_use not in ("weight", "sampling"):
            raise ValueError(f"expected a reward_use of 'weight' or 'sampling', got {self.reward_use!r}")
        if self.reward_use == "sampling" and self.history_weight:
            raise ValueError(
                "reward_use 'sampling' draws examples by their one target, but history items are targets too: set "
                f"history_weight to 0, got {self.history_weight}"
            )
        if self.targets < 1:
            raise ValueError(f"expected 1 or more targets after a history, got {self.targets}")

    def task(self, split: Split, table: SidTable, vocabulary: SidVocabulary) -> seqio.Task:
        """The training task, over training events only.

        Raises:
          LeakError: one of them is held out.
          templates.TemplateError: an unknown field or control token.
          ValueError: see `Reward`.
        """
        from tasks import seqio_task  # TensorFlow's import takes seconds that only materialising should pay

        renderer = self._renderer(split, table, vocabulary)
        # Rewards first: a reward that is missing should fail before anything is written.
        reward = np.zeros(split.corpus.num_events, np.float32)
        training = split.training_events()["event"].to_numpy()
        reward[training] = self.reward(split.corpus, training)

        def windows_of() -> Iterator[Windows]:
            return with_later_targets(self._slider().windows(split, self.name), split, self.targets)

        examples, weight = windows_of, reward
        if self.reward_use == "sampling":
            examples, weight = functools.partial(drawn_by_reward, windows_of, reward, self.seed), np.ones_like(reward)

        item_of = split.corpus.events["item"].to_numpy()

        def sequences() -> Iterator[tuple[ragged.Ragged, ragged.Ragged]]:
            random = np.random.default_rng(self.requests.seed if self.requests is not None else 0)
            tables = self.requests.values(split.corpus) if self.requests is not None else []
            for windows in examples():
                history_weights = self.history_weight * weight[windows.history_events] * windows.learnt
                prompt, prompt_weights = renderer.prompt(windows, history_weights)
                target = renderer.target(windows)
                target_weights = renderer.sid_weights(target, weight[windows.target_event])
                eos = ragged.repeated([vocabulary.eos_id], len(windows))
                eos_weights = ragged.Ragged(self.eos_weight * weight[windows.target_event], eos.lengths)
                parts = [prompt, target, eos], [prompt_weights, target_weights, eos_weights]
                if self.requests is not None:
                    items, last = item_of[windows.target_event], windows.last_events()
                    previous = np.where(last >= 0, item_of[last], -1)
                    asked = self.requests.tokens(tables, items, previous, vocabulary, random)
                    parts[0].insert(1, asked)
                    parts[1].insert(1, ragged.Ragged(np.zeros(len(asked.values), np.float32), asked.lengths))
                yield ragged.join(parts[0]), ragged.join(parts[1])

        one_a_window = self.targets == 1 and self.reward_use == "weight"  # and they are counted without being made
        count = self._slider().count(split, self.name) if one_a_window else sum(map(len, examples()))
        return seqio_task.sequence_task(self.name, sequences, vocabulary, count)

    def prompts(self, split: Split, fold: str, table: SidTable, vocabulary: SidVocabulary) -> pl.DataFrame:
        """Evaluation prompts of a fold, made by the code that makes training prompts.

        Returns:
          One row a user: "user" Int32, "prompt" List(Int32) (the tokens before the target), "target_item" Int32,
          "seen_items" List(Int32) (all items of the history, also those before the prompt's; ascending, each once).
        """
        evaluation = split.evaluation(fold)
        prompts = self.prompts_of(evaluation_windows(evaluation, self.history_length), split, table, vocabulary)
        seen = ragged.Ragged(evaluation.history_items, np.diff(evaluation.history_offsets))
        return pl.DataFrame(
            {
                "user": pl.Series(evaluation.user, dtype=pl.Int32),
                "prompt": _list_column(prompts),
                "target_item": pl.Series(evaluation.target_item, dtype=pl.Int32),
                "seen_items": _list_column(seen).list.unique().list.sort(),
            }
        )

    def prompts_of(
        self, some: Iterable[Windows], split: Split, table: SidTable, vocabulary: SidVocabulary
    ) -> ragged.Ragged:
        """Tokens before the target of each window of all lots, without a request, int32 rows in their order."""
        renderer = self._renderer(split, table, vocabulary)
        parts = [renderer.prompt(windows, np.zeros(len(windows.history_events)))[0] for windows in some]
        values = np.concatenate([part.values for part in parts]) if parts else np.zeros(0, np.int32)
        lengths = np.concatenate([part.lengths for part in parts]) if parts else np.zeros(0, np.int64)
        return ragged.Ragged(values, lengths)

    def watch_next_prompts(self, split: Split, table: SidTable, vocabulary: SidVocabulary) -> pl.DataFrame:
        """Prompts that ask what is watched after an item, by nobody in particular (YouTube's offline recipe).

        The prompt of a user who has watched this one item and told nothing else: `HistoryRenderer.prompt_after`.

        Returns:
          One row an item, in order: "item" Int32, "prompt" List(Int32).
        """
        items = np.arange(split.corpus.num_items)
        rendered = self._renderer(split, table, vocabulary).prompt_after(items)
        return pl.DataFrame({"item": pl.Series(items, dtype=pl.Int32), "prompt": _list_column(rendered)})

    def prompt_recipe(self, split: Split, table: SidTable, vocabulary: SidVocabulary) -> dict[str, Any] | None:
        """How a server makes a prompt of watched items without these templates; None where it takes more than that.

        "before" and "after" are the tokens around the newest "history_length" items' SID tokens.
        """
        frame = self._renderer(split, table, vocabulary).frame()
        if frame is None:
            return None
        return {"before": frame[0], "after": frame[1], "history_length": self.history_length}

    def _renderer(self, split: Split, table: SidTable, vocabulary: SidVocabulary) -> HistoryRenderer:
        return HistoryRenderer(self.templates, split, table, vocabulary, self.name)

    def _slider(self) -> Slider:
        every_prefix = self.history_weight > 0
        default_stride = max(1, self.history_length // 2) if every_prefix else 1
        return Slider(
            self.history_length,
            self.stride or default_stride,
            self.minimum_history,
            every_prefix,
            self.windows_per_user,
        )


def write_prompts(
    directory: epath.PathLike, retrieval: Retrieval, split: Split, fold: str, table: SidTable, vocabulary: SidVocabulary
) -> None:
    """Writes the prompts of a fold as an artefact of kind "prompts", unless it is already there."""
    inputs = {"split": split.fingerprint, "sid_table": table.fingerprint, "vocabulary": vocabulary.fingerprint}
    config: dict[str, Any] = {"fold": fold, "retrieval": retrieval}
    if artifact.is_current(directory, kind=PROMPTS_KIND, config=config, inputs=inputs):
        return
    prompts = retrieval.prompts(split, fold, table, vocabulary)

    def write(aside: epath.Path) -> None:
        with (aside / PROMPTS_FILE).open("wb") as file:
            prompts.write_parquet(file)

    artifact.write_artifact(
        directory,
        kind=PROMPTS_KIND,
        fingerprint=_fingerprint(prompts),
        config=config,
        inputs=inputs,
        write=write,
    )


def read_prompts(directory: epath.PathLike) -> pl.DataFrame:
    """What `write_prompts` wrote.

    Raises:
      ArtifactError: nothing complete there.
    """
    artifact.read_manifest(directory, PROMPTS_KIND)
    with (epath.Path(directory) / PROMPTS_FILE).open("rb") as file:
        return pl.read_parquet(file)


def _fingerprint(prompts: pl.DataFrame) -> str:
    lists = ("prompt", "seen_items")
    parts = [prompts[name].list.len().to_numpy() for name in lists]
    parts += [prompts[name].explode(empty_as_null=False, keep_nulls=False).to_numpy() for name in lists]
    return artifact.fingerprint(*parts, prompts["user"].to_numpy(), prompts["target_item"].to_numpy())


def _list_column(rows: ragged.Ragged) -> pl.Series:
    offsets = pa.array(np.concatenate([[0], np.cumsum(rows.lengths)]).astype(np.int64))
    column = pl.from_arrow(pa.LargeListArray.from_arrays(offsets, pa.array(rows.values.astype(np.int32))))
    assert isinstance(column, pl.Series)
    return column
