"""Generative retrieval from a SidTable to a trained decoder: every stage leaves an artefact, and is skipped if done."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl
from etils import epath

from plum_jax import artifact
from plum_jax.corpus import splits
from plum_jax.corpus.schema import Corpus
from plum_jax.evaluation.judge import catalogue_of
from plum_jax.evaluation.metrics import Catalogue
from plum_jax.interop.pretrained import Pretrained
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.retrieval.new_items import NewItems
from plum_jax.retrieval.recommend import Recommender
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary
from plum_jax.stages import Data, Stages
from plum_jax.systems.generative.continued import Continued
from plum_jax.systems.generative.evaluator import RetrievalEvaluator
from plum_jax.systems.generative.initialisation import Initialisation, item_text_sources, pretrained_text
from plum_jax.systems.generative.language import LanguageEvaluation, LanguageJudge
from plum_jax.systems.generative.phase import Phase, train_phase
from plum_jax.systems.generative.vocabulary_stage import VocabularyConfig, VocabularyStage
from plum_jax.text.files import TextPieces, read_text
from plum_jax.training.loop import Evaluator
from tasks import materialize, retrieval
from tasks.cpt import CptTasks, FurtherTasks
from tasks.retrieval import Retrieval
from tasks.sid_text import SidText
from tasks.watch_history import WatchHistory

if TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How recommendations are searched and judged.

    Attributes:
      ks: cut-offs of recall, NDCG and coverage.
      num_beams: width of the search.
      batch_size: users of one device call; small is fast on CPU, use hundreds on a TPU.
      users_while_training: validation users for the curves and for choosing the best checkpoint.
      free_search_users: test users of the search without the trie, for the share of valid IDs.
      new_item_share: of each list's places, for items without a training event (`NewItems`); 0: none.
    """

    ks: tuple[int, ...] = (5, 10)
    num_beams: int = 32
    batch_size: int = 16
    users_while_training: int = 1000
    free_search_users: int = 1000
    new_item_share: float = 0.0


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """What to read and how to learn from it; `stages(model_dir)` does it.

    Attributes:
      data: what all systems share, up to the SidTable.
      vocabulary: text pieces, field and control tokens.
      watch_history, sid_text, behaviour_rate, further_tasks, text_rate: continued pre-training (`CptTasks`).
      retrieval_task: the task of fine-tuning, whose prompts evaluation continues.
      decoder, cpt, retrieval: the model and its two training phases.
      initialisation: what the first phase, whichever it is, begins with; a pre-trained model takes the decoder's place.
      evaluation: the search and its metrics.
      language: what is judged of the language model while it trains; None: nothing.
      continued: the run that this one goes on from, with its vocabulary; None: none.
    """

    data: Data
    vocabulary: VocabularyConfig = VocabularyConfig()
    watch_history: WatchHistory = WatchHistory()
    sid_text: SidText = SidText()
    behaviour_rate: float = 0.5
    further_tasks: Sequence[FurtherTasks] = ()
    text_rate: float = 0.1
    retrieval_task: Retrieval = Retrieval()
    decoder: DecoderConfig = DecoderConfig()
    initialisation: Initialisation = Initialisation()
    cpt: Phase = Phase()
    retrieval: Phase = Phase()
    evaluation: EvaluationConfig = EvaluationConfig()
    language: LanguageEvaluation | None = None
    continued: Continued | None = None

    def __post_init__(self) -> None:
        if self.continued is not None and self.initialisation.pretrained is not None:
            raise ValueError(
                "a run goes on from another (BASE_RUN) or begins with a language model (PRETRAINED), not both"
            )

    @property
    def cpt_tasks(self) -> CptTasks:
        """The tasks of continued pre-training."""
        return CptTasks(self.watch_history, self.sid_text, self.further_tasks, self.behaviour_rate, self.text_rate)

    def stages(self, model_dir: epath.PathLike) -> GenerativeStages:
        """The stages of this pipeline in one directory."""
        return GenerativeStages(self, epath.Path(model_dir), self.data.stages(model_dir))


@dataclasses.dataclass(frozen=True)
class GenerativeStages:
    """The artefacts of one run from a SidTable on. A property makes what is not there yet, and whatever it needs.

    Attributes:
      config: what to make.
      directory: of the run.
      shared: corpus, split, features and SidTable, of this run or of several.
    """

    config: Pipeline
    directory: epath.Path
    shared: Stages

    @property
    def corpus(self) -> Corpus:
        return self.shared.corpus

    @property
    def split(self) -> splits.Split:
        return self.shared.split

    @property
    def table(self) -> SidTable:
        return self.shared.table

    @functools.cached_property
    def pretrained(self) -> Pretrained | None:
        """The language model to begin with."""
        return self.config.initialisation.read(self.config.decoder)

    @functools.cached_property
    def vocabulary(self) -> SidVocabulary:
        config = self.config
        stage = VocabularyStage(config.vocabulary, config.cpt_tasks, config.continued, self.split, self.table)
        return stage.made(self.directory, None if config.continued is not None else self._given_text())

    def _given_text(self) -> TextPieces | None:
        """The text side that is not to be trained."""
        text_model = self.config.vocabulary.text_model
        if self.pretrained is not None:
            return pretrained_text(self.pretrained, text_model)
        return None if text_model is None else read_text(text_model)

    @functools.cached_property
    def cpt_records(self) -> epath.Path:
        """Token records of continued pre-training, by rates."""
        tasks, length = self.config.cpt_tasks, self.config.cpt.length
        make = functools.partial(tasks.mixture, self.split, self.table, self.vocabulary, length)
        return self._records("cpt", make, tasks.config, length, tasks.inputs)

    @functools.cached_property
    def retrieval_records(self) -> epath.Path:
        """Token records of retrieval fine-tuning."""
        task = self.config.retrieval_task
        return self._records(
            "retrieval",
            lambda: task.task(self.split, self.table, self.vocabulary),
            task,
            self.config.retrieval.length,
        )

    def _records(
        self,
        name: str,
        make: Callable[[], seqio.Mixture | seqio.Task],
        config: Any,
        length: int,
        read: Mapping[str, str] | None = None,
    ) -> epath.Path:
        directory = self.directory / "records" / name
        inputs = {
            "split": self.split.fingerprint,
            "sid_table": self.table.fingerprint,
            "vocabulary": self.vocabulary.fingerprint,
            **(read or {}),
        }
        materialize.materialize(make, directory, config=config, inputs=inputs, max_length=length)
        return directory

    def prompts(self, fold: str) -> pl.DataFrame:
        """One row for each user of a fold: "user", "prompt" (tokens before the target), "target_item", "seen_items"."""
        directory = self.directory / "prompts" / fold
        retrieval.write_prompts(directory, self.config.retrieval_task, self.split, fold, self.table, self.vocabulary)
        return retrieval.read_prompts(directory)

    @functools.cached_property
    def decoder(self) -> Decoder:
        config = self.config.decoder if self.pretrained is None else self.pretrained.config
        return Decoder(config, self.vocabulary.vocab_size)

    @functools.cached_property
    def first_params(self) -> Any:
        """Those of the run that this one goes on from, or the pre-trained model's with rows for the new tokens; None:
        random ones.
        """
        start, model = self.config.initialisation, self.pretrained
        if self.config.continued is not None:
            return self.config.continued.params(self.decoder)
        if model is None or not start.weights:
            return None
        sources = None
        if start.new_rows == "text":
            sources = item_text_sources(self.corpus, self.table, self.vocabulary, self.split.learnt_items)
        return start.grown(model, self.vocabulary, sources)

    @functools.cached_property
    def first_fingerprint(self) -> str:
        """Of what `first_params` are made from; their own last bits are the machine's, and a run may move."""
        start, model = self.config.initialisation, self.pretrained
        if self.config.continued is not None:
            return self.config.continued.fingerprint
        if model is None or not start.weights:
            return "none"
        inputs = (self.vocabulary.fingerprint, self.table.fingerprint, start.new_rows, start.seed)
        return artifact.fingerprint(artifact.tree_fingerprint(model.params), *inputs)

    @functools.cached_property
    def recommender(self) -> Recommender:
        evaluation = self.config.evaluation
        return Recommender(
            self.decoder, self.vocabulary, self.table, num_beams=evaluation.num_beams, batch_size=evaluation.batch_size
        )

    def evaluator(self, fold: str) -> RetrievalEvaluator:
        """The evaluator of all users of a fold."""
        evaluation = self.config.evaluation
        return RetrievalEvaluator(
            self.recommender,
            self.prompts(fold),
            ks=evaluation.ks,
            free_search_users=evaluation.free_search_users,
            catalogue=catalogue_of(self.shared),
            new_items=NewItems.of(self.split.item_popularity, evaluation.new_item_share),
        )

    @functools.cached_property
    def cpt_params(self) -> Any:
        """Parameters after continued pre-training."""
        return self._train("cpt", self.config.cpt, self.cpt_records, self.first_params, self.first_fingerprint)

    @functools.cached_property
    def params(self) -> Any:
        """Parameters after CPT and retrieval fine-tuning: the model."""
        fingerprint = artifact.tree_fingerprint(self.cpt_params)
        return self._train("retrieval", self.config.retrieval, self.retrieval_records, self.cpt_params, fingerprint)

    @functools.cached_property
    def params_without_cpt(self) -> Any:
        """Parameters after retrieval fine-tuning from where CPT began: what CPT is compared with."""
        start = (self.first_params, self.first_fingerprint)
        return self._train("retrieval_without_cpt", self.config.retrieval, self.retrieval_records, *start)

    def language_judge(self, name: str) -> LanguageJudge | None:
        """What judges the language model in the training `name`; None where nothing is asked."""
        if self.config.language is None:
            return None
        parts = (self.decoder, self.vocabulary, self.table, self.split, self.config.sid_text.chosen(self.corpus))
        return self.config.language.judge(*parts, self.cpt_records, self.config.cpt, self.directory / "train" / name)

    def _train(self, name: str, phase: Phase, records: epath.Path, warm_start: Any, fingerprint: str) -> Any:
        evaluators: dict[str, Evaluator] = {}
        if phase.training.select_by or phase.training.evaluation_period:
            evaluators["validation"] = dataclasses.replace(
                self.evaluator("validation"),
                max_users=self.config.evaluation.users_while_training,
                free_search_users=0,
                new_items=None,
                # Curves do without deciles and diversity: many figures, of few users each.
                catalogue=Catalogue(self.corpus.num_items, self.split.item_popularity == 0, codes=self.table.codes),
            )
        if (judge := self.language_judge(name)) is not None:
            evaluators["language"] = judge
        return train_phase(
            phase,
            decoder=self.decoder,
            records=records,
            start_token=self.vocabulary.start_id,
            made_from={"sid_table": self.table.fingerprint, "vocabulary": self.vocabulary.fingerprint},
            directory=self.directory / "train" / name,
            warm_start=warm_start,
            warm_start_fingerprint=fingerprint,
            evaluators=evaluators,
            sampler=None if judge is None else judge.sample,
            description=name.replace("_", " "),
        )
