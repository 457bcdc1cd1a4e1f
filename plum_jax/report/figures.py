"""Figures as the studies' pages write them: no zero before the point, an error or an interval behind a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

Z = 1.96  # 97.5% of the normal distribution, as the intervals over users have it


def plain(value: float, digits: int = 4) -> str:
    """A figure, such as ".0957"."""
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{digits}f}"


def signed(value: float, digits: int = 4) -> str:
    """A difference, such as "+.0131" or "−.0004"."""
    return f"{value:+.{digits}f}".replace("0.", ".", 1).replace("-", "−")


def mean_and_error(values: Sequence[float], digits: int = 4) -> str:
    """The mean, and its standard error over seeds where there are several."""
    shown = plain(float(np.mean(values)), digits)
    if len(values) == 1:
        return shown
    return f"{shown} ± {plain(float(np.std(values, ddof=1) / np.sqrt(len(values))), digits)}"


def difference(values: Sequence[float], digits: int = 4) -> str:
    """The mean of differences that are paired by seed and, with several seeds, its 95% interval by Student's t."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return signed(mean, digits)
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{signed(mean, digits)} [{signed(mean - half, digits)}, {signed(mean + half, digits)}]"


def difference_over_users(rows: Sequence[Mapping[str, Any]], name: str, digits: int = 4) -> str:
    """The mean over seeds of differences that have 95% intervals over users, with `interval_over_users`.

    Args:
      rows: a seed each, with `name`, "<name>_low" and "<name>_high".
      name: of the difference.
      digits: behind the point.
    """
    mean = float(np.mean([row[name] for row in rows]))
    low, high = interval_over_users(rows, name)
    return f"{signed(mean, digits)} [{signed(low, digits)}, {signed(high, digits)}]"


def interval_over_users(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, float]:
    """Ends of the mean difference's 95% interval, with the error over users and that over seeds.

    The seeds share their users, so that the error over users does not fall with their number; that of the seeds does.
    Where each seed has users of its own it is a little too wide.
    """
    found, low, high = (np.array([row[name + end] for row in rows]) for end in ("", "_low", "_high"))
    of_users = np.mean(high - low) / (2 * Z)
    of_seeds = np.std(found, ddof=1) / np.sqrt(len(found)) if len(found) > 1 else 0.0
    mean, half = float(found.mean()), Z * float(np.hypot(of_users, of_seeds))
    return mean - half, mean + half
