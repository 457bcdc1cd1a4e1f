"""A plan as text to read: one line a cell, and the total."""

from __future__ import annotations

from typing import Any

_COLUMNS = (
    ("cell", "cell_id", "{}"),
    ("parameters", "parameters", "{:,}"),
    ("tokens", "tokens", "{:,}"),
    ("epochs", "epochs", "{:.2f}"),
    ("tok/param", "tokens_per_parameter", "{:.0f}"),
    ("rows", "batch_size", "{}"),
    ("steps", "steps", "{:,}"),
    ("rate", "learning_rate", "{:.2e}"),
    ("FLOPs", "flops", "{:.2e}"),
    ("6ND", "flops_6nd", "{:.2e}"),
    ("ms/step", "step_seconds", "{:.1f}"),
    ("time", "predicted_seconds", "{}"),
    ("", "held_out", "{}"),
)


def plan_text(plan: dict[str, Any]) -> str:
    """The whole plan."""
    rows = [[title for title, _, _ in _COLUMNS], *(_cells(row) for row in plan["cells"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    total, data = plan["total"], plan["data"]
    unique = "unknown" if data["unique_tokens"] is None else f"{data['unique_tokens']:,}"
    head = (
        f"study {plan['study']}: {total['cells']} cells, {data['vocab_size']} tokens in the vocabulary, "
        f"{unique} unique tokens, {data['fill']:.1%} of the positions trained on"
    )
    foot = (
        f"total: {total['flops']:.3g} FLOPs ({total['flops_6nd']:.3g} by 6ND), {total['tokens']:,} tokens, "
        f"{duration(total['predicted_seconds'])} of this machine, one cell after another"
    )
    left = [f"left out: {row['size']} in group {row['group']}, {row['reason']}" for row in plan["left_out"]]
    warned = [f"WARNING: {text}" for text in plan.get("warnings", [])]
    return "\n".join([head, *lines, *left, foot, *warned])


def duration(seconds: float) -> str:
    """ "12 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _cells(row: dict[str, Any]) -> list[str]:
    shown = {
        **row,
        "step_seconds": row["step_seconds"] * 1e3,
        "predicted_seconds": duration(row["predicted_seconds"]),
        "held_out": "held out" if row["held_out"] else "",
    }
    return ["-" if shown[key] is None else form.format(shown[key]) for _, key, form in _COLUMNS]
