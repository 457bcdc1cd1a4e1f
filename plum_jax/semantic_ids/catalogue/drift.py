"""Drift: whether codebooks still fit the items that come, and what to do where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from plum_jax.semantic_ids.fit_statistics import FitStatistics
from plum_jax.semantic_ids.table import LEVEL_LETTERS

DRIFT_FILE = "drift.json"
DRAWS = 20  # of what chance gives
# Above the second number: retrain; above the first: watch. Usage alone never says retrain: a hundred new films of one
# genre use few codes, and those fit them well.
ERROR_RATIO = (1.25, 1.5)
LARGE_ERRORS = (0.03, 0.10)
CROWDED = (0.01, 0.05)
DIVERGENCE = 0.1  # bits beyond chance
UNUSED_CODES = 0.05
TINY = 1e-30  # in place of 0 below a fraction


def drift(
    old: FitStatistics, codes: np.ndarray, squared_error: np.ndarray, placed: Mapping[str, Any], seed: int = 0
) -> dict[str, Any] | None:
    """New items against those that the codebooks were made for, as JSON values; None where there are no new items.

    Args:
      old: of the table.
      codes: int32 [M, L], as the codec assigns them.
      squared_error: float32 [M], what all levels leave of the latents.
      placed: counts of `place`.
      seed: of what chance gives.

    Returns:
      "error" (mean squared error as a share of the old latents' variance, old and new, and their ratio),
      "large_errors" (share of new items above the old ones' 99th percentile; 0.01 if nothing has changed), "levels"
      (of code usage: divergence of Jensen and Shannon between old and new in bits, what two samples of these sizes from
      the old usage give, and the share of new items on codes that no old item has), "unshared" (share of the items
      whose codes no other has, old and new), "crowded" (share that has no SID of its own though the policy gives one),
      "verdict" ("fine", "watch" or "retrain") and "advice".
    """
    if not len(codes):
        return None
    variance = max(old.variance, TINY)
    error = float(squared_error.mean(dtype=np.float64))
    report: dict[str, Any] = {
        "old_items": old.num_items,
        "new_items": len(codes),
        "error": {"old": old.error / variance, "new": error / variance, "ratio": _ratio(error, old.error)},
        "large_errors": float((squared_error > old.error_quantiles[99]).mean()),
        "levels": [
            {"level": LEVEL_LETTERS[level]} | _usage(counts, codes[:, level], np.random.default_rng((seed, level)))
            for level, counts in enumerate(old.code_counts)
        ],
        "unshared": {"old": old.unshared, "new": int(placed["unshared_items"]) / len(codes)},
        "crowded": placed.get("crowded_items", 0) / len(codes),
    }
    return report | _advice(report)


def drift_table(report: Mapping[str, Any]) -> str:
    """The report as text."""
    lines = [f"{'drift':28s}{'old items':>12s}{'new items':>12s}"]
    lines.append(f"{'items':28s}{report['old_items']:>12,}{report['new_items']:>12,}")
    error, unshared = report["error"], report["unshared"]
    lines.append(f"{'error / variance':28s}{error['old']:>12.4f}{error['new']:>12.4f}   ratio {error['ratio']:.2f}")
    lines.append(f"{'above the 99th percentile':28s}{0.01:>12.2%}{report['large_errors']:>12.2%}")
    lines.append(f"{'codes of their own':28s}{unshared['old']:>12.2%}{unshared['new']:>12.2%}")
    lines.append(f"{'crowded':28s}{'':12s}{report['crowded']:>12.2%}")
    for level in report["levels"]:
        lines.append(
            f"level {level['level']}: usage differs by {level['divergence']:.3f} bits (chance "
            f"{level['divergence_by_chance']:.3f}), {level['on_unused_codes']:.2%} of new items on codes of no old item"
        )
    return "\n".join([*lines, f"{report['verdict']}: {report['advice']}"])


def jensen_shannon(old: np.ndarray, new: np.ndarray) -> float:
    """Divergence (bits, 0 to 1) of two usages of codes, counts [W] each."""
    shares = np.stack([old / old.sum(), new / new.sum()])
    mean = np.broadcast_to(shares.mean(axis=0), shares.shape)
    used = shares > 0
    return float(np.sum(shares[used] * np.log2(shares[used] / mean[used])) / 2)


def _usage(counts: np.ndarray, codes: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    new = np.bincount(codes, minlength=len(counts))
    shares = counts / counts.sum()
    by_chance = [
        jensen_shannon(rng.multinomial(counts.sum(), shares), rng.multinomial(len(codes), shares)) for _ in range(DRAWS)
    ]
    return {
        "divergence": jensen_shannon(counts, new),
        "divergence_by_chance": float(np.mean(by_chance)),
        "on_unused_codes": float(new[counts == 0].sum() / len(codes)),
    }


def _ratio(new: float, old: float) -> float:
    """How often `old` goes into `new`; where items fit without any error, 1 if the new ones do so too."""
    return max(new, TINY) / max(old, TINY)


def _advice(report: Mapping[str, Any]) -> dict[str, str]:
    two_standard_errors = 2 * np.sqrt(0.01 * 0.99 / report["new_items"])  # few items are above by chance
    found = [
        (f"the error is {report['error']['ratio']:.2f} times the old items'", report["error"]["ratio"], *ERROR_RATIO),
        (
            f"{report['large_errors']:.1%} have an error that 1% of the old items have",
            report["large_errors"] - two_standard_errors,
            *LARGE_ERRORS,
        ),
        (f"{report['crowded']:.1%} find no Semantic ID free (too few codes)", report["crowded"], *CROWDED),
    ]
    for level in report["levels"]:
        beyond_chance = level["divergence"] - level["divergence_by_chance"]
        usage = f"codes of level {level['level']} are used otherwise ({level['divergence']:.2f} bits)"
        found.append((usage, beyond_chance, DIVERGENCE, np.inf))
        unused = f"{level['on_unused_codes']:.1%} have a code of level {level['level']} that no old item has"
        found.append((unused, level["on_unused_codes"], UNUSED_CODES, np.inf))
    retrain = [reason for reason, value, _, limit in found if value > limit]
    watch = [reason for reason, value, limit, _ in found if value > limit]
    if retrain:
        return {
            "verdict": "retrain",
            "advice": f"retrain the codebooks, and the model on their IDs: {'; '.join(retrain)}",
        }
    if watch:
        return {"verdict": "watch", "advice": f"the codebooks serve, but watch the next items: {'; '.join(watch)}"}
    return {"verdict": "fine", "advice": "the codebooks fit the new items as they fit the old ones"}
