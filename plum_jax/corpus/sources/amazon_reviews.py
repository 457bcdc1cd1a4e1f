"""Amazon Reviews as McAuley's group publishes them: JSON lines of 2014, 2018 and 2023."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import html
import json
from typing import Any, Literal

import polars as pl
from tqdm import tqdm

from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.sources import assembly
from plum_jax.corpus.sources.bad_rows import BadRows, OnBadRow
from plum_jax.corpus.sources.events import EventColumns, read_events
from plum_jax.corpus.sources.files import LINE, ROW, DataFile, open_file, open_lines
from plum_jax.corpus.sources.parts import file_hashes

_PATH_SEPARATOR = " > "


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The keys of one year's JSON objects; `python_literals`: metadata are not JSON but Python."""

    user: str
    item: str
    rating: str
    time: str
    time_unit: str
    brand: str
    categories: str
    python_literals: bool


_LAYOUTS = {
    "2014": _Layout("reviewerID", "asin", "overall", "unixReviewTime", "s", "brand", "categories", True),
    "2018": _Layout("reviewerID", "asin", "overall", "unixReviewTime", "s", "brand", "category", False),
    "2023": _Layout("user_id", "parent_asin", "rating", "timestamp", "ms", "store", "categories", False),
}

_PRODUCT: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "category_path": pl.String(),
    "categories": pl.List(pl.String()),
}


@dataclasses.dataclass(frozen=True)
class AmazonReviews:
    """Products (title, brand, category path) and reviews as events (rating, unix time).

    Identical reviews (user, product, time) count once. A product's categories are those of its first category path.

    Attributes:
      layout: year of the release: "2014", "2018" or "2023".
      reviews_path: e.g. reviews_Beauty.json.gz, reviews_Beauty_5.json.gz, All_Beauty.jsonl.
      metadata_path: e.g. meta_Beauty.json.gz, meta_All_Beauty.jsonl.
      k_core: users and products with fewer reviews are left out, until none is; 1 keeps all.
      on_bad_row: "error" or "skip" (count and print). The published files do hold products twice, and reviews of
        products that the metadata lack.
    """

    layout: Literal["2014", "2018", "2023"]
    reviews_path: str
    metadata_path: str
    k_core: int = 5
    on_bad_row: OnBadRow = "error"

    def inputs(self) -> dict[str, str]:
        """Hashes of the files, so that a stage knows when one of them has changed."""
        return file_hashes([self.reviews_path, self.metadata_path])

    def read(self) -> Corpus:
        """Reads the files.

        Raises:
          CorpusError: a file, key or row is not as expected; says which, and what to do.
        """
        keys = _LAYOUTS.get(self.layout)
        if keys is None:
            raise CorpusError(f"there is no layout {self.layout!r} of Amazon Reviews; known are {list(_LAYOUTS)}")
        columns = EventColumns(
            user=keys.user, item=keys.item, time=keys.time, time_unit=keys.time_unit, engagement={"rating": keys.rating}
        )
        bad_rows = BadRows(self.on_bad_row)
        with contextlib.ExitStack() as stack:
            skip = self.on_bad_row == "skip"
            reviews = open_file(self.reviews_path, stack, skip_wrong_encoding=skip)
            metadata = open_lines(self.metadata_path, stack, skip_wrong_encoding=skip)
            events = read_events(reviews, columns, "events", "", bad_rows)
            once = events.unique(["user_id", "item_id", "time"], keep="first", maintain_order=True)
            if once.height < events.height:
                bad_rows.problems["repeated review"] = events.height - once.height
            return assembly.assemble(
                f"Amazon Reviews {self.layout}",
                once,
                reviews,
                user_column=keys.user,
                item_column=keys.item,
                bad_rows=bad_rows,
                clock="absolute",
                items=_items(metadata, keys, once["item_id"], bad_rows),
                minimum_history=self.k_core,
                minimum_item_events=self.k_core,
            )


def _items(file: DataFile, keys: _Layout, reviewed: pl.Series, bad_rows: BadRows) -> assembly.Side:
    """The products of the metadata that somebody reviewed; the other lines are not even parsed."""
    if keys.python_literals:
        product = pl.col("line").str.extract(rf"""'{keys.item}':\s*['"]([^'"]+)['"]""")
    else:
        product = pl.col("line").str.json_path_match(f"$.{keys.item}")
    lines = file.select({"line": LINE}).filter(product.is_null() | product.is_in(reviewed.cast(pl.String).implode()))
    frame = bad_rows.drop_broken(lines.collect(engine="streaming"), file)
    parsed = [_parse(line, keys) for line in tqdm(frame["line"], desc="metadata", unit=" products")]
    kind = "not a Python literal" if keys.python_literals else "not JSON"
    frame = frame.select(ROW, ok=pl.Series([product is not None for product in parsed], dtype=pl.Boolean))
    products = pl.DataFrame([product or {} for product in parsed], schema=_PRODUCT)
    frame = bad_rows.drop(
        pl.concat([frame, products], how="horizontal"),
        ~pl.col("ok"),
        kind=kind,
        file=file,
        field=None,
        problem="expected one object a line, with " + keys.item,
    )
    schema = {keys.item if name == "item_id" else name: dtype for name, dtype in _PRODUCT.items()}
    products_file = DataFile(file.path, file.parts, "parquet", frame.rename({"item_id": keys.item}).lazy(), schema, ())
    side = assembly.read_side(
        products_file,
        bad_rows,
        id_name="item_id",
        id_column=keys.item,
        text_fields={name: name for name in ("title", "brand", "category_path")},
        features={"categories": "categories"},
    )
    return dataclasses.replace(side, features=("categories", "brand"))


def _parse(line: str, keys: _Layout) -> dict[str, Any] | None:
    """A product's line by the names of `_PRODUCT`; None if the line cannot be read."""
    try:
        row = ast.literal_eval(line) if keys.python_literals else json.loads(line)
        item = row[keys.item]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return None
    categories = row.get(keys.categories) or []
    if categories and isinstance(categories[0], list):  # 2014 has several paths a product
        categories = categories[0]
    categories = [_clean(category) for category in categories if isinstance(category, str)]
    return {
        "item_id": str(item),
        "title": _clean(row.get("title")),
        "brand": _clean(row.get(keys.brand)),
        "category_path": _PATH_SEPARATOR.join(categories),
        "categories": categories,
    }


def _clean(value: Any) -> str | None:
    return html.unescape(value).strip() if isinstance(value, str) else None
