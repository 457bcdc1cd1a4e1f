"""Generative retrieval from a SidTable to a trained decoder: every stage leaves an artefact, and is skipped if done."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
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
from plum_jax.retrieval.recommend import Recommender
from plum_jax.semantic_ids.field_tokens import FieldTokens
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import CONTROL_TOKENS, SidVocabulary
from plum_jax.semantic_ids.vocabulary import KIND as VOCABULARY_KIND
from plum_jax.stages import Data, Stages
from plum_jax.systems.generative.evaluator import RetrievalEvaluator
from plum_jax.systems.generative.initialisation import Initialisation, item_text_sources, pretrained_text
from plum_jax.systems.generative.phase import Phase, train_phase
from plum_jax.text.files import TextPieces, read_text, text_fingerprint
from plum_jax.text.sentence_piece import train_sentencepiece
from tasks import materialize, mixtures, retrieval
from tasks.fields import FieldTokenizer
from tasks.retrieval import Retrieval
from tasks.sid_text import SidText
from tasks.watch_history import WatchHistory

if TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class VocabularyConfig:
    """The text side of the vocabulary, and the tokens for numbers and categories.

    Attributes:
      num_pieces: SentencePiece pieces to train on the items' text; unused when a model is given.
      text_model: path of a SentencePiece `.model`, of a `tokenizer.json`, or of a directory with one, to use instead
        (a pre-trained model brings its own).
      field_tokens: `Buckets`, `Categories` and `Hashed` of one's own making.
      chosen_fields: fields whose buckets and categories are chosen from the training events.
      control_tokens: names that templates may write.
    """

    num_pieces: int = 2000
    text_model: str | None = None
    field_tokens: tuple[FieldTokens, ...] = ()
    chosen_fields: FieldTokenizer = FieldTokenizer()
    control_tokens: tuple[str, ...] = CONTROL_TOKENS


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How recommendations are searched and judged.

    Attributes:
      ks: cut-offs of recall, NDCG and coverage.
      num_beams: width of the search.
      batch_size: users of one device call; small is fast on CPU, use hundreds on a TPU.
      users_while_training: validation users for the curves and for choosing the best checkpoint.
      free_search_users: test users of the search without the trie, for the share of valid IDs.
    """

    ks: tuple[int, ...] = (5, 10)
    num_beams: int = 32
    batch_size: int = 16
    users_while_training: int = 1000
    free_search_users: int = 1000


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """What to read and how to learn from it; `stages(model_dir)` does it.

    Attributes:
      data: what all systems share, up to the SidTable.
      vocabulary: text pieces, field and control tokens.
      watch_history, sid_text, behaviour_rate: the tasks of continued pre-training, and the share of the first.
      retrieval_task: the task of fine-tuning, whose prompts evaluation continues.
      decoder, cpt, retrieval: the model and its two training phases.
      initialisation: what the first phase, whichever it is, begins with; a pre-trained model takes the decoder's place.
      evaluation: the search and its metrics.
    """

    data: Data
    vocabulary: VocabularyConfig = VocabularyConfig()
    watch_history: WatchHistory = WatchHistory()
    sid_text: SidText = SidText()
    behaviour_rate: float = 0.5
    retrieval_task: Retrieval = Retrieval()
    decoder: DecoderConfig = DecoderConfig()
    initialisation: Initialisation = Initialisation()
    cpt: Phase = Phase()
    retrieval: Phase = Phase()
    evaluation: EvaluationConfig = EvaluationConfig()

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
        directory, config = self.directory / "vocabulary", self.config.vocabulary
        text = self._given_text()
        made_from = {
            "vocabulary": config,
            "sid_text": self.config.sid_text,
        }  # whose texts are what pieces are trained on
        inputs = {"split": self.split.fingerprint, "codebook_sizes": str(self.table.codebook_sizes)}
        if text is not None:
            inputs["text"] = text_fingerprint(text)
        if artifact.is_current(directory, kind=VOCABULARY_KIND, config=made_from, inputs=inputs):
            return SidVocabulary.load(directory)
        if text is None:
            model = self.directory / "sentencepiece.model"
            train_sentencepiece(self.config.sid_text.texts(self.corpus), config.num_pieces, model)
            text = read_text(model)
        fields = (*config.field_tokens, *config.chosen_fields.tokens(self.split))
        vocabulary = SidVocabulary(text, self.table.codebook_sizes, config.control_tokens, fields)
        vocabulary.save(directory, config=made_from, inputs=inputs)
        return vocabulary

    def _given_text(self) -> TextPieces | None:
        """The text side that is not to be trained."""
        text_model = self.config.vocabulary.text_model
        if self.pretrained is not None:
            return pretrained_text(self.pretrained, text_model)
        return None if text_model is None else read_text(text_model)

    @functools.cached_property
    def cpt_records(self) -> epath.Path:
        """Token records of continued pre-training: watch histories and SID-text, by rates."""
        config = self.config

        def mixture() -> seqio.Mixture:
            behaviour = [config.watch_history.task(self.split, self.table, self.vocabulary)]
            metadata = config.sid_text.tasks(self.corpus, self.table, self.vocabulary, self.split.learnt_items)
            return mixtures.cpt_mixture(behaviour, metadata, config.behaviour_rate)

        tasks = (config.watch_history, config.sid_text, config.behaviour_rate)
        return self._records("cpt", mixture, tasks, config.cpt.length)

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
        self, name: str, make: Callable[[], seqio.Mixture | seqio.Task], config: Any, length: int
    ) -> epath.Path:
        directory = self.directory / "records" / name
        inputs = {
            "split": self.split.fingerprint,
            "sid_table": self.table.fingerprint,
            "vocabulary": self.vocabulary.fingerprint,
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
        """The pre-trained model's parameters with rows for the new tokens; None: random ones."""
        start, model = self.config.initialisation, self.pretrained
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
        if model is None or not start.weights:
            return "none"
        inputs = (self.vocabulary.fingerprint, self.table.fingerprint, start.new_rows, start.seed)
        return artifact.fingerprint(artifact.tree_fingerprint(model.params), *inputs)

    @functools.cached_property
    def recommender(self) -> Recommender:
        evaluation = self.config.evaluation
        return Recommender(
            self.decoder,
            self.vocabulary,
            self.table,
            num_beams=evaluation.num_beams,
            batch_size=evaluation.batch_size,
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

    def _train(self, name: str, phase: Phase, records: epath.Path, warm_start: Any, fingerprint: str) -> Any:
        evaluators = {}
        if phase.training.select_by or phase.training.evaluation_period:
            evaluators["validation"] = dataclasses.replace(
                self.evaluator("validation"),
                max_users=self.config.evaluation.users_while_training,
                free_search_users=0,
                # Curves do without deciles and diversity: many figures, of few users each.
                catalogue=Catalogue(self.corpus.num_items, self.split.item_popularity == 0, codes=self.table.codes),
            )
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
            description=name.replace("_", " "),
        )
