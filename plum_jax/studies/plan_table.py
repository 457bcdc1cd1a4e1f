"""A plan as text to read: one line a cell, the total, what can be learnt from it, and warnings."""

from __future__ import annotations

from typing import Any

# Title, figure, format; a column that no cell has a figure for is not shown.
_COLUMNS = (
    ("cell", "cell_id", "{}"),
    ("parameters", "parameters", "{:,}"),
    ("activated", "activated_parameters", "{:,}"),
    ("non-emb.", "non_embedding_parameters", "{:,}"),
    ("tokens", "tokens", "{:,}"),
    ("epochs", "epochs", "{:.2f}"),
    ("tok/param", "tokens_per_parameter", "{:.0f}"),
    ("rows", "batch_size", "{}"),
    ("steps", "steps", "{:,}"),
    ("rate", "learning_rate", "{:.2e}"),
    ("FLOPs", "flops", "{:.2e}"),
    ("scores", "scores_share", "{:.0%}"),
    ("head", "head_share", "{:.0%}"),
    ("6ND", "flops_6nd", "{:.2e}"),
    ("ms/step", "step_milliseconds", "{:.1f}"),
    ("time", "time", "{}"),
    ("chip-hours", "chip_hours", "{:.3g}"),
    ("cost", "cost", "{:,.2f}"),
    ("HBM", "hbm", "{}"),
    ("", "held_out_text", "{}"),
)


def plan_text(plan: dict[str, Any]) -> str:
    """The whole plan."""
    shown = [_shown(row) for row in plan["cells"]]
    columns = [column for column in _COLUMNS if any(row[column[1]] not in (None, "") for row in shown)]
    if all(row["activated_parameters"] == row["parameters"] for row in shown):
        columns = [column for column in columns if column[1] != "activated_parameters"]
    rows = [[title for title, _, _ in columns]]
    rows += [["-" if row[key] is None else form.format(row[key]) for _, key, form in columns] for row in shown]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    left = [f"left out: {row['size']} in group {row['group']}, {row['reason']}" for row in plan["left_out"]]
    warned = [f"WARNING: {text}" for text in plan["warnings"]]
    return "\n".join([_head(plan), *lines, *left, _foot(plan), plan["expected_errors"]["text"], *warned])


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s or 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _head(plan: dict[str, Any]) -> str:
    data = plan["data"]
    unique = "unknown" if data["unique_tokens"] is None else f"{data['unique_tokens']:,}"
    return (
        f"study {plan['study']}: {plan['total']['cells']} cells, {data['vocab_size']} tokens in the vocabulary, "
        f"{unique} unique tokens, {data['fill']:.1%} of the positions trained on; budgets by "
        f"{'6ND' if plan['flops_convention'] == '6nd' else 'exact FLOPs'}"
    )


def _foot(plan: dict[str, Any]) -> str:
    total, machine = plan["total"], plan["machine"]
    parts = [f"{total['flops']:.3g} FLOPs ({total['flops_6nd']:.3g} by 6ND)", f"{total['tokens']:,} tokens"]
    if total["flops_spent"] < total["flops"]:
        parts[0] += f", {total['flops_spent']:.3g} spent, as trunks are trained once"
    if total["predicted_seconds"] is not None:
        parts.append(f"{duration(total['predicted_seconds'])} of {machine['name']}, one cell after another")
        parts.append(f"{total['chip_hours']:.3g} chip-hours")
    if total["cost"] is not None:
        parts.append(f"cost {total['cost']:,.2f} at {machine['price_per_chip_hour']:g} a chip-hour")
    return "total: " + ", ".join(parts)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    step, seconds, peak = row["step_seconds"], row["predicted_seconds"], row["peak_hbm_bytes"]
    fits = {True: "", False: " NO", None: ""}[row["fits"]]
    return {
        **row,
        "scores_share": row["flops_scores"] / row["flops"],
        "head_share": row["flops_head"] / row["flops"],
        "step_milliseconds": None if step is None else step * 1e3,
        "time": None if seconds is None else duration(seconds),
        "hbm": "NO"
        if row["fits"] is False and peak is None
        else None
        if peak is None
        else f"{peak / 1e9:.2f} GB{fits}",
        "held_out_text": "held out" if row["held_out"] else "",
    }
