"""The vocabulary of a run: text pieces trained on its items, or given; field and control tokens; or a run's before."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.field_tokens import FieldTokens
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import CONTROL_TOKENS, KIND, SidVocabulary
from plum_jax.systems.generative.continued import Continued
from plum_jax.text.files import TextPieces, read_text, text_fingerprint
from plum_jax.text.sentence_piece import train_sentencepiece
from tasks.cpt import CptTasks
from tasks.fields import FieldTokenizer


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
class VocabularyStage:
    """What a vocabulary is made from; `made(directory, text)` makes it where it is not there.

    Attributes:
      config: of the run.
      tasks: whose texts pieces are trained on.
      continued: the run that this one goes on from, whose vocabulary it has.
      split, table: of the run.
    """

    config: VocabularyConfig
    tasks: CptTasks
    continued: Continued | None
    split: Split
    table: SidTable

    def made(self, run: epath.Path, text: TextPieces | None) -> SidVocabulary:
        """The vocabulary in `run`/vocabulary.

        Args:
          run: directory.
          text: pieces that are given; None: they are trained, unless the run goes on from another.

        Raises:
          SidTableMismatch: the table changes IDs that the run before was trained with.
        """
        directory = run / "vocabulary"
        made_from, inputs = self._made_from(text)
        if artifact.is_current(directory, kind=KIND, config=made_from, inputs=inputs):
            return SidVocabulary.load(directory)
        if self.continued is not None:
            self.continued.require(self.table)
            vocabulary = self.continued.vocabulary
        else:
            if text is None:
                model = run / "sentencepiece.model"
                train_sentencepiece(self.tasks.texts(self.split.corpus), self.config.num_pieces, model)
                text = read_text(model)
            fields = (*self.config.field_tokens, *self.config.chosen_fields.tokens(self.split))
            vocabulary = SidVocabulary(text, self.table.codebook_sizes, self.config.control_tokens, fields)
        vocabulary.save(directory, config=made_from, inputs=inputs)
        return vocabulary

    def _made_from(self, text: TextPieces | None) -> tuple[dict[str, Any], dict[str, str]]:
        """Settings and inputs that decide it; further tasks are named where there are any."""
        inputs = {"split": self.split.fingerprint, "codebook_sizes": str(self.table.codebook_sizes)}
        if self.continued is not None:
            return {"continued": self.continued}, inputs | self.continued.inputs
        made_from: dict[str, Any] = {"vocabulary": self.config, "sid_text": self.tasks.sid_text}
        if text is not None:
            return made_from, inputs | {"text": text_fingerprint(text)}
        if self.tasks.further:
            return made_from | {"further_tasks": tuple(self.tasks.further)}, inputs | self.tasks.inputs
        return made_from, inputs
