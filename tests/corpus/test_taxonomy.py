"""A taxonomy of paths or of a table, its levels and ancestors by following parents, and what is no taxonomy."""

import itertools

import numpy as np
import polars as pl
import pytest

from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.taxonomy import NONE, ItemCategories, Taxonomy, read_taxonomy

PATHS = ["Shop > Light > Lamps", "Shop > Seats", "Garden", "Shop > Light > Bulbs > Tubes"]
TABLE = {
    "category_id": ["7", "3", "9", "4"],
    "parent_id": ["3", None, "7", "3"],
    "name": ["Light", "Shop", "Lamps", "Seats"],
}


@pytest.fixture(scope="module")
def taxonomy():
    return Taxonomy.from_paths(PATHS)


def upwards(taxonomy, category):
    found = []
    while category != NONE:
        found.append(category)
        category = int(taxonomy.parent[category])
    return found


def test_every_beginning_of_a_path_is_a_category(taxonomy):
    assert set(taxonomy.ids) == {
        *PATHS, "Shop", "Shop > Light", "Shop > Light > Bulbs",
    }  # fmt: skip
    for one, name, parent in zip(taxonomy.ids, taxonomy.names, taxonomy.parent, strict=True):
        above = "" if parent == NONE else f"{taxonomy.ids[parent]} > "
        assert one == above + name
    assert {one for one, leaf in zip(taxonomy.ids, taxonomy.is_leaf, strict=True) if leaf} == set(PATHS)


def test_levels_and_ancestors_are_those_that_parents_lead_to(taxonomy):
    for category in range(len(taxonomy)):
        line = upwards(taxonomy, category)
        assert taxonomy.level[category] == len(line)
        assert [one for one in taxonomy.lines[category] if one != NONE] == line[::-1]
        for level in range(1, 6):
            wanted = line[-level] if level <= len(line) else category
            assert taxonomy.at_level(level)[category] == wanted
    pairs = np.array(list(itertools.product(range(len(taxonomy)), repeat=2)))
    for (a, b), found in zip(pairs, taxonomy.common(pairs[:, 0], pairs[:, 1]), strict=True):
        both = [one for one in upwards(taxonomy, a) if one in upwards(taxonomy, b)]
        assert found == (both[0] if both else NONE)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv"])
def test_a_table_is_read_as_its_paths_are(tmp_path, suffix):
    file = tmp_path / f"categories.{suffix}"
    frame = pl.DataFrame(TABLE)
    if suffix == "parquet":
        frame.write_parquet(file)
    else:
        frame.write_csv(file, separator="\t" if suffix == "tsv" else ",")
    found = read_taxonomy(file)
    assert found.ids == ("7", "3", "9", "4") and found.parent.tolist() == [1, NONE, 0, 1]
    of_paths = Taxonomy.from_paths(["Shop > Light > Lamps", "Shop > Seats"])
    lines = {tuple(found.names[one] for one in line if one != NONE) for line in found.lines}
    assert lines == {tuple(of_paths.names[one] for one in line if one != NONE) for line in of_paths.lines}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"parent_id": ["9", None, "7", "3"]}, "row 1, field 'parent_id': category '7' is in a cycle or below one"),
        ({"parent_id": ["3", "3", "7", "3"]}, "is in a cycle"),
        ({"parent_id": ["3", None, "8", "3"]}, "row 3, field 'parent_id': category '9' is an orphan: .* category '8'"),
        ({"category_id": ["7", "3", "7", "4"]}, "row 3: category '7' has no id or stands there twice"),
    ],
)
def test_a_cycle_an_orphan_and_an_id_twice_are_one_error(changed, message):
    with pytest.raises(CorpusError, match=message):
        Taxonomy.from_table(pl.DataFrame({**TABLE, **changed}))


def test_what_is_no_taxonomy_of_paths_or_no_table_is_one_error(tmp_path):
    with pytest.raises(CorpusError, match="row 2: 'Shop' stands twice in the path 'Shop > Light > Shop'"):
        Taxonomy.from_paths(["Shop", "Shop > Light > Shop"])
    with pytest.raises(CorpusError, match="row 1: an empty name in the path 'Shop >  > Lamps'"):
        Taxonomy.from_paths(["Shop >  > Lamps"])
    with pytest.raises(CorpusError, match="expected columns category_id, parent_id, name"):
        Taxonomy.from_table(pl.DataFrame({"id": ["1"]}))
    with pytest.raises(CorpusError, match="there is no such file"):
        read_taxonomy(tmp_path / "none.csv")


def corpus(given) -> Corpus:
    events = pl.DataFrame({"user": [0], "item": [0], "time": [None]}).cast(
        {"user": pl.Int32, "item": pl.Int32, "time": pl.Int64}
    )
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(len(given))], "where": given})
    return Corpus("shop", items, pl.DataFrame({"user_id": ["u"]}), events, ("where",), clock="order")


def test_items_stand_under_their_first_path_or_the_category_of_the_table(tmp_path):
    found, of_item = ItemCategories("where").of(corpus(["Shop > Light | Toys > Toys", None, "Shop"]))
    assert [NONE if one == NONE else found.ids[one] for one in of_item] == ["Shop > Light", NONE, "Shop"]
    file = tmp_path / "table.csv"
    pl.DataFrame(TABLE).write_csv(file)
    found, of_item = ItemCategories("where", table=str(file)).of(corpus(["9", "3"]))
    assert [found.names[one] for one in of_item] == ["Lamps", "Shop"]
    with pytest.raises(CorpusError, match="field 'where': item 'i1' stands under '5', which is no category"):
        ItemCategories("where", table=str(file)).of(corpus(["9", "5"]))
    with pytest.raises(CorpusError, match="have no text 'path'; they have"):
        ItemCategories("path").of(corpus(["9"]))
    with pytest.raises(CorpusError, match="no item of 'shop' has a category"):
        ItemCategories("where").of(corpus([None, ""]))
