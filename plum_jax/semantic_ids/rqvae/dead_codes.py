"""Dead codes: codewords that no item uses are put where items are badly served, while training goes on."""

from __future__ import annotations

import dataclasses

import numpy as np

from plum_jax.semantic_ids.assignment import assign
from plum_jax.semantic_ids.rqvae.encoder import encode
from plum_jax.semantic_ids.rqvae.network import Params, RqVaeNetwork


@dataclasses.dataclass(frozen=True, eq=False)
class DeadCodeRestart:
    """`(params, step) -> (params, metrics)`: moves every unused codeword onto the residual of a badly quantised item.

    Level by level: the codes that no item of the sample uses are given residuals of items drawn with probability in
    proportion to their squared error, all different; the level is assigned anew before the next is looked at. The
    optimiser's moments of a moved codeword are left as they are: of a code that got no gradient they have decayed.

    Attributes:
      network: whose codebooks are kept alive.
      blocks, present: a sample of the items, as the network reads them.
      seed: of the draw, folded with step and level.
    """

    network: RqVaeNetwork
    blocks: tuple[np.ndarray, ...]
    present: tuple[np.ndarray, ...]
    seed: int

    def __call__(self, params: Params, step: int) -> tuple[Params, dict[str, float]]:
        residual = encode(self.network, params, self.blocks, self.present)
        moved, restarted = dict(params), 0
        for level in range(len(self.network.codebook_sizes)):
            codebook = np.array(params[f"codebook_{level}"], np.float32)
            first = assign(residual, [codebook])
            dead = np.flatnonzero(np.bincount(first.codes[:, 0], minlength=len(codebook)) == 0)
            error = first.squared_error[:, 0].astype(np.float64)
            dead = dead[: np.count_nonzero(error)]  # no more than there are items that are not served exactly
            if len(dead):
                rng = np.random.default_rng([self.seed, step, level])
                items = rng.choice(len(error), len(dead), replace=False, p=error / error.sum())
                codebook[dead] = residual[items]
                moved[f"codebook_{level}"] = codebook
                restarted += len(dead)
                first = assign(residual, [codebook])
            residual = residual - codebook[first.codes[:, 0]]
        return moved, {"restarted_codes": float(restarted)}
