"""Beginning with a trained trunk: extracted for one application, or retrained over a catalogue with new titles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.corpus.schema import Corpus
from plum_jax.stages import Stages
from plum_jax.training import saved_params
from plum_jax.training.step import FromHost

NewRows = Literal["mean", "metadata"]
NEIGHBOURS = 3  # whose rows a new title takes, as `item_history.ranking`
_NEW = 256  # titles whose likeness to all others is in memory at a time
ROWS = ("item_vectors", "ids")  # path of the items' own rows
SHARES = "layer_bias"


@dataclasses.dataclass(frozen=True)
class Inherited:
    """Parameters of a trained trunk: layers that both have, item rows by the items' names; the rest begins at random.

    A trunk of fewer layers takes the lowest ones: that is how one is extracted.

    Attributes:
      name: of the trunk in its run.
      run: MODEL_DIR of another run, whose catalogue may be another; None: the same run.
      new_rows: of titles that it did not have (Netflix, cold start): "mean", the mean row and noise; "metadata", the
        mean row of the nearest titles by features, weighed by their likeness, and noise.
      noise: standard deviation of the noise, as a multiple of the rows' own.
    """

    name: str = "trunk"
    run: str | None = None
    new_rows: NewRows = "metadata"
    noise: float = 0.1

    def __post_init__(self) -> None:
        if self.new_rows not in get_args(NewRows):
            raise ValueError(f"expected new_rows to be one of {get_args(NewRows)}, got {self.new_rows!r}")

    def initialiser(
        self, init: Callable[[jax.Array], Any], stages: Stages, features: np.ndarray
    ) -> tuple[FromHost, str]:
        """What training begins with, and the fingerprint of the inherited parameters.

        Args:
          init: random parameters, some of which are replaced.
          stages: of the run that inherits.
          features: float32 [N, F] of its items.

        Raises:
          ValueError: there is no trained trunk of that name.
        """
        run = stages.directory if self.run is None else epath.Path(self.run)
        directory = run / "systems" / self.name / "params"
        if not directory.exists():
            raise ValueError(
                f"there is no trained trunk {self.name!r} to begin with in {run}: train it first "
                "(gin/run/trunk.gin, with the same MODEL_DIR)"
            )
        old = saved_params.load_params(directory)
        corpus = stages.corpus if self.run is None else Corpus.load(run / "corpus")
        names, known = stages.corpus.items["item_id"].to_list(), corpus.items["item_id"].to_list()
        number = {name: place for place, name in enumerate(known)}
        old_rows = np.array([number.get(name, -1) for name in names])

        def make(key: jax.Array) -> Any:
            seed = np.asarray(jax.random.key_data(key)).ravel().tolist()
            rows = inherited_rows(old[ROWS[0]][ROWS[1]], old_rows, features, self.new_rows, self.noise, seed)
            return _replaced(jax.jit(init)(key), old, rows)

        return FromHost(make), artifact.tree_fingerprint(old)


def inherited_rows(
    old: np.ndarray, old_rows: np.ndarray, features: np.ndarray, how: NewRows, noise: float, seed: int | list[int]
) -> np.ndarray:
    """float32 [N, D], rows of items of which some are new.

    Args:
      old: float32 [M, D], the rows that there are.
      old_rows: int [N], which of them each item has; -1: it is a new title.
      features: float32 [N, F], of the items, for "metadata".
      how, noise: as in `Inherited`.
      seed: of the noise.

    Raises:
      ValueError: no item is an old one, or "metadata" without features.
    """
    is_new = old_rows < 0
    if is_new.all():
        raise ValueError("none of the items is in the catalogue of the trunk that is to be begun with: item ids differ")
    kept = np.asarray(old, np.float32)[np.maximum(old_rows, 0)]
    own = kept[~is_new]
    if how == "metadata":
        if not features.shape[1]:
            raise ValueError("new rows by 'metadata' need features of items: take 'mean', or set FEATURES")
        kept[is_new] = weighted_mean(own, features[~is_new], features[is_new])
    else:
        kept[is_new] = own.mean(axis=0)
    draws = np.random.default_rng(seed).normal(size=(is_new.sum(), kept.shape[1]))
    kept[is_new] += (noise * own.std() * draws).astype(np.float32)
    return kept


def weighted_mean(rows: np.ndarray, features: np.ndarray, of_new: np.ndarray) -> np.ndarray:
    """float32 [n, D]: of each new title the mean of the rows [M, D] of its nearest titles by cosine of their features
    [M, F], weighed by it (none below 0; evenly where none is above).
    """
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (features, of_new)]
    found = np.empty((len(of_new), rows.shape[1]), np.float32)
    nearest = min(NEIGHBOURS, len(rows))
    for start in range(0, len(of_new), _NEW):
        likeness = unit[1][start : start + _NEW] @ unit[0].T
        best = np.argsort(-likeness, axis=1, kind="stable")[:, :nearest]
        weights = np.maximum(np.take_along_axis(likeness, best, axis=1), 0) + 1e-9
        weights /= weights.sum(axis=1, keepdims=True)
        found[start : start + _NEW] = np.einsum("nk,nkd->nd", weights, rows[best])
    return found


def _replaced(fresh: Any, old: Mapping[str, Any], rows: np.ndarray) -> Any:
    """Fresh parameters with the old ones where path and shape are the same, the items' rows, and of the shares of more
    layers those of the layers that are left.
    """
    there = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(old)}

    def start(path: Any, box: Any) -> Any:
        value = np.asarray(nn.unbox(box))
        names = tuple(getattr(part, "key", "") for part in path)
        found = there.get(jax.tree_util.keystr(path))
        if names == ROWS:
            found = rows
        elif names[-1] == SHARES and found is not None:
            found = found[: len(value)]
        if found is None or found.shape != value.shape:
            return box
        value = np.asarray(found, value.dtype)
        return box.replace_boxed(value) if isinstance(box, nn.meta.AxisMetadata) else value

    return jax.tree_util.tree_map_with_path(start, fresh, is_leaf=lambda x: isinstance(x, nn.meta.AxisMetadata))
