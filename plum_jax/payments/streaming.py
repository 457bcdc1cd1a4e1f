"""Payments as they come, one at a time: a vector and a score from a bounded cache, equal to those of the whole
table.
"""

from __future__ import annotations

import bisect
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.payments.bounded import BoundedCache, empty_cache, read_on
from plum_jax.payments.events import OTHER, PaymentError, PaymentEvents
from plum_jax.payments.fields import Fields, hashed_row, names_of
from plum_jax.payments.network import TrunkNetworkConfig

KIND = "payment_streams"


class Payment(NamedTuple):
    """Attributes:
    user, item: names of the card or customer, and of the merchant or terminal.
    time: unix seconds.
    amount: 0 or more.
    """

    user: str
    item: str
    time: int
    amount: float


class Answer(NamedTuple):
    """Attributes:
    vector: float32 [D], the payment's.
    logit: of fraud; None where the network is a trunk alone.
    """

    vector: np.ndarray
    logit: float | None


@dataclasses.dataclass
class Following:
    """What is kept of a card (or of a merchant, where the trunk follows those): a bounded cache, its last moment, and
    the last moments (one second's, and the one before) with each counterparty that it met within the longest window.
    """

    cache: BoundedCache
    position: int = 0
    time: int | None = None
    met: dict[str, list[int]] = dataclasses.field(default_factory=dict)

    def since_met(self, other: str, time: int, longest: int) -> int:
        """Seconds since the last payment with a counterparty strictly before; -1: none within the longest window."""
        before = [moment for moment in self.met.get(other, ()) if time - longest <= moment < time]
        return time - before[-1] if before else -1

    def after(self, cache: BoundedCache, other: str, time: int, longest: int) -> Following:
        """Behind one more payment."""
        met = {name: moments for name, moments in self.met.items() if moments[-1] >= time - longest}
        before = met.get(other, [])
        met[other] = before if before[-1:] == [time] else [*before[-1:], time]
        return Following(cache, self.position + 1, time, met)


@dataclasses.dataclass
class Past:
    """Payments of a counterparty that later ones may count: those of the longest window, and the last one before it."""

    times: list[int] = dataclasses.field(default_factory=list)
    log_amounts: list[float] = dataclasses.field(default_factory=list)

    def since_last(self, time: int) -> int:
        """Seconds since the last payment strictly before; -1: none."""
        place = bisect.bisect_left(self.times, time) - 1
        return time - self.times[place] if place >= 0 else -1

    def window(self, start: int, stop: int) -> tuple[int, float]:
        """Payments with start <= time < stop, and the sum of their log-amounts."""
        first, after = bisect.bisect_left(self.times, start), bisect.bisect_left(self.times, stop)
        return after - first, math.fsum(self.log_amounts[first:after])

    def add(self, time: int, log_amount: float, longest: int) -> None:
        """Appends, and forgets what no window of a later payment reaches; one payment strictly before `time` stays."""
        self.times.append(time)
        self.log_amounts.append(log_amount)
        forgotten = 0
        while self.times[forgotten] < time - longest and self.times[forgotten + 1] < time:
            forgotten += 1
        del self.times[:forgotten], self.log_amounts[:forgotten]


class PaymentStream:
    """A trunk, or a classifier trained with it, on payments that come in order of time.

    What it keeps of each card is bounded by the window: W - 1 keys and values a layer. Of counterparties it keeps the
    payments of the longest window of `Fields`.
    """

    def __init__(
        self,
        network: nn.Module,
        params: Any,
        config: TrunkNetworkConfig,
        fields: Fields,
        payments: PaymentEvents,
        fingerprint: str,
    ) -> None:
        """Args:
        network, params: a `PaymentTrunk` or a `TrunkClassifier`, and its parameters.
        config: of the trunk's layers.
        fields: how payments are read.
        payments: of the table that the fields were fitted to: their names.
        fingerprint: of what was trained; saved states of another are refused.
        """
        self._network, self._params = network, jax.device_put(params)
        self._config, self._fields, self._fingerprint = config, fields, fingerprint
        other = OTHER[fields.follow]
        self._known = set(names_of(payments, fields.follow))
        self._row_of = dict(zip(names_of(payments, other), fields.row_of, strict=True))
        self._following: dict[str, Following] = {}
        self._pasts: dict[str, Past] = {}

    def begin(self, name: str) -> None:
        """A card (or merchant) that the table does not have may pay from now on.

        Raises:
          PaymentError: it is there already.
        """
        if name in self._known:
            raise PaymentError(f"{name!r} is there already: its payments go on where they were")
        self._known.add(name)

    def read(self, payment: Payment, known: Sequence[float] | None = None) -> Answer:
        """The vector of a payment, and its score, and takes the payment in.

        Args:
          payment: not before any that was read of the same card or merchant.
          known: float [12], `risk.known_numbers` of the payment, for a classifier; None: no label is known.

        Raises:
          PaymentError: a name that is not known, an amount that is none, or a payment older than what was read. Nothing
            is taken in then.
        """
        follow = self._fields.follow
        name, other = getattr(payment, follow), getattr(payment, OTHER[follow])
        self._require(payment, name, other)
        past, following = self._pasts.get(other, Past()), self._following.get(name)
        following = Following(empty_cache(self._config, 1)) if following is None else following
        batch = self._batch(payment, following, past, other)
        if known is not None:
            batch["known"] = np.asarray(known, np.float32).reshape(1, 1, -1)
        elif not hasattr(self._network, "counterparty_rows"):
            batch["known"] = np.zeros((1, 1, 12), np.float32)
        said, cache = read_on(self._network, self._params, batch, following.cache)
        longest = max(self._fields.config.windows)
        past.add(payment.time, math.log1p(payment.amount), longest)
        self._pasts[other] = past
        self._following[name] = following.after(cache, other, payment.time, longest)
        if hasattr(said, "logits"):
            return Answer(np.asarray(said.vectors)[0, 0], float(said.logits[0, 0]))
        return Answer(np.asarray(said.values)[0, 0], None)

    def _require(self, payment: Payment, name: str, other: str) -> None:
        follow = self._fields.follow
        if name not in self._known:
            raise PaymentError(
                f"field {follow!r}: expected one of the {len(self._known):,} names that are known, got {name!r}: call "
                "begin(name) first where it is new"
            )
        if not (math.isfinite(payment.amount) and payment.amount >= 0):
            raise PaymentError(f"field 'amount': expected 0 or more, got {payment.amount} of {name!r} at {other!r}")
        last = self._following[name].time if name in self._following else None
        before = self._pasts[other].times[-1] if other in self._pasts else None
        for field, who, when in ((follow, name, last), (OTHER[follow], other, before)):
            if when is not None and payment.time < when:
                raise PaymentError(
                    f"field 'time': the payment of {name!r} at {other!r} is of {_moment(payment.time)}, and one of "
                    f"{_moment(when)} of the same {field} {who!r} was read already: payments of a stream come in order "
                    "of time; leave it out, or read the table again"
                )

    def _batch(self, payment: Payment, following: Following, past: Past, other: str) -> dict[str, np.ndarray]:
        fields, time = self._fields, payment.time
        windows = [past.window(time - length, time) for length in fields.config.windows]
        row = self._row_of.get(other)
        encoded = fields.encode(
            np.array([payment.amount], np.float64),
            np.array([time], np.int64),
            np.array([-1 if following.time is None else time - following.time], np.int64),
            np.array([hashed_row(other, fields.config.hashed_rows) if row is None else row]),
            np.array([past.since_last(time)], np.int64),
            np.array([following.since_met(other, time, max(fields.config.windows))], np.int64),
            np.array([[count for count, _ in windows]], np.float64),
            np.array([[total for _, total in windows]], np.float64),
        )
        return {name: values[None] for name, values in encoded._asdict().items()} | {
            "decoder_positions": np.array([[following.position]], np.int32)
        }

    def save(self, directory: epath.PathLike) -> None:
        """Writes what is kept as the artefact "payment_streams", aside first."""
        names, others = sorted(self._following), sorted(self._pasts)
        states = [self._following[name] for name in names]

        def stacked(field: str) -> np.ndarray:
            empty = getattr(empty_cache(self._config, 0), field)
            axis = 0 if field == "positions" else 1
            return np.concatenate([empty, *(np.asarray(getattr(state.cache, field)) for state in states)], axis=axis)

        arrays = {
            **{field: stacked(field) for field in ("keys", "values", "positions")},
            "position": np.array([state.position for state in states], np.int64),
            "time": np.array([state.time for state in states], np.int64),
            "past_lengths": np.array([len(self._pasts[name].times) for name in others], np.int64),
            "past_times": np.array([t for name in others for t in self._pasts[name].times], np.int64),
            "past_log_amounts": np.array([a for name in others for a in self._pasts[name].log_amounts], np.float64),
        }
        met = [state.met for state in states]
        told = {"following": names, "met": met, "others": others, "known": sorted(self._known)}

        def write(aside: epath.Path) -> None:
            with (aside / "states.npz").open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            artifact.write_json(aside / "names.json", told)

        fingerprint = artifact.fingerprint(told, *arrays.values())
        inputs = {"trained": self._fingerprint}
        artifact.write_artifact(
            directory, kind=KIND, fingerprint=fingerprint, config=self._config, inputs=inputs, write=write
        )

    def load(self, directory: epath.PathLike) -> None:
        """Goes on from what `save` wrote.

        Raises:
          ArtifactError: none is there, or it is of another network.
        """
        directory = epath.Path(directory)
        found = artifact.read_manifest(directory, KIND).inputs
        if found != {"trained": self._fingerprint}:
            raise artifact.ArtifactError(
                f"{directory} has states of the network {found.get('trained')}, this one is {self._fingerprint}: "
                "vectors of two networks do not mix; read the table again"
            )
        told: Mapping[str, list[Any]] = json.loads((directory / "names.json").read_text())
        with (directory / "states.npz").open("rb") as file:
            arrays = dict(np.load(file))
        self._known = set(told["known"])
        self._following = {
            name: Following(
                BoundedCache(
                    arrays["keys"][:, i : i + 1], arrays["values"][:, i : i + 1], arrays["positions"][i : i + 1]
                ),
                int(arrays["position"][i]),
                int(arrays["time"][i]),
                told["met"][i],
            )
            for i, name in enumerate(told["following"])
        }
        ends = np.cumsum(arrays["past_lengths"])
        self._pasts = {
            name: Past(arrays["past_times"][first:end].tolist(), arrays["past_log_amounts"][first:end].tolist())
            for name, first, end in zip(told["others"], ends - arrays["past_lengths"], ends, strict=True)
        }


def _moment(time: int) -> str:
    return str(np.datetime64(time, "s"))
