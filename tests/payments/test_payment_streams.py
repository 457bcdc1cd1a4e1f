"""Payments one at a time with a bounded cache: equal to the whole sequence with local attention; saved, loaded,
refused.
"""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from small_payments import NETWORK, TRUNK, payments

from plum_jax import artifact
from plum_jax.payments.bounded import empty_cache
from plum_jax.payments.events import KnownLabels, PaymentError
from plum_jax.payments.network import TrunkClassifier
from plum_jax.payments.risk import known_numbers
from plum_jax.payments.sequences import Sequences
from plum_jax.payments.streaming import Payment, PaymentStream
from plum_jax.payments.trunk import initial_params
from plum_jax.payments.vectors import by_length, read_sequences, scored


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A classifier with random parameters on merchants' sequences, and its whole-sequence answers."""

    events: object
    fields: object
    network: TrunkClassifier
    params: object
    columns: dict
    whole: dict

    def stream(self, fingerprint="trained"):
        return PaymentStream(self.network, self.params, NETWORK, self.fields, self.events, fingerprint)

    def payment(self, row):
        corpus = self.events.split.corpus
        event = corpus.events.row(int(row), named=True)
        names = corpus.users["user_id"][event["user"]], corpus.items["item_id"][event["item"]]
        return Payment(*names, event["time"], event["amount"])


@pytest.fixture(scope="module")
def world():
    events = payments()
    fields = dataclasses.replace(TRUNK, follow="item").fields.fit(events, "item")
    encoded, known = fields.of(events), known_numbers(KnownLabels(events))
    columns = {**encoded._asdict(), "known": known}
    network = TrunkClassifier(TRUNK.build(fields))
    sequences, whole = Sequences.of(events, "item"), {}
    longest = int(sequences.lengths.max())

    def batch_of(rows):
        padded = np.resize(rows, longest)  # one shape
        real = (np.arange(longest) < len(rows)).astype(np.int32)[None]
        batch = {name: values[padded][None] for name, values in columns.items()}
        return batch | {"decoder_positions": np.arange(longest, dtype=np.int32)[None], "decoder_segment_ids": real}

    first = batch_of(sequences.order[:1])
    params = nn.unbox(jax.jit(lambda key: initial_params(network, first, key))(jax.random.key(0)))
    apply = jax.jit(lambda batch: network.apply({"params": params}, batch))
    for start, length in zip(sequences.starts, sequences.lengths, strict=True):
        rows = sequences.order[start : start + length]
        output = apply(batch_of(rows))
        for place, row in enumerate(rows.tolist()):
            whole[row] = np.asarray(output.logits)[0, place], np.asarray(output.vectors)[0, place]
    return World(events, fields, network, params, columns, whole)


def test_pieces_give_what_the_whole_sequence_gives(world):
    sequences = Sequences.of(world.events, "item")
    assert sequences.lengths.max() > 10 * NETWORK.window  # the window bites

    def lookup(events):
        return {name: values[events] for name, values in world.columns.items()}

    for output, place in (("logits", 0), ("vectors", 1)):
        order = by_length(sequences)
        rows, found = read_sequences(world.network, world.params, NETWORK, sequences, order, lookup, output)
        assert sorted(rows.tolist()) == list(range(len(world.events.time)))
        np.testing.assert_allclose(found, [world.whole[row][place] for row in rows], atol=2e-5)


def test_payments_that_are_asked_about_are_read_with_all_that_the_layers_see(world):
    wanted = np.sort(np.random.default_rng(0).choice(len(world.events.time), 9, replace=False))

    def lookup(events):
        return {name: values[events] for name, values in world.columns.items()}

    found = scored(world.network, world.params, NETWORK, world.events, "item", lookup, wanted)
    np.testing.assert_allclose(found, [world.whole[row][0] for row in wanted.tolist()], atol=2e-5)


def test_a_stream_gives_what_the_whole_sequence_gives_and_goes_on_after_a_load(world, tmp_path):
    stream = world.stream()
    rows = np.lexsort((np.arange(len(world.events.time)), world.events.time))[:300]
    merchants = world.events.key("item")[rows]
    assert np.bincount(merchants).max() > 3 * NETWORK.window
    for number, row in enumerate(rows):
        if number == 150:
            stream.save(tmp_path / "states")
            stream = world.stream()
            stream.load(tmp_path / "states")
        answer = stream.read(world.payment(row), world.columns["known"][row])
        logit, vector = world.whole[int(row)]
        assert answer.logit == pytest.approx(logit, abs=2e-5)
        np.testing.assert_allclose(answer.vector, vector, atol=2e-5)
    cache = next(iter(stream._following.values())).cache
    assert jax.tree.map(np.shape, cache) == jax.tree.map(np.shape, empty_cache(NETWORK, 1))
    kept = max(len(past.times) for past in stream._pasts.values())
    assert kept < 60  # of a card, what the longest window reaches
    with pytest.raises(
        artifact.ArtifactError, match="states of the network trained, this one is another: vectors of two"
    ):
        world.stream("another").load(tmp_path / "states")


def test_what_cannot_be_read_is_said_and_nothing_is_taken_in(world):
    stream = world.stream()
    rows = np.argsort(world.events.time, kind="stable")[:2]
    first = world.payment(rows[0])
    stream.read(first, world.columns["known"][rows[0]])
    refused = {
        "one of the 8 names that are known, got 'm99': call begin": first._replace(item="m99"),
        "'amount': expected 0 or more, got nan": first._replace(amount=float("nan")),
        "'amount': expected 0 or more, got -1": first._replace(amount=-1.0),
        "'time': the payment of .* of the same item .* was read already: .* in order of time": first._replace(
            user="a new card", time=first.time - 1
        ),
    }
    for said, payment in refused.items():
        with pytest.raises(PaymentError, match=said):
            stream.read(payment)
    other = next(name for name in world.events.split.corpus.items["item_id"] if name != first.item)
    with pytest.raises(PaymentError, match=f"of the same user '{first.user}' was read already"):
        stream.read(first._replace(item=other, time=first.time - 1))
    assert list(stream._following) == [first.item] and stream._following[first.item].position == 1
    stream.begin("m99")
    assert np.isfinite(stream.read(first._replace(item="m99", user="a new card")).logit)
    with pytest.raises(PaymentError, match="'m99' is there already"):
        stream.begin("m99")
