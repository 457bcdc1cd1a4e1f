"""What a terminal shows of an analysis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from plum_jax.scaling.analyse import Analysis
from plum_jax.scaling.loss_results import Interval, Method
from plum_jax.scaling.rate_analysis import FormAnalysis, RateAnalysis


def fits_text(analysis: Analysis) -> str:
    """All tables, with what is not identified at the end."""
    runs, settings = analysis.runs, analysis.settings
    counted = ", ".join(f"{count} {fate}" for fate, count in analysis.ledger.runs.items())
    parts = [
        *(f"warning: {runs.source}: {note}" for note in runs.notes),
        f"{runs.source}: {counted}. N is {runs.parameter_convention}, C is {runs.flops_convention}; "
        f"intervals are {100 * settings.confidence:g}%, {settings.draws} draws",
        _table(
            ["loss", "a: N* ~ C^a", "b: D* ~ C^b", "E", "alpha", "beta"], [_method(m) for m in analysis.loss.methods]
        ),
        *_parabolas(analysis),
        *([] if analysis.rate is None else _rates(analysis.rate)),
        *_deadweight(analysis),
        _table(["convention", "runs", "a", "a by parabolas", "alpha", "beta", "E"], list(_conventions(analysis))),
    ]
    if analysis.missing:
        parts.append("not identified:\n" + "\n".join(f"  {m.what}: {m.why}" for m in analysis.missing))
    return "\n\n".join(parts)


def _method(method: Method) -> list[str]:
    row = [method.name, _interval(method.a), _interval(method.b)]
    return row + [_interval(method.parameters.get(name)) for name in ("E", "alpha", "beta")]


def _parabolas(analysis: Analysis) -> Iterator[str]:
    found = [("loss", analysis.loss.iso_flop), ("recall", analysis.rate.iso_flop if analysis.rate else None)]
    for name, fit in found:
        if fit is not None:
            rows = [
                [
                    f"{p.budget:.3g}",
                    str(len(p.points)),
                    _number(p.N, 3),
                    _number(p.D, 3),
                    _number(p.value, 4),
                    p.reason or "yes",
                ]
                for p in fit.parabolas
            ]
            yield _table([f"budget ({name})", "runs", "best N", "D there", name, "accepted"], rows)


def _rates(rate: RateAnalysis) -> Iterator[str]:
    if rate.iso_flop is not None and rate.iso_flop.N is not None:
        line = rate.iso_flop.N
        yield f"recall: best size ~ C^{_interval(Interval(line.exponent, *line.exponent_interval))} by parabolas"
    yield _table(
        ["form of recall", "error on the largest budget", "E", "lack of fit", f"at {rate.flops[-1]:.2g} FLOPs"],
        [_form(form) for form in rate.forms],
    )
    yield f"chosen: {rate.chosen} ({rate.why})" + "".join(f"\nnote: {note}" for note in rate.notes)


def _form(form: FormAnalysis) -> list[str]:
    error = "" if form.trial is None else _number(form.trial.error, 2, sign=True)
    if form.fit is None:
        return [form.form, error, form.why_not, "", ""]
    irreducible = ""
    if form.profile is not None:
        low, high = form.profile.interval
        irreducible = f"{form.fit.irreducible:.3f} [{low:.3f}, {high:.3f}]"
        irreducible += "" if form.profile.identified else " not identified"
    ahead = _interval(Interval(form.rate[-1], form.rate_low[-1], form.rate_high[-1]))
    return [form.form, error, irreducible, f"{form.fit.lack_of_fit_sd:.4f}", ahead]


def _deadweight(analysis: Analysis) -> Iterator[str]:
    if analysis.deadweight:
        rows = [[name, f"{d.flops:.3g}", f"{d.N:.3g}", _percent(d.share)] for name, d in analysis.deadweight.items()]
        yield _table(["size chosen by", "at FLOPs", "N", "compute wasted, by the parametric law"], rows)


def _conventions(analysis: Analysis) -> Iterator[list[str]]:
    for row in analysis.sensitivity:
        figures = (row.a, row.iso_flop_a, row.alpha, row.beta, row.E)
        yield [row.change, str(row.runs), *(_number(f, 3) if f is not None else "-" for f in figures)]


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if not np.isfinite(interval.low):
        return _number(interval.value, 3)
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f}% [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _number(value: float, digits: int, sign: bool = False) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:+.{digits}g}" if sign else f"{value:.{digits}g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    )
