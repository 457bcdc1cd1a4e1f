"""Logs in parts, partitions and compressions are the log in one file; what is damaged is one error that says so."""

import bz2
import datetime
import gzip
import lzma

import polars as pl
import pyarrow as pa
import pytest

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.table import Table

ROWS = pl.DataFrame(
    {
        "user": [f"u{n % 7}" for n in range(210)],
        "item": [f"i{n % 11}" for n in range(210)],
        "at": [1_700_000_000 + 60 * (n * 37 % 211) for n in range(210)],
        "stars": [1.0 + n % 5 for n in range(210)],
    }
)


def read(path, **options):
    return Table(str(path), user_id="user", item_id="item", time="at", rating="stars", name="log", **options).read()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "log.csv"
    ROWS.write_csv(path)
    return read(path)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "tsv.gz"])
def test_a_directory_of_parts_and_a_pattern_are_one_table_in_the_order_of_names(tmp_path, whole, ending):
    events = tmp_path / "events"
    (events / "b").mkdir(parents=True)
    for number, start in enumerate(range(0, 210, 30)):
        part, path = ROWS[start : start + 30], events / ("b" if number > 4 else ".") / f"part-{number:03d}.{ending}"
        if ending == "csv":
            part.write_csv(path)
        elif ending == "parquet":
            part.write_parquet(path)
        elif ending == "jsonl":
            part.write_ndjson(path)
        else:
            path.write_bytes(gzip.compress(part.write_csv(separator="\t").encode()))
    (events / "_SUCCESS").touch()
    (events / ".part-000.crc").write_bytes(b"\xff")
    # "b/" sorts before "part-": the rows of its two parts come first.
    reordered = pl.concat([ROWS[150:], ROWS[:150]])
    reordered.write_csv(tmp_path / "log.csv")
    assert read(events).fingerprint == read(tmp_path / "log.csv").fingerprint
    assert sorted(read(f"{events}/**/*.{ending}").events["time"]) == sorted(whole.events["time"])
    assert read(f"{events}/part-*.{ending}").num_events == 150


def test_hive_partitions_are_columns(tmp_path):
    days = [datetime.date(2024, 1, 31), datetime.date(2024, 2, 1)]
    for n, day in enumerate(days):
        folder = tmp_path / f"events/country=n%20l/day={day}"
        folder.mkdir(parents=True)
        ROWS[100 * n : 100 * n + 100].drop("at").write_parquet(folder / "0.parquet")
    corpus = Table(
        str(tmp_path / "events"), user_id="user", item_id="item", time="day", context_features=["country"]
    ).read()
    seconds = [int(datetime.datetime.combine(day, datetime.time(), datetime.UTC).timestamp()) for day in days]
    assert sorted(corpus.events["time"].unique()) == seconds
    assert corpus.events["country"].unique().to_list() == ["n l"] and corpus.name == "events"


def zstd(content: bytes) -> bytes:
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)],
)
def test_compressed_files_are_read_and_damaged_ones_say_what_they_are(tmp_path, whole, suffix, compress):
    content = compress(ROWS.write_csv().encode())
    path = tmp_path / f"log.csv{suffix}"
    path.write_bytes(content)
    assert read(path).fingerprint == whole.fingerprint
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorpusError, match=rf"cannot be decompressed as \{suffix} .*cut short, is damaged"):
        read(path)
    (tmp_path / "plain.csv").write_bytes(content)
    with pytest.raises(CorpusError, match=rf"its name does not say so: name it plain.csv\{suffix}"):
        read(tmp_path / "plain.csv")
    (tmp_path / f"text.csv{suffix}").write_text("user,item,at,stars\n")
    with pytest.raises(CorpusError, match=rf"cannot be decompressed as \{suffix}"):
        read(tmp_path / f"text.csv{suffix}")


def test_a_bad_row_is_named_by_its_part_and_its_row_there(tmp_path):
    for number in range(3):
        part = ROWS[70 * number : 70 * number + 70].with_columns(pl.col("at").cast(pl.String))
        if number == 1:
            part[4, "at"] = "yesterday"
        part.write_csv(tmp_path / f"{number}.csv")
    with pytest.raises(CorpusError, match="got 'yesterday'") as error:
        read(tmp_path)
    assert error.value.file == str(tmp_path / "1.csv") and error.value.row == 6
    assert read(tmp_path, on_bad_row="skip").num_events == 209


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.rename({"stars": "marks"}), r"expected a column of String, as 0.csv has it, got none"),
        (lambda part: None, "expected parts of one format, got"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, change, message):
    ROWS.write_csv(tmp_path / "0.csv")
    changed = change(ROWS)
    if changed is None:
        ROWS.write_parquet(tmp_path / "1.parquet")
    else:
        changed.write_csv(tmp_path / "1.csv")
    with pytest.raises(CorpusError, match=message):
        read(tmp_path)


def test_what_is_not_there_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    for path, message in (
        (tmp_path / "empty", "there is no file of data below it"),
        (tmp_path / "*.parquet", "none matches"),
        (tmp_path / "emty", "did you mean 'empty'"),
    ):
        with pytest.raises(CorpusError, match=message):
            read(path)


TITLES = ['The "Best" Game', '"Quoted', 'Rock "n Roll"', 'A"B', '"', "Plain, with comma", '"Two" words']


def test_quotes_in_a_tsv_are_letters_where_they_are_not_those_of_rfc_4180(tmp_path):
    rows = "".join(f"u{n % 3}\ti{n}\t{100 + n}\t{title}\n" for n, title in enumerate(TITLES))
    (tmp_path / "games.tsv").write_text("user\titem\tat\ttitle\n" + rows)
    source = Table(str(tmp_path / "games.tsv"), user_id="user", item_id="item", time="at", text_fields=["title"])
    assert source.read().items["title"].to_list() == TITLES


def test_quotes_of_rfc_4180_are_quotes_in_a_tsv_too(tmp_path):
    (tmp_path / "games.tsv").write_text('user\titem\tat\ttitle\nu\ti\t1\t"A\tB ""C"""\nu\tj\t2\t"two\nlines"\n')
    source = Table(str(tmp_path / "games.tsv"), user_id="user", item_id="item", time="at", text_fields=["title"])
    assert source.read().items["title"].to_list() == ['A\tB "C"', "two\nlines"]


def test_broken_quotes_in_a_csv_are_one_error_with_the_row(tmp_path):
    path = tmp_path / "games.csv"
    path.write_text('user,item,at,title\nu,i,1,"two\nlines"\nu,j,2,"Broken" title\nu,k,3,x\n')
    source = Table(str(path), user_id="user", item_id="item", time="at", text_fields=["title"])
    with pytest.raises(CorpusError, match=r'broken quoting: a field opens with ".*set quote = None') as error:
        source.read()
    assert error.value.row == 4
    path.write_text('user,item,at,title\nu,i,1,"Never closed\n' + "".join(f"u,k{n},3,x\n" for n in range(9)))
    with pytest.raises(CorpusError, match="broken quoting") as error:
        source.read()
    assert error.value.row == 2
