"""The towers trained: what a run begins with, and the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.systems.product_search.feed import SearchFeed
from plum_jax.systems.product_search.network import TEXT, SearchNetwork
from plum_jax.training import trainer, training_config
from plum_jax.training.initial import warm_started
from plum_jax.training.step import Initialiser

T = TypeVar("T")


def trained_towers(
    config: T,
    network: SearchNetwork,
    pretrained: Any,
    feed: SearchFeed,
    directory: epath.PathLike,
    inputs: Mapping[str, str],
    description: str,
) -> tuple[T, Any]:
    """Trains, or goes on, or reads what was trained.

    Args:
      config: with `training`, `epochs`, `objective`: `ProductSearch` or `JudgedTextSearch`.
      network: the towers.
      pretrained: parameters of their text encoder, or None.
      feed: whose schedule of negatives gets the steps of the run.
      directory: of the run.
      inputs: fingerprints of all that the run reads but `config`.
      description: shown on the bar.

    Returns:
      the configuration with its steps, and the parameters (host arrays).
    """
    said: Any = training_config.in_steps(config, feed.rows.steps_per_epoch)
    feed = dataclasses.replace(feed, steps=said.training.steps)
    params = trainer.train(
        said.training,
        directory=directory,
        init_params=initialiser(network, pretrained, next(feed.make_iterator())),
        objective=said.objective.on(network, said.training.mesh.build()),
        feed=feed,
        fingerprints={**inputs, "system": artifact.fingerprint(said)},
        tokens_per_step=feed.rows.batch_size,
        description=description,
        described={"system": said},
    )
    return said, params


def initialiser(network: SearchNetwork, pretrained: Any, batch: Mapping[str, np.ndarray]) -> Initialiser:
    """Random parameters; the transformer's are a pre-trained language model's where there is one and it is read.

    Args:
      network: of the data.
      pretrained: parameters of its text encoder, or None.
      batch: of the feed.
    """
    some = {name: values[:1] for name, values in batch.items()}

    def random(key: jax.Array) -> Any:
        return network.init(key, some)["params"]

    if pretrained is None or TEXT not in network.config.parts:
        return random
    return warm_started(random, {"text": pretrained})
