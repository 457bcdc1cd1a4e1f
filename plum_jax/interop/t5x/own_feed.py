"""Our feed as T5X's data: the batches of `plum`, in its order, and an exact position in every checkpoint."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from clu.data.dataset_iterator import ArraySpec, DatasetIterator
from etils import epath

from plum_jax.feeds.batches import TokenBatches
from plum_jax.feeds.packing import COLUMNS
from plum_jax.interop.t5x.installed import T5xError
from plum_jax.interop.t5x.run_files import RunFiles


@dataclasses.dataclass(frozen=True)
class OwnFeed:
    """`get_dataset_fn` of `t5x.train`: `feeds.batches` in place of SeqIO's shuffling, mixing and packing.

    Attributes:
      run: whose records are read.
      phase: "cpt" or "retrieval".
      seed: of the order; `TrainingConfig.seed` for the batches of plum.
      feed_shards: independent streams, as in `Phase.feed_shards`: a multiple of the hosts.
    """

    run: RunFiles
    phase: str = "cpt"
    seed: int = 0
    feed_shards: int = 1

    def __call__(
        self, cfg: Any, shard_id: int, num_shards: int, feature_converter_cls: Any, num_epochs: Any = None, **_: Any
    ) -> FeedIterator:
        """This host's rows; batch size and length are the `DatasetConfig`'s, all else of it is SeqIO's.

        Raises:
          T5xError: fewer streams than hosts.
        """
        if self.feed_shards % num_shards:
            raise T5xError(
                f"expected feed_shards to be a multiple of the {num_shards} hosts that read, got {self.feed_shards}: "
                "set own_feed.OwnFeed.feed_shards"
            )
        feed = TokenBatches(
            self.run.records(self.phase),
            batch_size=cfg.batch_size,
            length=cfg.task_feature_lengths["targets"],
            seed=self.seed,
            feed_shards=self.feed_shards,
            start_token=self.run.vocabulary.start_id,
        )
        own = self.feed_shards // num_shards
        return FeedIterator(feed, range(shard_id * own, (shard_id + 1) * own))


class FeedIterator(DatasetIterator):
    """Rows of some streams of `TokenBatches`; its state is a few integers in a file."""

    def __init__(self, feed: TokenBatches, shards: range) -> None:
        self._feed, self._shards = feed, shards
        self.reset()

    def reset(self) -> None:
        """Back to the first batch."""
        self._iterator = self._feed.make_iterator(list(self._shards))

    def __next__(self) -> dict[str, np.ndarray]:
        return next(self._iterator)

    @property
    def element_spec(self) -> dict[str, ArraySpec]:
        rows = self._feed.batch_size * len(self._shards) // self._feed.feed_shards
        return {name: ArraySpec(np.dtype(dtype), (rows, self._feed.length)) for name, dtype in COLUMNS.items()}

    def save(self, filename: epath.PathLike) -> None:
        """Writes where it is."""
        epath.Path(filename).write_text(json.dumps(self._iterator.get_state()))

    def restore(self, filename: epath.PathLike) -> None:
        """Goes to where `save` was called."""
        self._iterator.set_state(json.loads(epath.Path(filename).read_text()))
