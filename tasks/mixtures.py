"""Mixtures: which tasks are trained on together, and how often each is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import seqio


def cpt_mixture(
    behaviour: Sequence[seqio.Task],
    metadata: Sequence[seqio.Task],
    behaviour_rate: float = 0.5,
    name: str = "cpt",
    text: Sequence[seqio.Task] = (),
    text_rate: float = 0.1,
) -> seqio.Mixture:
    """Continued pre-training: user behaviour against item metadata, 50:50 in PLUM (§4.1); tasks of a kind share evenly.

    Rates are of sequences. Where a kind has no task (a corpus without text), the other has its part. Plain text,
    where there is any, has `text_rate` of the whole, and the two kinds divide the rest.

    Raises:
      ValueError: no task at all, or a rate outside of 0..1.
    """
    if not 0 < behaviour_rate < 1:
        raise ValueError(f"mixture {name}: expected 0 < behaviour_rate < 1, got {behaviour_rate}; drop tasks instead")
    if text and not 0 < text_rate < 1:
        raise ValueError(f"mixture {name}: expected 0 < text_rate < 1, got {text_rate}; drop the text instead")
    rest = 1.0 - text_rate if text else 1.0
    rates = {task.name: rest * behaviour_rate / len(behaviour) for task in behaviour}
    rates |= {task.name: rest * (1 - behaviour_rate) / len(metadata) for task in metadata}
    rates |= {task.name: text_rate / len(text) for task in text}
    return mixture(name, [*behaviour, *metadata, *text], rates)


def mixture(name: str, tasks: Sequence[seqio.Task], rates: Mapping[str, float] | None = None) -> seqio.Mixture:
    """A mixture, not registered, of any tasks; equal rates where none are given.

    Raises:
      ValueError: no task, two of one name, or rates that do not name exactly these tasks.
    """
    import seqio  # TensorFlow's import takes seconds that only materialising should pay

    names = [task.name for task in tasks]
    rates = dict.fromkeys(names, 1.0) if rates is None else rates
    if not names or len(set(names)) != len(names) or set(rates) != set(names):
        raise ValueError(f"mixture {name}: expected different tasks and a rate for each, got {names} and rates {rates}")
    return seqio.Mixture(name, [(task, rates[task.name]) for task in tasks])
