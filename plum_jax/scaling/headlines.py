"""What a study says, in sentences with intervals; and what it cannot say, with the reason in place of a number."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from plum_jax.scaling.plots.look import power_of_ten
from plum_jax.scaling.study_results import StudyResults

METRICS = {"loss": "loss", "recall": "recall@10"}
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
    said += _forecasts(results)
    rate = fits["rate"]
    if rate:
        sealed = ((results.forecast or {}).get("about") or {}).get("form")
        if sealed:
            said.append(f"The sealed forecast of recall@10 is by {sealed['name']} ({sealed['why']}).")
        if not sealed or sealed["name"] != rate["chosen"]:
            said.append(f"A forecast of recall@10 would now be by {rate['chosen']} ({rate['why']}).")
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


def _forecasts(results: StudyResults) -> list[str]:
    """What was forecast of each held-out budget, and how it came out beside the two baselines."""
    if results.score is not None:
        return [_scored(scored, results.score) for scored in results.score["best"]]
    if results.forecast is None:
        return []
    percent = f"{100 * results.forecast['confidence']:g}%"
    return [
        f"Forecast for {power_of_ten(best['budget'])} FLOPs, sealed {str(results.forecast.get('sealed_at'))[:10]}: "
        f"best {name} {_range(best[metric], 'value', percent)}."
        for best in results.forecast["best"]
        for metric, name in METRICS.items()
        if best.get(metric)
    ]


def _scored(scored: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    metric, percent = scored["metric"], f"{100 * score['confidence']:g}%"
    others = [
        f"{name} is off by {errors[metric]:.4f}"
        for name, errors in sorted(score["baseline_errors"].items())
        if errors.get(metric) is not None
    ]
    where = "inside" if scored["inside"] else "OUTSIDE"
    return (
        f"Forecast before the runs: {METRICS[metric]}, {scored['what']}, {_range(scored, 'predicted', percent)}; "
        f"it came out {scored['observed']:.4f}, {where} the interval "
        f"(error {scored['error']:+.4f}; {'; '.join(others) or 'no baseline'})."
    )


def _range(interval: Mapping[str, Any], key: str, percent: str) -> str:
    return f"{interval[key]:.4f} ({percent} interval {interval['low']:.4f} to {interval['high']:.4f})"


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
