"""What all cells of a study share: made once, by whichever process comes first, and known by its figures."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Iterator

import numpy as np
from etils import epath

from plum_jax.pipeline import Stages
from plum_jax.studies.grid import DataFacts
from plum_jax.studies.records import shared_directory
from plum_jax.studies.study import Cell, Study
from plum_jax.training.batches import TokenBatches

_FILL_ROWS = 2048  # rows that the share of trained positions is measured on


def shared_stages(study: Study, study_dir: epath.PathLike) -> Stages:
    """The stages up to token records and prompts."""
    return _stages(study, study_dir, shared_directory(study_dir))


def cell_stages(study: Study, cell: Cell, study_dir: epath.PathLike, directory: epath.PathLike) -> Stages:
    """The stages of one cell: its decoder and training phase, over what is shared."""
    config = dataclasses.replace(study.pipeline, decoder=cell.decoder, retrieval=study.phase(cell))
    return _stages(dataclasses.replace(study, pipeline=config), study_dir, epath.Path(directory))


def prepare(study: Study, study_dir: epath.PathLike) -> DataFacts:
    """Makes what is not there yet, one process at a time, and says what a grid must know of it."""
    stages = shared_stages(study, study_dir)
    with _alone(shared_directory(study_dir)):
        feed = TokenBatches(
            stages.retrieval_records,
            batch_size=1,
            length=study.pipeline.retrieval.length,
            start_token=stages.vocabulary.start_id,
        )
        stages.prompts("test")
    return DataFacts(
        vocab_size=stages.vocabulary.vocab_size,
        length=feed.length,
        unique_tokens=sum(task.statistics.weighted_tokens for task in feed.tasks),
        fill=_trained_share(feed),
    )


def _stages(study: Study, study_dir: epath.PathLike, directory: epath.Path) -> Stages:
    shared = shared_directory(study_dir)
    return Stages(study.pipeline, directory, shared, shared)


def _trained_share(feed: TokenBatches) -> float:
    """Of the positions of the first rows, those with a loss weight."""
    iterator = feed.make_iterator()
    rows = min(_FILL_ROWS, max(1, int(feed.steps_per_epoch)))
    return float(np.mean([np.mean(next(iterator)["decoder_loss_weights"] > 0) for _ in range(rows)]))


@contextlib.contextmanager
def _alone(directory: epath.Path) -> Iterator[None]:
    """Keeps other processes of this machine, or of a file system with locks, from making the same at once."""
    if "://" in os.fspath(directory):
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
