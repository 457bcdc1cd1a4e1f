"""What the labels that are known by then say of a payment's customer and merchant: the same for every detector."""

from __future__ import annotations

import functools

import numpy as np

from plum_jax.payments.events import DAY, Follow, KnownLabels
from plum_jax.payments.past import Past

RISK_DAYS = (1, 7, 30)


@functools.lru_cache(maxsize=2)
def known_risk(labels: KnownLabels, follow: Follow, days: tuple[int, ...] = RISK_DAYS) -> np.ndarray:
    """float64 [E, 2 W]: of each window of days that ends `delay_days` before the payment, the key's payments whose
    labels are known, and the share of frauds among them (0 without any). (The Handbook, chapter 3, has it for
    terminals.)

    Payments of customers whose labels are never known count nothing.
    """
    payments, known = labels.payments, labels.known
    delay = round(payments.config.delay_days * DAY)
    key, time = payments.key(follow), payments.time
    past = Past(key[known], time[known], fraud=payments.fraud[known].astype(np.float64))
    end, found = time - delay, []
    for length in days:
        window = past.window(key, end - length * DAY, end)
        found += [window["count"], window["fraud"] / np.maximum(window["count"], 1)]
    return np.stack(found, axis=1)


@functools.lru_cache(maxsize=1)
def known_numbers(labels: KnownLabels) -> np.ndarray:
    """float32 [E, 12]: `known_risk` of merchant and customer as a network reads it, counts as logarithms."""
    both = np.concatenate([known_risk(labels, "item"), known_risk(labels, "user")], axis=1)
    both[:, ::2] = np.log1p(both[:, ::2]) / 4
    return both.astype(np.float32)
