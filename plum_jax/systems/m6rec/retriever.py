"""M6-Rec in retrieval: vectors by the user side's [EOS'] and by an item's [EOS]; a new item has a text as well."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.splits import TRAIN, EvaluationSet
from plum_jax.evaluation.exact_top_k import exact_top_k
from plum_jax.evaluation.system import Ranking
from plum_jax.feeds.array_batches import ArrayBatches
from plum_jax.objectives.info_nce import InfoNce
from plum_jax.ranking.labels import Label, LabelledEvents
from plum_jax.ranking.ranker import trained_facts
from plum_jax.stages import Stages
from plum_jax.systems.m6rec.network import Heads, M6Network, applied
from plum_jax.systems.m6rec.pretraining import Pretrained, Pretraining, directory_of
from plum_jax.systems.m6rec.rows import TextRows
from plum_jax.systems.m6rec.serving import by_blocks
from plum_jax.systems.m6rec.writer import Text
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import with_values
from plum_jax.training.step import FromHost

_SAMPLE = 2048  # rows of each side that projections are fitted to before the first step


@dataclasses.dataclass(frozen=True)
class M6Retriever:
    """Two vectors by one trunk, contrasted within a batch.

    Attributes:
      pretraining: the trunk that it begins with, and the texts.
      label: how a behaviour ended, in words; None: it is told as taken.
      heads: width of the vectors and temperature.
      objective: in-batch softmax; the paper's has no correction for popularity.
      training, epochs, batch_size: as in `ranker.M6Ranker`.
      examples: training events with a behaviour before them, drawn; None: all.
    """

    pretraining: Pretraining = Pretraining()
    label: Label | None = None
    heads: Heads = Heads()
    objective: InfoNce = InfoNce(correct_for_popularity=False)
    training: training_config.TrainingConfig = training_config.TrainingConfig()
    epochs: float | None = 1.0
    batch_size: int = 128
    examples: int | None = 20_000

    def fit(self, stages: Stages, name: str) -> FittedM6Retriever:
        """Trains on training events: what a user took, by what was before."""
        split = stages.split
        nothing = np.full(split.corpus.num_events, np.nan, np.float32)
        events = LabelledEvents(split, nothing) if self.label is None else self.label.of(split)
        trunk = self.pretraining.fit(stages, events)
        network = M6Network(trunk.start.decoder, trunk.start.vocab_size, self.pretraining.form, self.heads)
        arrays = self.arrays(trunk)
        batches = ArrayBatches(arrays, min(self.batch_size, len(arrays["target_log_q"])), self.training.seed)
        said = training_config.in_steps(self, batches.steps_per_epoch)
        inputs = {"trunk": trunk.fingerprint, "system": artifact.fingerprint(said)}
        directory = directory_of(stages, "retriever", *inputs.values())
        params = trainer.train(
            said.training,
            directory=directory,
            init_params=spread(network, trunk.initial(network, "towers", next(batches.make_iterator())), arrays),
            objective=self.objective.on(network, self.training.mesh.build()),
            feed=batches,
            fingerprints=inputs,
            tokens_per_step=sum(arrays[f"{side}_tokens"].shape[1] for side in ("user", "item")) * batches.batch_size,
            description=name,
            described={"system": said},
        )
        return FittedM6Retriever(self, network, params, trunk, directory)

    def arrays(self, trunk: Pretrained) -> dict[str, np.ndarray]:
        """What is trained on: rows of users and of items, and each item's share of the training events."""
        writer, split = trunk.writer, trunk.writer.events.split
        rows = np.flatnonzero(split.fold == TRAIN)
        rows = np.random.default_rng(self.training.seed).permutation(rows)
        rows = np.array([row for row in rows[: 2 * (self.examples or len(rows))].tolist() if writer.behaviours(row)])
        if not len(rows):
            raise ValueError(f"corpus {split.corpus.name!r} has no training event behind another of its user")
        rows = rows[: self.examples]
        writer.check_learnt(rows)
        item = np.array([writer.item_of(row) for row in rows.tolist()], np.int32)
        share = split.item_popularity[item] / max(split.item_popularity.sum(), 1)
        return {
            **self.users(trunk, rows).columns("user_"),
            **self.items(trunk).of(item).columns("item_"),
            "decoder_target_tokens": item[:, None],
            "decoder_loss_weights": np.ones((len(rows), 1), np.float32),
            "target_log_q": np.log(share)[:, None].astype(np.float32),
        }

    def users(self, trunk: Pretrained, rows: np.ndarray) -> TextRows:
        """What is told of the user before each of some events."""
        return trunk.tokens.rows([Text(trunk.writer.user(int(row)), ()) for row in rows])

    def items(self, trunk: Pretrained) -> TextRows:
        """All of them."""
        texts = [Text((), (item,)) for item in trunk.writer.items]
        return dataclasses.replace(trunk.tokens, length=max(map(trunk.tokens.count, texts))).rows(texts)


@dataclasses.dataclass(frozen=True, eq=False)
class FittedM6Retriever:
    """A trained `M6Retriever`.

    Attributes:
      config: of it.
      network, params: with what it reads (host arrays).
      trunk: texts and tokens.
      directory: of the training run.
    """

    config: M6Retriever
    network: M6Network
    params: Any
    trunk: Pretrained
    directory: epath.Path

    @functools.cached_property
    def fingerprint(self) -> str:
        return artifact.fingerprint(artifact.tree_fingerprint(self.params), self.trunk.writer.fingerprint)

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"seed": self.config.training.seed, **trained_facts(self.params, self.directory)}

    def rank(self, evaluation: EvaluationSet, k: int) -> Ranking:
        """The first k items of each user, exactly."""
        users = vectors(self.network, self.params, self.config.users(self.trunk, evaluation.target_event), "users")
        items = vectors(self.network, self.params, self.config.items(self.trunk), "items")
        return Ranking(*exact_top_k(users, items, evaluation, k))


def spread(network: M6Network, initial: FromHost, arrays: Mapping[str, np.ndarray]) -> FromHost:
    """`initial` with projections that tell texts apart from the first step on.

    The state at [EOS'] or [EOS] is mostly that token's: of any two texts their cosine is about .97, all products are
    alike, and the softmax stays at chance (measured; the paper says nothing of it, its model is pre-trained at scale).
    So a projection begins by taking a side's mean away and whitening what is left, by the covariance of both sides.

    Args:
      network: whose projections.
      initial: its other parameters.
      arrays: what is trained on.
    """

    def make(key: jax.Array) -> Any:
        params = initial.make(key)
        states = {
            side: vectors(network, nn.unbox(params), _some(arrays, f"{side}_"), "ending") for side in ("user", "item")
        }
        means = {side: of_side.mean(axis=0) for side, of_side in states.items()}
        centred = np.concatenate([of_side - means[side] for side, of_side in states.items()])
        kernel = _whitening(centred, network.heads.vector_dim)
        for side, mean in means.items():
            name = f"{side}_projection"
            params[name] = with_values(params[name], {"kernel": kernel, "bias": -mean @ kernel})
        return params

    return FromHost(make)


def _whitening(centred: np.ndarray, width: int) -> np.ndarray:
    """float32 [D, W]: takes states [n, D] of mean 0 to uncorrelated ones of variance 1, and rotates them at random."""
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    scale = np.maximum(lengths, 1e-2 * lengths[0]) / len(centred) ** 0.5  # a direction of almost none stays small
    square = np.random.default_rng(0).normal(size=(max(width, len(scale)),) * 2)
    rotation = np.linalg.qr(square)[0][: len(scale), :width]
    return ((directions.T / scale) @ rotation).astype(np.float32)


def _some(arrays: Mapping[str, np.ndarray], prefix: str) -> TextRows:
    """The first rows of a side; they come in a random order."""
    return TextRows(*(arrays[f"{prefix}{name}"][:_SAMPLE] for name in TextRows._fields))


def vectors(network: M6Network, params: Any, rows: TextRows, method: str) -> np.ndarray:
    """float32 [n, W] by "users" or "items", or states by "ending"."""
    params = jax.device_put(params)
    return by_blocks(lambda some: _vectors(network, params, some.columns(), method), rows)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _vectors(network: M6Network, params: Any, batch: Any, method: str) -> jax.Array:
    return applied(network, params, batch, method=method)
