"""One training phase of a decoder on token records: what it is, and how it is run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.feeds.batches import TokenBatches
from plum_jax.feeds.packing import random_rows
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import train_step_flops
from plum_jax.model.decoder import Decoder
from plum_jax.objectives.next_token import NextToken
from plum_jax.objectives.objective import Objective
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import initial_params
from plum_jax.training.loop import Evaluator, Sampler
from plum_jax.training.step_recipe import StepRecipe


@dataclasses.dataclass(frozen=True)
class Phase:
    """One training phase of the decoder.

    Attributes:
      training: steps, optimizer, periods, seed.
      batch_size: rows of a batch.
      length: tokens of a row; several records are packed into one.
      objective: what is minimised.
      feed_shards: independent streams of records, for runs of several processes (`TokenBatches`).
      rate_unit: what the tasks' rates are shares of, "sequences" or "tokens".
      rates: sampling rate of each task; those that the records were made with where None. Tasks not named are left out.
      share: from where to where of each task's records are trained on (`TokenBatches`).
      once: each record is trained on once, whatever the rates; `in_one_pass` says the steps.
    """

    training: training_config.TrainingConfig = training_config.TrainingConfig()
    batch_size: int = 64
    length: int = 128
    objective: Objective = NextToken()
    feed_shards: int = 1
    rate_unit: str = "sequences"
    rates: Mapping[str, float] | None = None
    share: tuple[float, float] = (0.0, 1.0)
    # `fingerprints_of` names it where it is asked for, so that checkpoints of before are still known.
    once: bool = dataclasses.field(default=False, metadata=artifact.NOT_DESCRIBED)


def phase_step_flops(phase: Phase, config: DecoderConfig, vocab_size: int) -> float:
    """Training FLOPs of one step, with the whole score matrix of each row (`counts.train_step_flops`)."""
    return train_step_flops(config, vocab_size, phase.batch_size, phase.length)


def step_recipe(phase: Phase, config: DecoderConfig, vocab_size: int) -> StepRecipe:
    """The train step of a phase, for timing and compiling it."""
    decoder = Decoder(config, vocab_size)
    return StepRecipe(
        training=phase.training,
        init_params=initial_params(decoder),
        objective=functools.partial(phase.objective.on, decoder),
        batch=functools.partial(random_rows, phase.batch_size, phase.length, vocab_size),
        batch_size=phase.batch_size,
        length=phase.length,
        flops=train_step_flops(config, vocab_size, phase.batch_size, phase.length, causal=True),
        transformer=config,
    )


def feed_of(phase: Phase, records: epath.Path, start_token: int) -> TokenBatches:
    """The batches of a phase."""
    return TokenBatches(
        records,
        batch_size=phase.batch_size,
        length=phase.length,
        seed=phase.training.seed,
        feed_shards=phase.feed_shards,
        rate_unit=phase.rate_unit,
        rates=phase.rates,
        share=phase.share,
        once=phase.once,
        start_token=start_token,
    )


def in_passes(phase: Phase, passes: float, records: epath.Path) -> Phase:
    """With as many steps as see the records so many times, each task by its rate."""
    training = phase.training.for_passes(passes, feed_of(phase, records, 0).steps_per_epoch)
    return dataclasses.replace(phase, training=training)


def in_one_pass(phase: Phase, records: epath.Path) -> Phase:
    """With as many steps as it takes to feed each record once."""
    phase = dataclasses.replace(phase, once=True)
    steps = feed_of(phase, records, 0).count()
    return dataclasses.replace(phase, training=dataclasses.replace(phase.training, steps=steps))


def fingerprints_of(
    phase: Phase, decoder: Decoder, feed: TokenBatches, made_from: Mapping[str, str], warm_start_fingerprint: str
) -> dict[str, str]:
    """What the checkpoints of a phase are known by."""
    return {
        **made_from,
        "records": feed.fingerprint,
        "decoder": artifact.fingerprint(decoder.config),
        "phase": artifact.fingerprint(phase, *(["once"] if phase.once else [])),
        "warm_start": warm_start_fingerprint,
    }


def train_phase(
    phase: Phase,
    *,
    decoder: Decoder,
    records: epath.Path,
    start_token: int,
    made_from: Mapping[str, str],
    directory: epath.Path,
    warm_start: Any = None,
    warm_start_fingerprint: str = "none",
    evaluators: Mapping[str, Evaluator] | None = None,
    trunk: trainer.Trunk | None = None,
    sampler: Sampler | None = None,
    description: str = "train",
) -> Any:
    """Trains a decoder on token records, or goes on, and returns its parameters.

    Args:
      phase: how.
      decoder: what.
      records: artefact of token records.
      start_token: what every sequence's inputs begin with.
      made_from: fingerprints of what the records were made with: SidTable, vocabulary.
      directory: of the training run.
      warm_start: parameters (host arrays) to begin with; None: random ones.
      warm_start_fingerprint: of those.
      evaluators, trunk, sampler, description: as for `trainer.train`.
    """
    feed = feed_of(phase, records, start_token)
    fingerprints = fingerprints_of(phase, decoder, feed, made_from, warm_start_fingerprint)
    return trainer.train(
        phase.training,
        directory=directory,
        init_params=initial_params(decoder, warm_start),
        objective=phase.objective.on(decoder, phase.training.mesh.build()),
        feed=feed,
        fingerprints=fingerprints,
        evaluators=evaluators,
        step_flops=phase_step_flops(phase, decoder.config, decoder.vocab_size),
        tokens_per_step=phase.batch_size * phase.length,
        trunk=trunk,
        sampler=sampler,
        description=description,
        described={"decoder": decoder.config, "phase": phase},
    )
