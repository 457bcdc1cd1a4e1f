"""A payment at a time with a bounded cache, against reading the window again.

    python benchmarks/payments_streaming.py           windows of 64 and 256
    python benchmarks/payments_streaming.py --quick   20 s: a window of 64

Both sides give the same vector of a new payment of a card with a long history (it is checked): the stream reads one
payment and the keys and values of the W - 1 before it; the rival has no cache, and reads the last L (W - 1) + 1
payments, all that an L-layer network with local attention can see. Prints a line for each window, and at the end one
line of JSON:

  streaming_event_ms: milliseconds of a payment, from its raw fields to its vector; the quick window's.
  streaming_vs_recompute: of reading the window again over that, of the network alone on both sides; least of the
    windows.
  streaming_by_window: of each window: event_ms, network_ms, recompute_ms, ratio.
"""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import timing

VERSIONS = ("jax", "numpy")
WINDOWS = (64, 256)
EVENTS, ROUNDS = 20, 9  # payments a round


def main() -> None:
    """Measures each window."""
    timing.run(__doc__, VERSIONS, measure)


def measure(quick: bool) -> dict[str, Any]:
    """The keys of the module; call it before or after other measurements, it changes nothing."""
    by_window = {window: _of_window(window) for window in (WINDOWS[:1] if quick else WINDOWS)}
    return {
        "streaming_event_ms": by_window[WINDOWS[0]]["event_ms"],
        "streaming_vs_recompute": min(found["ratio"] for found in by_window.values()),
        "streaming_by_window": {str(window): found for window, found in by_window.items()},
    }


def _of_window(window: int) -> dict[str, float]:
    # Imported here: what `main` sets is read when JAX is loaded.
    import flax.linen as nn
    import jax
    import numpy as np

    from plum_jax.corpus.sources.card_payments import CardPayments
    from plum_jax.corpus.splits import GappedTime
    from plum_jax.model.masks import PackedCausal
    from plum_jax.payments.bounded import empty_cache, read_on
    from plum_jax.payments.events import Payments
    from plum_jax.payments.network import SMALL, TrunkNetworkConfig
    from plum_jax.payments.streaming import Payment, PaymentStream
    from plum_jax.payments.trunk import Trunk

    simulator = CardPayments(num_cards=200, num_merchants=20, days=40, attack_every_days=8)
    split = GappedTime(train_days=20, gap_days=1, validation_days=6, test_days=10).split(simulator.read())
    payments = Payments(delay_days=1, warm_up_days=1).of(split)
    config = TrunkNetworkConfig(dataclasses.replace(SMALL, dropout_rate=0.0), window)
    trunk = Trunk(follow="item", network=config)
    fields = trunk.fields.fit(payments, "item")
    network, encoded = trunk.build(fields), fields.of(payments)

    length = config.layers.num_layers * (window - 1) + 1  # what the network can see
    rows = np.arange(length + EVENTS)
    columns = {name: values[rows][None] for name, values in encoded._asdict().items()}
    columns["decoder_positions"] = rows[None].astype(np.int32)
    first = {name: values[:, :length] for name, values in columns.items()}
    segments = np.ones((1, length), np.int32)
    params = nn.unbox(network.init(jax.random.key(0), first, PackedCausal(segments))["params"])
    _, cache = read_on(network, params, first, empty_cache(config, 1))
    apply = jax.jit(lambda batch: network.apply({"params": params}, batch, PackedCausal(segments)).values[:, -1])

    def ones() -> Any:
        state, said = cache, None
        for place in range(length, length + EVENTS):
            one = {name: values[:, place : place + 1] for name, values in columns.items()}
            said, state = read_on(network, params, one, state)
        assert said is not None
        return jax.block_until_ready(said.values[:, -1])

    def again() -> Any:
        found = None
        for place in range(length, length + EVENTS):
            found = apply({name: values[:, place + 1 - length : place + 1] for name, values in columns.items()})
        return jax.block_until_ready(found)

    apart = float(np.abs(np.asarray(ones()) - np.asarray(again())).max())
    assert apart < 1e-3, f"expected the same vector from both sides, they are {apart} apart"

    stream = PaymentStream(network, params, config, fields, payments, "benchmark")
    clock = iter(range(1 << 30))

    names = split.corpus.users["user_id"][0], split.corpus.items["item_id"][0]

    def events() -> None:
        for _ in range(EVENTS):
            stream.read(Payment(*names, 1_600_000_000 + 60 * next(clock), 10.0))

    for _ in range(window // EVENTS + 1):
        events()
    seconds = timing.interleaved({"events": events, "ones": ones, "again": again}, ROUNDS)
    event, one, recompute = (1e3 * statistics.median(seconds[side]) / EVENTS for side in ("events", "ones", "again"))
    ratio = timing.median_ratio(seconds["again"], seconds["ones"])
    print(
        f"window {window:4d}{event:9.2f} ms a payment{one:9.2f} ms of it the network{recompute:9.2f} ms to read the "
        f"last {length} again: {ratio:.1f} times"
    )
    return {"event_ms": event, "network_ms": one, "recompute_ms": recompute, "ratio": ratio}


if __name__ == "__main__":
    main()
