"""Rows of a study of ours whose law is known: what `results.jsonl` would hold."""

import numpy as np
from scipy.special import expit

from plum_jax.scaling import design

LAW = design.GuessedLaw(1.2, 40.0, 90.0, 0.34, 0.3)
USERS = 20_000


def recall_of(loss):
    """The planted two-step: recall as a sigmoid of the loss."""
    return 0.003 + 0.55 * expit(-1.8 * (loss - 2.4))


def planted_rows(
    budgets=4, sizes=5, seeds=2, noise=0.003, held_out=1, law=LAW, seed=0, first=12.0, decades=3.0, half_range=4.0
):
    """Rows of an iso-FLOP study around the law's optima; the largest `held_out` budgets are held out."""
    generator = np.random.default_rng(seed)
    rows = []
    for i, budget in enumerate(np.logspace(first, first + decades, budgets)):
        for j, factor in enumerate(np.geomspace(1 / half_range, half_range, sizes)):
            for s in range(seeds):
                n = round(design.optimum(law, budget)[0] * factor)
                d = budget / 6 / n
                loss = float(design.loss(law, n, d) * np.exp(noise * generator.standard_normal()))
                hits = int(generator.binomial(USERS, recall_of(loss)))
                rows.append(
                    {
                        "name": f"b{i:02d}-size{j}-s{s}",
                        "size": f"size{j}",
                        "status": "finished",
                        "reason": "",
                        "budget": float(budget),
                        "seed": s,
                        "held_out": i >= budgets - held_out,
                        "parameters": n,
                        "non_embedding_parameters": round(0.6 * n),
                        "tokens": d,
                        "flops": float(budget),
                        "flops_6nd": float(budget),
                        "loss": loss,
                        "recall@10": hits / USERS,
                        "hits@10": hits,
                        "users": USERS,
                        "wall_seconds": 10.0,
                    }
                )
    return rows
