"""A shop's items, and files of them: what the tests of this directory share."""

import dataclasses
import pathlib

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from plum_jax.corpus.features import FeatureBlock, ItemFeatures
from plum_jax.corpus.schema import Corpus
from plum_jax.corpus.splits import LeaveOneOut, Split

OLD, NEW = 600, 400
DIMS = {"text": 8, "behaviour": 5}
POLICIES = ("keep", "extra_digit", "reassign")


@dataclasses.dataclass(frozen=True)
class Items:
    """Ids and features of items; row i of every array is item i."""

    ids: list[str]
    features: ItemFeatures

    def take(self, rows: np.ndarray) -> "Items":
        return Items([self.ids[row] for row in rows], self.features.take(rows))


def draw(num_items: int, seed: int, first: int, shift: float = 0.0) -> Items:
    """Items around twelve centres, every ninth without behaviour; `shift` moves them to where no centre is."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 12, num_items)
    present = rng.random(num_items) > 1 / 9
    blocks = []
    for number, (name, dim) in enumerate(DIMS.items()):
        centres = np.random.default_rng(100 + number).normal(size=(12, dim))
        values = centres[kind] + 0.4 * rng.normal(size=(num_items, dim)) + shift * (-1) ** np.arange(dim)
        has = np.ones(num_items, bool) if name == "text" else present
        blocks.append(FeatureBlock(name, np.where(has[:, None], values, 0).astype(np.float32), has))
    return Items([f"v{first + i}" for i in range(num_items)], ItemFeatures(tuple(blocks)))


def corpus_of(items: Items) -> Split:
    """A corpus of these items, in which every user watches some."""
    num_items = len(items.ids)
    users = np.repeat(np.arange(50, dtype=np.int32), 8)
    watched = np.random.default_rng(5).integers(0, num_items, len(users)).astype(np.int32)
    return LeaveOneOut().split(
        Corpus(
            name="shop",
            items=pl.DataFrame({"item_id": items.ids}),
            users=pl.DataFrame({"user_id": [f"u{u}" for u in range(50)]}),
            events=pl.DataFrame({"user": users, "item": watched, "time": np.tile(np.arange(8), 50)}),
            item_features=(),
        )
    )


def write_items(path: pathlib.Path, items: Items, **columns: pa.Array) -> pathlib.Path:
    """The items as a file of new items, in row groups of 37; `columns` take the place of those of the same name."""
    table = {"item_id": pa.array(items.ids)}
    for block in items.features.blocks:
        rows = [list(row) if has else None for row, has in zip(block.values, block.present, strict=True)]
        table[block.name] = pa.array(rows, pa.list_(pa.float32()))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table | columns), path, row_group_size=37)
    return path


def together(first: Items, second: Items) -> Items:
    """The items of both."""
    blocks = [
        FeatureBlock(a.name, np.concatenate([a.values, b.values]), np.concatenate([a.present, b.present]))
        for a, b in zip(first.features.blocks, second.features.blocks, strict=True)
    ]
    return Items(first.ids + second.ids, ItemFeatures(tuple(blocks)))
