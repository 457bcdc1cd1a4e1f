"""A language model that reads a query, alone or with behaviour behind it, and says its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from etils import epath

from plum_jax import artifact
from plum_jax.encoders.language_model import LanguageModel, LanguageModelStart
from plum_jax.encoders.network import Pooling
from plum_jax.query_understanding.behaviour import Behaviour
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.networks import LanguageNetwork
from plum_jax.query_understanding.training import Columns, NetworkClassifier, Schooling, of_conversions, trained


@dataclasses.dataclass(frozen=True)
class LanguageClassifier:
    """A language model with a head of classes, trained on with it.

    A head, and no generated path: every class has its share, which a threshold and the student need, for one reading.

    Attributes:
      model: what it begins with.
      behaviour: what the prompt says of similar queries; None: the query alone.
      length: tokens of a prompt at most.
      pooling: how the prompt's vector is made.
      schooling: how it is trained.
    """

    model: LanguageModel = LanguageModel()
    behaviour: Behaviour | None = None
    length: int = 32
    pooling: Pooling = "last"
    schooling: Schooling = Schooling()

    def fit(self, log: QueryLog, directory: epath.Path) -> NetworkClassifier:
        """Learns what the training queries converted to, from prompts that do not know it."""
        learnt = log.learnt_queries
        queries = [log.texts[query] for query in learnt]
        if self.behaviour is None:
            prompts, conversions, in_use = queries, log.conversions[learnt], as_they_are
        else:
            made = self.behaviour.training_prompts(log)
            prompts, conversions, in_use = made.texts, made.conversions, self.behaviour.reader(log).prompts
        start = self.model.start(prompts, directory)
        reader = PromptReader(dataclasses.replace(start, params=None), self.length, in_use)
        network = LanguageNetwork(start.config, start.vocab_size, log.num_classes, self.pooling)
        lesson = of_conversions(
            start.rows(prompts, self.length).columns(),
            conversions,
            artifact.fingerprint(log.fingerprint, start.fingerprint),
        )
        given = {} if start.params is None else {"encoder": start.encoder_params}
        params, facts = trained(network, self.schooling, lesson, directory, given, described=self)
        return NetworkClassifier(network, params, reader, facts)


@dataclasses.dataclass(frozen=True, eq=False)
class PromptReader:
    """Queries to a network's columns.

    Attributes:
      start: whose pieces they are read in, without its parameters.
      length: tokens of a row.
      prompts: queries to prompts.
    """

    start: LanguageModelStart
    length: int
    prompts: Callable[[Sequence[str]], list[str]]

    def __call__(self, texts: Sequence[str]) -> Columns:
        return self.start.rows(self.prompts(texts), self.length).columns()


def as_they_are(texts: Sequence[str]) -> list[str]:
    """Prompts that say nothing but the query."""
    return list(texts)
