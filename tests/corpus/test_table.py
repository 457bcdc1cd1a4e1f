"""Table: every format and layout gives the same corpus, and every bad row is named or counted."""

import gzip
import json
import pathlib

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gin
from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources import table

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "gin" / "corpus" / "own_csv_example.gin"


def write(path: pathlib.Path, text: str, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding))
    return str(path)


def rows(corpus) -> list[tuple]:
    """(user id, item id, time) of every event: what was read, whatever the indexes are."""
    users, items = corpus.users["user_id"].to_list(), corpus.items["item_id"].to_list()
    return [(users[u], items[i], t) for u, i, t in corpus.events.select("user", "item", "time").iter_rows()]


EVENTS = [("ann", "x1", 50, 4.5), ("bob", "x2", 10, None), ("ann", "x2", 20, 1.0), ("bob", "x1", 10, 2.0)]
EXPECTED = [("ann", "x2", 20), ("ann", "x1", 50), ("bob", "x2", 10), ("bob", "x1", 10)]
EVENT_FRAME = pl.DataFrame(EVENTS, schema=["who", "what", "when (s)", "stars"], orient="row")


def event_file(directory: pathlib.Path, name: str) -> str:
    path = directory / name
    if name.endswith(".parquet"):
        EVENT_FRAME.write_parquet(path)
    elif ".jsonl" in name:
        lines = EVENT_FRAME.write_ndjson()
        path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    elif name.endswith(".dat"):
        lines = [EVENT_FRAME.columns, *EVENT_FRAME.rows()]
        write(path, "\n".join("::".join("" if c is None else str(c) for c in line) for line in lines) + "\n")
    else:
        text = EVENT_FRAME.write_csv(separator="\t" if ".tsv" in name else ",")
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.replace("\n", "\r\n").encode())
    return str(path)


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.tsv", "e.dat", "e.jsonl", "e.jsonl.gz", "e.parquet"])
def test_every_format_gives_the_same_corpus(tmp_path, name):
    path = event_file(tmp_path, name)
    corpus = table.Table(events_path=path, user_id="who", item_id="what", time="when (s)", rating="stars").read()
    assert rows(corpus) == EXPECTED
    assert corpus.events["rating"].to_list() == [1.0, 4.5, None, 2.0]
    assert corpus.clock == "absolute" and corpus.problems == {}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_one_user_a_row(tmp_path, suffix):
    frame = pl.DataFrame({"u": ["ann", "bob"], "items": [["x2", "x1"], ["x2", "x1"]], "gaps": [[7, 30], [0, 0]]})
    path = tmp_path / f"e.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.with_columns(pl.col("items").list.join("|"), pl.col("gaps").cast(pl.List(str)).list.join("|")).write_csv(
            path
        )
    corpus = table.Table(
        events_path=str(path), layout="users", user_id="u", item_id="items", gap="gaps", history_separator="|"
    ).read()
    assert rows(corpus) == [("ann", "x2", 0), ("ann", "x1", 30), ("bob", "x2", 0), ("bob", "x1", 0)]
    assert corpus.clock == "relative"


def test_order_only(tmp_path):
    path = write(tmp_path / "e.csv", "u,i,n\na,x,2\nb,y,1\na,z,1\na,y,10\n")
    corpus = table.Table(events_path=path, user_id="u", item_id="i", order="n").read()
    assert rows(corpus) == [("a", "z", None), ("a", "x", None), ("a", "y", None), ("b", "y", None)]
    assert corpus.clock == "order"
    corpus = table.Table(events_path=path, user_id="u", item_id="i").read()
    assert [item for _, item, _ in rows(corpus)] == ["x", "z", "y", "y"]


@pytest.mark.parametrize(
    "cell, options",
    [
        ("1700000000", {}),
        ("1700000000.0", {}),
        ("1700000000123", {"time_unit": "ms"}),
        ("14/11/2023 22:13:20", {"time_format": "%d/%m/%Y %H:%M:%S"}),
        ("2023-11-14T23:13:20+0100", {"time_format": "%Y-%m-%dT%H:%M:%S%z"}),
    ],
)
def test_times(tmp_path, cell, options):
    path = write(tmp_path / "e.csv", f"u,i,t\na,x,{cell}\n")
    corpus = table.Table(events_path=path, user_id="u", item_id="i", time="t", **options).read()
    assert corpus.events["time"].to_list() == [1_700_000_000]


def test_datetimes_of_parquet(tmp_path):
    frame = pl.DataFrame({"u": ["a"], "i": ["x"], "t": [1_700_000_000]}).with_columns(pl.from_epoch("t"))
    frame.write_parquet(tmp_path / "e.parquet")
    corpus = table.Table(events_path=str(tmp_path / "e.parquet"), user_id="u", item_id="i", time="t").read()
    assert corpus.events["time"].to_list() == [1_700_000_000]


def three_files(directory: pathlib.Path, **changes) -> table.Table:
    texts = {
        "events.csv": "user_id,item_id,t,stars,device\nu1,a,100,5,tv\nu1,b,200,,phone\nu2,a,150,3,tv\n",
        "items.csv": 'item_id,Film name,kinds,length\nb,"B, ""the"" film",x|y,90\nc,unseen,,\na,Ä,x,100.5\n',
        "users.csv": "user_id,age\nu3,1\nu2,30\nu1,25\n",
    }
    for name, text in texts.items():
        changed = changes.pop(name, text)
        (directory / name).write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    return table.Table(
        **{
            "data_dir": str(directory),
            "events_path": "events.csv",
            "items_path": "items.csv",
            "users_path": "users.csv",
            "time": "t",
            "rating": "stars",
            "context_features": ("device",),
            "text_fields": {"title": "Film name"},
            "item_features": ("kinds", "length"),
            "list_separators": {"kinds": "|"},
            "numbers": ("length", "age"),
            "user_features": ("age",),
        }
        | changes
    )


def test_items_users_and_features(tmp_path):
    corpus = three_files(tmp_path).read()
    assert corpus.items.to_dict(as_series=False) == {
        "item_id": ["b", "c", "a"],
        "title": ['B, "the" film', "unseen", "Ä"],
        "kinds": [["x", "y"], None, ["x"]],
        "length": [90.0, None, 100.5],
    }
    assert corpus.users.to_dict(as_series=False) == {"user_id": ["u2", "u1"], "age": [30, 25]}
    assert corpus.events["device"].to_list() == ["tv", "tv", "phone"]
    assert (corpus.text_fields, corpus.item_features, corpus.user_features, corpus.context_features) == (
        ("title",),
        ("kinds", "length"),
        ("age",),
        ("device",),
    )


def test_unseen_items_go_when_asked(tmp_path):
    assert three_files(tmp_path, minimum_item_events=1).read().items["item_id"].to_list() == ["b", "a"]


def test_items_and_users_made_from_events(tmp_path):
    path = write(tmp_path / "e.csv", "who,what,name,sex\nann,i,First,F\nbob,j,,M\nann,i,Renamed,F\n")
    corpus = table.Table(
        events_path=path, user_id="who", item_id="what", text_fields={"title": "name"}, user_features=("sex",)
    ).read()
    assert corpus.items.to_dict(as_series=False) == {"item_id": ["i", "j"], "title": ["First", None]}
    assert corpus.users.to_dict(as_series=False) == {"user_id": ["ann", "bob"], "sex": ["F", "M"]}


BAD = {
    "unknown item": (
        {"events.csv": "user_id,item_id,t,stars,device\nu1,a,100,5,tv\nu1,zz,200,,tv\n"},
        3,
        "item_id",
        "'zz'",
    ),
    "unknown user": (
        {"events.csv": "user_id,item_id,t,stars,device\nu1,a,100,5,tv\nu9,a,200,,tv\n"},
        3,
        "user_id",
        "'u9'",
    ),
    "bad time": (
        {"events.csv": "user_id,item_id,t,stars,device\nu1,a,100,5,tv\n\nu1,a,1700000000000,5,tv\nu1,a,noon,,tv\n"},
        4,
        "t",
        "'1700000000000'; for milliseconds set time_unit='ms'",
    ),
    "bad number": (
        {"events.csv": "user_id,item_id,t,stars,device\nu1,a,100,many,tv\nu1,a,1,2,tv\n"},
        2,
        "stars",
        "'many'",
    ),
    "missing id": (
        {"events.csv": "user_id,item_id,t,stars,device\nu1,a,100,5,tv\n ,a,200,,tv\n"},
        3,
        "user_id",
        "got nothing",
    ),
    "duplicate id": (
        {"items.csv": "item_id,Film name,kinds,length\nb,,,\na,,,\nb,again,,\n"},
        4,
        "item_id",
        "'b' has a row already",
    ),
    "too many fields": (
        {"events.csv": "user_id,item_id,t,stars,device\nu1,a,100,5,tv\nu1,a,200,,tv,oops\n"},
        3,
        None,
        "more fields than the header",
    ),
    "wrong encoding": (
        {"items.csv": "item_id,Film name,kinds,length\nc,é,,\nb,x,,\na,x,,\n".encode("latin-1")},
        2,
        None,
        "Set its encoding to 'latin-1'",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_row_is_named(tmp_path, kind):
    changes, row, field, what = BAD[kind]
    with pytest.raises(CorpusError) as caught:
        three_files(tmp_path, **changes).read()
    error = caught.value
    assert error.file == str(tmp_path / next(iter(changes))) and error.row == row and error.field == field
    assert kind in str(error) and what in str(error) and "on_bad_row='skip'" in str(error)


@pytest.mark.parametrize("kind", BAD)
def test_bad_rows_are_counted_and_printed(tmp_path, capsys, kind):
    corpus = three_files(tmp_path, **BAD[kind][0], on_bad_row="skip").read()
    count = 2 if kind == "bad time" else 1
    assert corpus.problems == {kind: count}
    assert f"events: left out {count} rows: {kind}" in capsys.readouterr().out
    assert len(rows(corpus)) >= 1


@pytest.mark.parametrize(
    "text, row, field, what",
    [
        ("u\titems\tt\na\tx y\t1 2\nb\t\t\n", 3, "items", "empty history"),
        ("u\titems\tt\na\tx y\t1 2\nb\tx y\t1\n", 3, "t", "lists of unequal length"),
        ("u\titems\tt\na\tx y\t1 2\na\tx\t1\n", 3, "u", "duplicate id"),
        ("u\titems\tt\na\tx y\t1 2\nb\tx y\t1 soon\n", 3, "t", "bad time"),
    ],
)
def test_bad_histories(tmp_path, text, row, field, what):
    source = {"events_path": write(tmp_path / "e.tsv", text), "layout": "users", "user_id": "u"}
    source |= {"item_id": "items", "time": "t"}
    with pytest.raises(CorpusError, match=what) as caught:
        table.Table(**source).read()
    assert (caught.value.row, caught.value.field) == (row, field)
    corpus = table.Table(**source, on_bad_row="skip").read()
    assert corpus.problems == {what: 1}
    assert rows(corpus)[:2] == [("a", "x", 1), ("a", "y", 2)]


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"item_id": "item"},
            r"events.csv, row 1, field 'item': missing column: did you mean 'item_id'\? The file has",
        ),
        ({"rating": "Sterne"}, "field 'Sterne': missing column"),
        ({"items_path": "item.csv"}, r"item.csv: there is no such file; did you mean 'items.csv'\?"),
        ({"gap": "t"}, "name one of time, gap and order"),
        ({"numbers": ("weight",)}, "numbers speaks of 'weight', which is no feature"),
        ({"items_encoding": "latin-1"}, "row 4: wrong encoding: the file is UTF-8 throughout"),
        ({"items_encoding": "klingon"}, "no encoding is called 'klingon'"),
        ({"time_unit": "h"}, "time_unit must be one of"),
        ({"on_bad_row": "ignore"}, "on_bad_row must be 'error' or 'skip'"),
        ({"minimum_history": 9}, "no event is left"),
        ({"item_features": ("time",)}, "item_features may not be called 'time'"),
        ({"users.csv": "user_id,age,age\nu1,1,1\n"}, "the header names 'age' twice"),
        ({"users.csv": ""}, "the file is empty"),
        ({"events.csv": "user_id,item_id,t,stars,device\n"}, "events.csv: no event is left"),
        ({"items.csv": "item_id,Film name,kinds,length\n"}, "field 'item_id': unknown item"),
    ],
)
def test_wrong_description_of_the_files(tmp_path, changes, message):
    with pytest.raises(CorpusError, match=message):
        three_files(tmp_path, **changes).read()


def test_latin1_is_read_when_named(tmp_path):
    items = "item_id,Film name,kinds,length\nb,,,\na,Cérémonie,,\n".encode("latin-1")
    corpus = three_files(tmp_path, **{"items.csv": items}, items_encoding="latin-1").read()
    assert corpus.items["title"].to_list() == [None, "Cérémonie"]


def test_bad_json_line_is_named(tmp_path):
    path = write(tmp_path / "e.jsonl", '{"user_id": 1, "item_id": "é"}\n\n{"user_id": 2, "item_id": \n')
    with pytest.raises(CorpusError, match="not JSON") as caught:
        table.Table(events_path=path).read()
    assert caught.value.row == 3
    assert rows(table.Table(events_path=path, on_bad_row="skip").read()) == [("1", "é", None)]


def test_inputs_change_with_the_content(tmp_path):
    source = three_files(tmp_path)
    before = source.inputs()
    assert len(before) == 3 and source.inputs() == before
    (tmp_path / "users.csv").write_text("user_id,age\nu1,26\nu2,1\n")
    changed = {path for path, value in source.inputs().items() if before[path] != value}
    assert changed == {str(tmp_path / "users.csv")}


def test_a_csv_of_your_own_by_the_example_gin_file(tmp_path):
    random = np.random.default_rng(0)
    lines = [
        f'viewer {u}@example.org,tt{i},"Film, no. {i}",{1 + d % 28:02}/01/2024 20:{d % 60:02},{1 + d % 5}.5'
        for d, (u, i) in enumerate(zip(random.integers(10, size=100), random.integers(30, size=100), strict=True))
    ]
    write(tmp_path / "watched.csv", "\n".join(["who,Film No,film,when (UTC),stars", *lines]))
    gin.clear_config()
    gin.add_config_file_search_path(str(REPOSITORY))
    gin.parse_config_files_and_bindings([str(EXAMPLE)], [f"DATA_DIR = '{tmp_path}'"])
    corpus = gin.query_parameter("%SOURCE").scoped_configurable_fn().read()
    gin.clear_config()
    assert corpus.num_events == 100 and corpus.num_users == 10 and corpus.name == "watched"
    assert set(corpus.items["title"]) == {f"Film, no. {name[2:]}" for name in corpus.items["item_id"]}
    assert corpus.events["time"].min() == 1704139200 and corpus.events["rating"].max() == 5.5
    bindings = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith(("#", "from", "include"))]
    assert len(bindings) <= 10


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("uvwxyz"), st.integers(0, 5)), min_size=1, max_size=60
    ),
    st.integers(1, 3),
    st.integers(0, 3),
)
def test_core_and_order_equal_a_plain_loop(tmp_path_factory, events, minimum_history, minimum_item_events):
    path = tmp_path_factory.mktemp("core") / "e.jsonl"
    path.write_text("".join(json.dumps({"user_id": u, "item_id": i, "t": t}) + "\n" for u, i, t in events))
    source = table.Table(
        events_path=str(path),
        time="t",
        minimum_history=minimum_history,
        minimum_item_events=minimum_item_events,
        duplicates="keep",
    )
    kept, before = events, []
    while kept != before:
        before = kept
        users, items = [u for u, _, _ in kept], [i for _, i, _ in kept]
        kept = [
            (u, i, t) for u, i, t in kept if users.count(u) >= minimum_history and items.count(i) >= minimum_item_events
        ]
    if not kept:
        with pytest.raises(CorpusError, match="no event is left"):
            source.read()
        return
    corpus = source.read()
    first_seen = list(dict.fromkeys(u for u, _, _ in kept))
    assert corpus.users["user_id"].to_list() == first_seen
    assert rows(corpus) == sorted(kept, key=lambda event: (first_seen.index(event[0]), event[2]))


def test_amazon_beauty(shared_data):
    corpus = table.Table(
        data_dir=str(shared_data / "amazon_beauty"),
        events_path="sequences.tsv",
        items_path="items.tsv",
        layout="users",
        item_id="item_ids",
        gap="gap_seconds_since_previous",
        items_id="item_id",
        text_fields=("title",),
        item_features=("attributes",),
        list_separators={"attributes": "|"},
    ).read()
    assert (corpus.num_users, corpus.num_items, corpus.num_events) == (22_363, 12_101, 198_502)
    assert np.diff(corpus.history_offsets).min() == 5
    assert rows(corpus)[:5] == [
        ("1", str(i), t) for i, t in zip(range(1, 6), [0, 0, 9244800, 72144000, 72144000], strict=True)
    ]
    assert corpus.items["attributes"][0].to_list() == ["OPI", "Makeup", "Nails", "Nail Polish"]


def test_movielens_sequences(shared_data):
    corpus = table.Table(
        data_dir=str(shared_data / "ml_1m"),
        events_path="sequences.tsv",
        items_path="movies.dat",
        layout="users",
        item_id="movie_ids",
        time="unix_times",
        items_columns=("movie_id", "title", "genres"),
        items_id="movie_id",
        items_encoding="latin-1",
        text_fields=("title",),
        minimum_item_events=1,
    ).read()
    assert (corpus.num_users, corpus.num_items, corpus.num_events) == (6_040, 3_416, 999_611)
    assert rows(corpus)[:2] == [("1", "3186", 978300019), ("1", "1270", 978300055)]
    assert corpus.items.filter(pl.col("title").str.starts_with("Misérables, Les")).height == 2
