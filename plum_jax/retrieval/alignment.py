"""Vectors of a retrained model turned into the space of the one before, so that who reads the old ones need not change.

Retraining turns and stretches the space of users and items, and their products stay what they are. Both ways here are
linear maps whose product is the identity, so that every score of the new model stays what it is.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

import numpy as np

How = Literal["orthogonal", "low_rank"]
_LEAST = 1e-6  # of the mean variance: what is flatter is no direction


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """Maps of the new vectors, float64 [D, D] each: `users @ items.T` is the identity.

    Attributes:
      users, items: what vectors `[n, D]` of users and of items are multiplied by.
    """

    users: np.ndarray
    items: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Version:
    """Vectors of one model, float32.

    Attributes:
      users: [U, D].
      items: [N, D].
    """

    users: np.ndarray
    items: np.ndarray

    def aligned(self, by: Alignment) -> Version:
        """The vectors in the old space."""
        return Version((self.users @ by.users).astype(np.float32), (self.items @ by.items).astype(np.float32))


def align(new: Version, old: Version, how: How = "low_rank") -> Alignment:
    """Maps that turn the vectors of `new` to those of `old`.

    "orthogonal": the rotation that takes users and items nearest to the old ones (Procrustes; Schönemann 1966).
    "low_rank": both versions are first brought to the form that their scores alone decide, the singular vectors of
    users times items, each with the square root of the singular value, and the rotation is between these (orthogonal
    low-rank stabilisation, arXiv 2508.07574); then back to the old vectors as they are stored. It also undoes a stretch
    of users that items make up for.

    Args:
      new, old: of the same users and the same items, row by row.
      how: see above.

    Raises:
      ValueError: other numbers of rows, another width, or another way.
    """
    if how not in get_args(How):
        raise ValueError(f"expected how to align one of {get_args(How)}, got {how!r}")
    shapes = [(version.users.shape, version.items.shape) for version in (new, old)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"expected vectors of the same users and items, of one width, got {shapes[0]} and {shapes[1]}")
    if how == "orthogonal":
        rotation = procrustes(_stacked(new.users, new.items), _stacked(old.users, old.items))
        return Alignment(rotation, rotation)
    (of_users, of_items), (old_users, old_items) = _canonical(new), _canonical(old)
    rotation = procrustes(
        _stacked(new.users @ of_users, new.items @ of_items), _stacked(old.users @ old_users, old.items @ old_items)
    )
    return Alignment(of_users @ rotation @ np.linalg.inv(old_users), of_items @ rotation @ np.linalg.inv(old_items))


def procrustes(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """float64 [D, D], the orthogonal R with the least |new R - old|, of rows [n, D] each."""
    left, _, right = np.linalg.svd(new.astype(np.float64).T @ old.astype(np.float64))
    return left @ right


def kept_share(queries: np.ndarray, old_items: np.ndarray, items: np.ndarray, k: int, others: np.ndarray) -> float:
    """How much an old consumer keeps: the mean share of the first k items of `queries` [U, D] among `old_items` [N, D]
    that are among the first k of `others` [U, D] (or of the queries themselves) among `items` [N, D].
    """
    found = [np.argpartition(-(q @ v.T), k - 1, axis=1)[:, :k] for q, v in ((queries, old_items), (others, items))]
    return float(np.mean([np.isin(first, second).mean() for first, second in zip(*found, strict=True)]))


def _stacked(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Rows of both, each kind as heavy as the other."""
    return np.concatenate([part / max(np.linalg.norm(part), 1e-12) for part in (users, items)])


def _canonical(version: Version) -> tuple[np.ndarray, np.ndarray]:
    """Maps [D, D] of users and items to equal, diagonal second moments; their scores stay what they are."""
    roots = []
    for part in (version.users, version.items):
        moment = part.astype(np.float64).T @ part / len(part)
        ridge = _LEAST * np.trace(moment) / len(moment) * np.eye(len(moment))
        roots.append(np.linalg.cholesky(moment + ridge).T)
    left, values, right = np.linalg.svd(roots[0] @ roots[1].T)
    spread = np.sqrt(values)
    return np.linalg.solve(roots[0], left * spread), np.linalg.solve(roots[1], right.T * spread)
