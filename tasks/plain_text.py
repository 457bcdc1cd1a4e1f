"""Plain text by choice: it keeps a language model a language model, or teaches a small one the words of a domain."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from etils import epath

from plum_jax import ragged
from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.splits import Split
from plum_jax.semantic_ids.table import SidTable
from plum_jax.semantic_ids.vocabulary import SidVocabulary

if TYPE_CHECKING:
    import seqio

DOCUMENTS_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class PlainText:
    """Next-token prediction on documents, one a line of UTF-8 files; loss weight 1 everywhere.

    A document is its pieces and EOS. One that is longer than a training row is cut into rows; shorter ones share rows
    by the feed's packing, and do not see each other. Blank lines are passed over.

    Attributes:
      files: paths, read in this order.
      name: of the task.
    """

    kind: ClassVar[str] = "text"
    files: tuple[str, ...] = ()
    name: str = "plain_text"

    def inputs(self) -> dict[str, str]:
        """Hashes of the files, so that a changed one makes the records again."""
        return {
            f"{self.name} {file}": hashlib.sha256(_existing(file, self.name).read_bytes()).hexdigest()[:16]
            for file in self.files
        }

    def texts(self, corpus: Corpus) -> list[str]:
        """The documents: pieces of text are trained on them too."""
        del corpus
        return list(self._documents())

    def tasks(self, split: Split, table: SidTable, vocabulary: SidVocabulary, length: int) -> list[seqio.Task]:
        """The task; `length` is that of a training row.

        Raises:
          CorpusError: a file that is not there, or a line that is not UTF-8.
          ValueError: no document.
        """
        del split, table
        from tasks import seqio_task  # TensorFlow's import takes seconds that only materialising should pay

        def rows() -> Iterator[np.ndarray]:
            for document in self._documents():
                tokens = np.array([*vocabulary.encode(document), vocabulary.eos_id], np.int32)
                yield from (tokens[start : start + length] for start in range(0, len(tokens), length))

        def sequences() -> Iterator[tuple[ragged.Ragged, ragged.Ragged]]:
            waiting: list[np.ndarray] = []
            for row in rows():
                waiting.append(row)
                if len(waiting) == DOCUMENTS_AT_ONCE:
                    yield _weighed(waiting)
                    waiting = []
            if waiting:
                yield _weighed(waiting)

        return [seqio_task.sequence_task(self.name, sequences, vocabulary)]

    def _documents(self) -> Iterator[str]:
        for file in self.files:
            with _existing(file, self.name).open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    try:
                        text = line.decode("utf-8").strip()
                    except UnicodeDecodeError as error:
                        raise CorpusError(f"expected UTF-8, got {error}", file=file, row=number) from None
                    if text:
                        yield text


def _weighed(rows: list[np.ndarray]) -> tuple[ragged.Ragged, ragged.Ragged]:
    tokens = ragged.from_rows(rows)
    return tokens, ragged.Ragged(np.ones(len(tokens.values), np.float32), tokens.lengths)


def _existing(file: str, name: str) -> epath.Path:
    path = epath.Path(file)
    if not path.exists():
        raise CorpusError(f"there is no such file; task {name} reads a document a line of it", file=file)
    return path
