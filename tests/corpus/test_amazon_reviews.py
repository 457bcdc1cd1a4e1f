"""Amazon Reviews: the three layouts of the same reviews give the same corpus, and its known flaws are found."""

import gzip
import json
import pathlib

import pytest

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources import amazon_reviews

KEYS = {  # user, product, rating, time, brand, categories; factor of time
    "2014": ("reviewerID", "asin", "overall", "unixReviewTime", "brand", "categories", 1),
    "2018": ("reviewerID", "asin", "overall", "unixReviewTime", "brand", "category", 1),
    "2023": ("user_id", "parent_asin", "rating", "timestamp", "store", "categories", 1000),
}
# Users u, v and products A, B, C make a 2-core; w and D do not belong to it.
REVIEWS = [("v", "A", 5.0, 40), ("u", "B", 3.0, 30), ("u", "A", 4.0, 10), ("v", "B", 1.0, 20), ("u", "C", 2.0, 50)]
REVIEWS += [("v", "C", 2.0, 60), ("w", "D", 2.0, 70)]
PRODUCTS = {
    "A": ('Soap &amp; "Brush"', "OPI", ["Beauty", "Bath"]),
    "B": ("Crème", None, []),
    "C": (None, "X", ["Beauty"]),
}
PRODUCTS |= {"D": ("d", None, []), "Z": ("never reviewed", None, [])}


def files(directory: pathlib.Path, layout: str, reviews=None, lines: list[str] | None = None) -> dict:
    user, item, rating, time, brand, categories, factor = KEYS[layout]
    rows = [{user: u, item: i, "text": "it's\nfine", rating: r, time: t * factor} for u, i, r, t in reviews or REVIEWS]
    review_text = "".join(json.dumps(row) + "\n" for row in rows)
    products = []
    for name, (title, maker, path) in PRODUCTS.items():
        product = {"also": ["Q"] if layout == "2014" else [{item: "Q"}], item: name, "title": title, brand: maker}
        product[categories] = [path, ["Other"]] if layout == "2014" else path
        products.append(repr(product) if layout == "2014" else json.dumps(product, ensure_ascii=False))
    suffix = {"2014": "json.gz", "2018": "json", "2023": "jsonl.gz"}[layout]
    paths = {"reviews_path": directory / f"reviews.{suffix}", "metadata_path": directory / f"meta.{suffix}"}
    for path, text in zip(paths.values(), (review_text, "\n".join(lines or products) + "\n"), strict=True):
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    return {"layout": layout, **{name: str(path) for name, path in paths.items()}}


@pytest.mark.parametrize("layout", KEYS)
def test_layouts(tmp_path, layout):
    corpus = amazon_reviews.AmazonReviews(**files(tmp_path, layout), k_core=2).read()
    assert corpus.items.to_dict(as_series=False) == {
        "item_id": ["A", "B", "C"],
        "title": ['Soap & "Brush"', "Crème", None],
        "brand": ["OPI", None, "X"],
        "category_path": ["Beauty > Bath", None, "Beauty"],
        "categories": [["Beauty", "Bath"], None, ["Beauty"]],
    }
    assert corpus.users["user_id"].to_list() == ["v", "u"]
    assert corpus.events.rows() == [
        (0, 1, 20, 1),
        (0, 0, 40, 5),
        (0, 2, 60, 2),
        (1, 0, 10, 4),
        (1, 1, 30, 3),
        (1, 2, 50, 2),
    ]
    assert corpus.item_features == ("categories", "brand") and corpus.clock == "absolute"


def test_k_core_one_keeps_all_that_was_reviewed(tmp_path):
    corpus = amazon_reviews.AmazonReviews(**files(tmp_path, "2018"), k_core=1).read()
    assert corpus.items["item_id"].to_list() == ["A", "B", "C", "D"]


def test_identical_reviews_count_once(tmp_path, capsys):
    source = files(tmp_path, "2018", reviews=[*REVIEWS, REVIEWS[0], REVIEWS[0], ("v", "A", 5.0, 41)])
    corpus = amazon_reviews.AmazonReviews(**source, k_core=1).read()
    assert corpus.num_events == len(REVIEWS) + 1 and corpus.problems == {"repeated review": 2}
    assert "left out 2 rows: repeated review" in capsys.readouterr().out


def test_review_of_an_unknown_product(tmp_path):
    source = files(tmp_path, "2023", reviews=[*REVIEWS, ("u", "Y", 1.0, 5)])
    with pytest.raises(CorpusError, match=r"reviews.jsonl.gz, row 8, field 'parent_asin': unknown item: 'Y'"):
        amazon_reviews.AmazonReviews(**source).read()
    corpus = amazon_reviews.AmazonReviews(**source, k_core=2, on_bad_row="skip").read()
    assert corpus.problems == {"unknown item": 1} and corpus.num_events == 6


@pytest.mark.parametrize(
    "layout, line, kind, message",
    [
        ("2014", "{'asin': 'A', 'title': __import__('os')}", "not a Python literal", "row 4: not a Python literal"),
        ("2018", '{"asin": "A", "title": ', "not JSON", "row 4: not JSON"),
        ("2018", '{"asin": "A", "title": "again"}', "duplicate id", "row 4, field 'asin': duplicate id: 'A' has a row"),
    ],
)
def test_bad_metadata(tmp_path, layout, line, kind, message):
    good = [f"{{'asin': '{name}'}}" if layout == "2014" else f'{{"asin": "{name}"}}' for name in "ABC"]
    source = files(tmp_path, layout, reviews=REVIEWS[:-1], lines=[*good, line])
    with pytest.raises(CorpusError, match=message):
        amazon_reviews.AmazonReviews(**source, k_core=2).read()
    corpus = amazon_reviews.AmazonReviews(**source, k_core=2, on_bad_row="skip").read()
    assert corpus.problems == {kind: 1} and corpus.num_items == 3


def test_wrong_layout_names_the_missing_key(tmp_path):
    source = files(tmp_path, "2018") | {"layout": "2023"}
    with pytest.raises(CorpusError, match="field 'user_id': missing column: The file has .*'reviewerID'"):
        amazon_reviews.AmazonReviews(**source).read()
    with pytest.raises(CorpusError, match="there is no layout '2020'"):
        amazon_reviews.AmazonReviews(**source | {"layout": "2020"}).read()
