"""How faithful reasons are: does a recommendation need the item of the history that is named more than another one?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plum_jax.evaluation.metrics import paired_bootstrap
from plum_jax.evaluation.system import System
from plum_jax.jobs.chosen import chosen_decoder
from plum_jax.jobs.measured import write_measured
from plum_jax.ragged import Ragged
from plum_jax.retrieval.recommend import rank_items, select_rows
from plum_jax.stages import Data
from plum_jax.systems.generative.reasons import Reasons, Said
from plum_jax.systems.generative.system import FittedDecoder
from tasks.histories import Windows


def faithfulness(
    model_dir: str,
    data: Data,
    systems: Mapping[str, System],
    users: int | None = 500,
    system: str | None = None,
    results_file: str | None = None,
) -> list[dict[str, Any]]:
    """Prints, and writes to MODEL_DIR/faithfulness.json, one row for each way to name a reason; returns the rows.

    Of each test user with two events or more in the prompt, the first recommended item (seen ones removed) is
    explained. A way names one event of the history: "newest"; "shared", what has the rarest values in common with the
    item, by metadata alone; "said", what the model itself names first, where its CPT had explanations; and, as a bound,
    "removal", what costs the item most when it is left out. A row: "named", the users for whom it names one; "drop",
    the mean loss of log-probability (nats of the Semantic ID) without the named event, "drop_others" without another
    of the same history, their difference "faithful" with its 95% interval over users; "first", the share of users for
    whom no other event costs more, and "first_by_chance". Of "said" also "words": the users for whom anything was said
    of what is shared, and "true_words", the share of what is said that both items have.

    Args:
      model_dir: of the run.
      data: what its systems share.
      systems: those of the run.
      users: test users, evenly spread; None: all.
      system: name of the row; None: the last of the table.
      results_file: a study's rows, which also get these; None: none.

    Raises:
      ValueError: no such system, one without prompts, or nobody with two events.
      ItemAttributeError: items without a feature that could be shared.
    """
    stages = data.stages(model_dir)
    name, fitted = chosen_decoder(stages, systems, system, "has no prompts")
    reasons = Reasons(fitted.stages, fitted.params, fitted.cpt)
    windows, items = _explained(fitted, reasons, users)
    drops = reasons.drops(windows, items)
    targets, history = items, reasons.writer.items(windows.history_events)
    costliest = np.array([int(row.argmax()) for row in Ragged(drops, windows.lengths).rows()])
    named = {
        "removal": costliest,
        "newest": windows.lengths - 1,
        "shared": reasons.writer.shared.nearest(targets, history, windows.lengths),
    }
    said = reasons.said(windows, items) if reasons.task is not None else None
    if said is not None:
        named["said"] = np.array([one.place for one in said])
    rows = [{"reason": way, **_figures(places, drops, windows.lengths)} for way, places in named.items()]
    if said is not None:
        rows[-1] |= _true_words(said, reasons, items, Ragged(history, windows.lengths).rows())
    print(_table(rows, len(windows)))
    write_measured(stages, fitted, "faithfulness", rows, results_file, system=name)
    return rows


def _explained(fitted: FittedDecoder, reasons: Reasons, users: int | None) -> tuple[Windows, np.ndarray]:
    """Windows of users with two events or more, and the first item that each gets."""
    stages = fitted.stages
    test = stages.split.evaluation("test")
    test = test.take(select_rows(len(test), users))
    prompts = stages.prompts("test")
    prompts = prompts[np.searchsorted(prompts["user"].to_numpy(), test.user)]
    seen = Ragged.from_series(prompts["seen_items"])
    tokens = Ragged.from_series(prompts["prompt"])
    codes, log_probs = stages.recommender.search(fitted.params, tokens, exclude=seen, description="recommending")
    items = rank_items(codes, log_probs, stages.table, 1, seen)[0][:, 0]
    parts = list(reasons.windows(test))
    windows = Windows(
        **{
            field: np.concatenate([getattr(part, field) for part in parts])
            for field in ("user", "target_event", "history_events", "lengths", "learnt")
        }
    )
    rows = np.flatnonzero((windows.lengths >= 2) & (items >= 0))
    if not len(rows):
        raise ValueError(
            "no test user has two events in the prompt and a recommendation: there is nothing to tell apart"
        )
    return windows.take(rows), items[rows]


def _figures(places: np.ndarray, drops: np.ndarray, lengths: np.ndarray) -> dict[str, Any]:
    """Of one way to name a reason: `places` int [R], -1 where it names none; `drops` float [sum of lengths]."""
    there = np.flatnonzero(places >= 0)
    row: dict[str, Any] = {"named": len(there), "users": len(places)}
    if not len(there):
        return row
    starts = np.cumsum(lengths) - lengths
    own = drops[starts[there] + places[there]]
    others = (np.add.reduceat(drops, starts)[there] - own) / (lengths[there] - 1)
    most = np.maximum.reduceat(drops, starts)[there]
    faithful = paired_bootstrap(own, others)
    row |= {"drop": float(own.mean()), "drop_others": float(others.mean())}
    row |= faithful.named("faithful")
    return row | {"first": float((own >= most).mean()), "first_by_chance": float((1 / lengths[there]).mean())}


def _true_words(said: list[Said], reasons: Reasons, items: np.ndarray, histories: list[np.ndarray]) -> dict[str, Any]:
    """How much of what is said to be shared both items have."""
    shares = []
    for one, item, history in zip(said, items.tolist(), histories, strict=True):
        words = [word.strip() for word in one.words.split(",") if word.strip()]
        if words:
            both = set(reasons.writer.shared.in_common(item, int(history[one.place])))
            shares.append(np.mean([word in both for word in words]))
    return {"words": len(shares), "true_words": float(np.mean(shares)) if shares else None}


def _table(rows: list[dict[str, Any]], users: int) -> str:
    lines = [
        f"{'reason':10s}{'named for':>11s}{'drop, nats':>12s}{'of others':>11s}{'difference':>12s}{'':20s}"
        f"{'the costliest':>15s}{'by chance':>11s}"
    ]
    for row in rows:
        line = f"{row['reason']:10s}{row['named']:5d}/{users:<5d}"
        if row["named"]:
            interval = f"[{row['faithful_low']:+.3f}, {row['faithful_high']:+.3f}]"
            line += f"{row['drop']:+12.3f}{row['drop_others']:+11.3f}{row['faithful']:+12.3f}{interval:>20s}"
            line += f"{row['first']:15.3f}{row['first_by_chance']:11.3f}"
        lines.append(line)
        if row.get("true_words") is not None:
            lines.append(f"  of what is said to be shared, {row['true_words']:.2f} is ({row['words']} users)")
    return "\n".join(lines)
