"""What a study says, in sentences with intervals; and what it cannot say, with the reason in place of a number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from plum_jax.scaling.plots.look import power_of_ten
from plum_jax.scaling.study_results import StudyResults

# An interval of an exponent wider than this tells nothing that one would act on.
WIDEST_EXPONENT = 0.5


@dataclasses.dataclass(frozen=True)
class Headlines:
    """Sentences.

    Attributes:
      said: what is known, the most important first.
      not_identified: what is not, each with its reason.
    """

    said: tuple[str, ...]
    not_identified: tuple[str, ...]


def headlines(results: StudyResults) -> Headlines:
    """The sentences of the first screen."""
    said: list[str] = []
    unknown: list[str] = []
    finished = results.points.filter(results.points["status"] == "finished")
    if not len(finished):
        count = len(results.points)
        unknown.append(
            f"No law: {count} runs are done and none of them finished" if count else "No law: no run is done"
        )
        return Headlines((), (*unknown, *results.missing))
    fits = results.fits
    if fits is None:
        return Headlines((f"{len(finished)} runs have finished; nothing is fitted yet.",), results.missing)
    for method in results.methods():
        _exponents(method, results.confidence, said, unknown)
    rate = fits["rate"]
    if rate:
        said.append(f"Recall@10 is forecast by {rate['chosen']}: {rate['why']}.")
    for entry in fits["missing"]:
        sentence = f"{_capital(entry['what'])}: {entry['why']}"
        if not any(sentence.split(":")[0] in other for other in unknown):
            unknown.append(sentence)
    return Headlines(tuple(said), (*unknown, *results.missing))


def _exponents(method: Mapping[str, Any], confidence: float, said: list[str], unknown: list[str]) -> None:
    if method["a"] is None:
        return
    name, a, b = method["name"], method["a"], method["b"]
    if a["low"] is None or a["high"] - a["low"] > WIDEST_EXPONENT:
        where = "no interval" if a["low"] is None else f"anything between {a['low']:.2f} and {a['high']:.2f} fits"
        unknown.append(f"Exponent a by {name}: {where} ({100 * confidence:g}%)")
        return
    said.append(
        f"By {name}, the best size grows as C^{a['value']:.2f} ({100 * confidence:g}% interval {a['low']:.2f} to "
        f"{a['high']:.2f}) and its tokens as C^{b['value']:.2f} ({b['low']:.2f} to {b['high']:.2f})."
    )


def scope(results: StudyResults) -> str:
    """One line: how many runs, over which compute, under which conventions."""
    points = results.points.drop_nulls("C")
    parts = [f"{len(results.points)} runs"]
    if len(points):
        flops = points["C"].to_numpy()
        parts.append(f"{power_of_ten(flops.min())} to {power_of_ten(flops.max())} FLOPs")
    if results.fits:
        conventions = results.fits["conventions"]
        parts.append(f"N is {conventions['N']}, C is {conventions['C']}")
    return ", ".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
