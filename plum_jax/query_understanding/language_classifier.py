"""A language model that reads a query, alone or with evidence behind it, and says its classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from etils import epath

from plum_jax import artifact
from plum_jax.encoders.language_model import LanguageModel, LanguageModelStart
from plum_jax.encoders.network import Pooling
from plum_jax.query_understanding.log import QueryLog
from plum_jax.query_understanding.networks import LanguageNetwork
from plum_jax.query_understanding.prompts import Deal, Evidence, Prompts
from plum_jax.query_understanding.training import Columns, NetworkClassifier, Schooling, of_conversions, trained


@dataclasses.dataclass(frozen=True)
class LanguageClassifier:
    """A language model with a head of classes, trained on with it.

    A head, and no generated path: every class has its share, which a threshold and the student need, for one reading.

    Attributes:
      model: what it begins with.
      evidence: what the prompt says behind the query, in this order; none: the query alone.
      deal: of the training events, so that evidence does not know what is to be said.
      length: tokens of a prompt at most.
      pooling: how the prompt's vector is made.
      schooling: how it is trained.
    """

    model: LanguageModel = LanguageModel()
    evidence: tuple[Evidence, ...] = ()
    deal: Deal = Deal()
    length: int = 32
    pooling: Pooling = "last"
    schooling: Schooling = Schooling()

    def __post_init__(self) -> None:
        object.__setattr__(self, "evidence", tuple(self.evidence))

    def fit(self, log: QueryLog, directory: epath.Path) -> NetworkClassifier:
        """Learns what the training queries converted to, from prompts that do not know it."""
        in_use = Prompts.of(self.evidence, log)
        _, prompts, conversions = self.deal.training_prompts(log, in_use)
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
    prompts: Prompts

    def __call__(self, texts: Sequence[str]) -> Columns:
        return self.start.rows(self.prompts(texts), self.length).columns()
