"""The CrowdFlower judgements in the columns of the Home Depot set: `crowdflower.py FOLDER JUDGEMENTS.parquet`.

Joins the queries' text and split to the judgements, and writes the items beside them, as JUDGEMENTS_items.parquet.
"""

from __future__ import annotations

import pathlib
import sys

import polars as pl


def main(folder: str, judgements: str) -> None:
    """Reads queries.tsv, judgements.tsv and items.tsv of the folder."""
    source, target = pathlib.Path(folder), pathlib.Path(judgements)
    queries, pairs, items = (
        pl.read_csv(source / f"{name}.tsv", separator="\t", quote_char=None, infer_schema=False)
        for name in ("queries", "judgements", "items")
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    joined = pairs.join(queries.rename({"split": "fold"}), on="query_id", how="left", maintain_order="left")
    joined.select("query_id", "query", "item_id", "relevance", "fold").write_parquet(target)
    items.select("item_id", "title").write_parquet(target.with_name(f"{target.stem}_items.parquet"))


if __name__ == "__main__":
    main(*sys.argv[1:])
