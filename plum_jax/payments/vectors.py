"""One vector, or one score, of every payment of a table: whole sequences, in pieces, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from etils import epath

from plum_jax.payments.bounded import empty_cache, read_on
from plum_jax.payments.events import Follow, PaymentEvents
from plum_jax.payments.fields import Fields
from plum_jax.payments.network import PaymentTrunk, TrunkNetworkConfig
from plum_jax.payments.sequences import Sequences
from plum_jax.retrieval.shards import ShardedTable

KIND = "payment_vectors"
_TOGETHER, _SHARD = 64, 512  # sequences of one device call, and of a shard that a kill can cost

Lookup = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def read_sequences(
    network: nn.Module,
    params: Any,
    config: TrunkNetworkConfig,
    sequences: Sequences,
    chosen: np.ndarray,
    lookup: Lookup,
    output: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `corpus.events`, int64 [n], and what the network says of each, [n, ...], for some sequences.

    Equal to reading each sequence in one piece with local attention, whatever its length.

    Args:
      network: as `bounded.read_on` takes it.
      params: device arrays.
      config: of its layers.
      sequences: all of them.
      chosen: int [S'], which; best of about the same length.
      lookup: rows of `corpus.events` -> columns of a batch.
      output: attribute of the network's output.
    """
    lengths, piece = sequences.lengths[chosen], config.window
    rows, found = [], []
    for first in range(0, len(chosen), _TOGETHER):
        some = np.resize(chosen[first : first + _TOGETHER], _TOGETHER)  # one shape for all; the last may repeat
        starts, long = sequences.starts[some], sequences.lengths[some].copy()
        long[len(lengths[first : first + _TOGETHER]) :] = 0
        cache: Any = empty_cache(config, _TOGETHER)
        for start in range(0, int(long.max()), piece):
            places = start + np.broadcast_to(np.arange(piece), (_TOGETHER, piece))
            real = places < long[:, None]
            events = sequences.order[np.where(real, starts[:, None] + places, 0)]
            batch = {**lookup(events), "decoder_positions": places.astype(np.int32)}
            said, cache = read_on(network, params, batch, cache)
            rows.append(events[real])
            found.append(np.asarray(getattr(said, output))[real])
    return np.concatenate(rows), np.concatenate(found)


def by_length(sequences: Sequences) -> np.ndarray:
    """int64 [S], sequences from the longest on, so that those read together are about as long."""
    return np.argsort(-sequences.lengths, kind="stable")


def written_vectors(
    network: PaymentTrunk,
    params: Any,
    fields: Fields,
    payments: PaymentEvents,
    *,
    directory: epath.Path,
    inputs: Mapping[str, str],
) -> np.ndarray:
    """float16 [E, D] of all payments, from the artefact "payment_vectors", which is made in shards where it is not
    there.

    The file has "event" (row of `corpus.events`) and "vector", sequence after sequence from the longest on.
    """
    sequences = Sequences.of(payments, fields.follow)
    encoded, order, device = fields.of(payments), by_length(sequences), jax.device_put(params)
    width = network.config.layers.d_model

    def lookup(events: np.ndarray) -> Mapping[str, np.ndarray]:
        return {name: getattr(encoded, name)[events] for name in ("buckets", "numbers", "counterparty")}

    def make(start: int, stop: int) -> pa.Table:
        chosen = order[start:stop]
        rows, found = read_sequences(network, device, network.config, sequences, chosen, lookup, "values")
        flat = pa.array(found.astype(np.float16).reshape(-1))
        return pa.table({"event": rows, "vector": pa.FixedSizeListArray.from_arrays(flat, width)}, schema)

    schema = pa.schema([("event", pa.int64()), ("vector", pa.list_(pa.float16(), width))])
    table = ShardedTable(
        directory=directory,
        file="vectors.parquet",
        kind=KIND,
        schema=schema,
        config={"window": network.config.window},
        inputs=dict(inputs),
        rows=len(order),
        rows_per_shard=_SHARD,
    )
    path = table.make(make, description=f"vectors of {directory.name}")
    assert path is not None, "one process makes all"
    with path.open("rb") as file:
        read = pq.read_table(file).combine_chunks()
    found = np.empty((len(read), width), np.float16)
    vectors = read["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    found[read["event"].to_numpy()] = vectors.reshape(len(read), width)
    return found


def scored(
    network: nn.Module,
    params: Any,
    config: TrunkNetworkConfig,
    payments: PaymentEvents,
    follow: Follow,
    lookup: Lookup,
    wanted: np.ndarray,
) -> np.ndarray:
    """float32 [n], logits of payments by their rows (int [n]); sequences without any of them are not read.

    A sequence is read from as far before the first payment that is wanted as the layers together can see, to the last.
    """
    asked = np.zeros(len(payments.time), bool)
    asked[wanted] = True
    seen = config.layers.num_layers * (config.window - 1)
    sequences = Sequences.of(payments, follow).around(asked, seen)
    order = by_length(sequences)
    order = order[sequences.lengths[order] > 0]
    rows, logits = read_sequences(network, jax.device_put(params), config, sequences, order, lookup, "logits")
    found = np.full(len(asked), np.nan, np.float32)
    found[rows] = logits
    return found[wanted]
