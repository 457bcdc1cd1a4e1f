"""The user before every event, by the trunk: vectors for models that train on them (UniCoRn's full personalisation)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from plum_jax import artifact
from plum_jax.corpus.splits import Split
from plum_jax.model.masks import PackedCausal
from plum_jax.ranking.event_rows import rows_of_all
from plum_jax.ranking.knowledge import KnowledgeTables
from plum_jax.stages import Stages
from plum_jax.systems.scored_items import in_blocks
from plum_jax.systems.trunk.network import TrunkNetwork
from plum_jax.systems.trunk.system import FittedTrunk, Trunk

_ROWS = 8  # packed rows of one device call


@dataclasses.dataclass(frozen=True)
class TrunkKnowledge:
    """A trunk as a user model of others (`ranking.knowledge.Knowledge`): trained where it is not yet.

    It answers one question, "next". Vectors are brought to length 1, as the others' are; a user before the first
    event, and a new item of which nothing is known, are all zeros.

    Attributes:
      trunk: the model.
      name: of its directory in `systems/`.
    """

    trunk: Trunk
    name: str = "trunk"

    def read(self, stages: Stages) -> KnowledgeTables:
        """Tables by rows of `stages.corpus`, float16; computed anew, a few seconds for a hundred thousand events."""
        fitted = self.trunk.fit(stages, self.name)
        users = _unit(users_before_events(fitted, stages.split)).astype(np.float16)
        return KnowledgeTables(
            users[:, None],
            _unit(fitted.reader.items(fitted.params)),
            artifact.fingerprint(fitted.fingerprint, stages.corpus.fingerprint),
            ("next",),
            self.trunk.fields_read(stages),
        )


def users_before_events(fitted: FittedTrunk, split: Split) -> np.ndarray:
    """float32 [E, D]: of each event's user what is compared with items, from the events before it and its request,
    which is known by then (a gap, an hour). All events before it up to the trunk's history length are read, and at
    least half as many where there are more.
    """
    reader = fitted.reader
    rows = rows_of_all(split, reader.history_length)
    events, segments, positions = (rows[n] for n in ("events", "decoder_segment_ids", "decoder_positions"))
    vectors = reader.items(fitted.params)
    run = functools.partial(_before, reader.network, fitted.params, vectors)
    found = np.zeros((split.corpus.num_events, vectors.shape[1]), np.float32)
    known = reader.known
    read = reader.item[events], known.post.buckets[events], known.request.buckets[events], segments, positions
    states = in_blocks(run, _ROWS, *read)
    found[events[rows["answered"]]] = states[rows["answered"]]
    return found


@functools.partial(jax.jit, static_argnums=0)
def _before(
    network: TrunkNetwork,
    params: Any,
    vectors: jax.Array,
    item: jax.Array,
    post: jax.Array,
    request: jax.Array,
    segments: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    """float32 [B, T, D]: the state behind the event before each; zeros at a first one."""
    following = jnp.pad(request[:, 1:], ((0, 0), (0, 1), (0, 0)))  # behind a user's last one it is read by nobody
    batch = {"decoder_input_tokens": item, "post": post, "request": following, "decoder_positions": positions}
    mask = PackedCausal(segments)
    states, _ = network.apply({"params": params}, vectors, batch, mask, method="represented")
    before = jnp.pad(states[:, :-1], ((0, 0), (1, 0), (0, 0)))
    return jnp.where((positions == 0)[..., None], 0.0, before)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)).astype(np.float32)
