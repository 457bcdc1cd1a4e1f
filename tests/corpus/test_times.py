"""Times in every form that logs have: the order is as precise as they came; what is no time is an error."""

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources.table import Table
from plum_jax.corpus.sources.times import NANOSECONDS, nanoseconds

START = 1_606_415_618_000_000_000  # 2020-11-26T18:33:38Z


def shuffled_log(tmp_path, times, dtype=None, name="log.csv"):
    """Forty users whose ten events are milliseconds apart, rows in no order; item k is a user's k-th."""
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{step}", times(user, step)) for user in range(40) for step in range(10)]
    frame = pl.DataFrame([rows[i] for i in rng.permutation(len(rows))], schema=["user", "item", "at"], orient="row")
    frame = frame if dtype is None else frame.with_columns(pl.col("at").cast(dtype))
    path = tmp_path / name
    if name.endswith(".parquet"):
        frame.write_parquet(path)
    else:
        frame.write_csv(path)
    return path


def table(path, **options):
    return Table(str(path), user_id="user", item_id="item", time="at", **options)


def moment(user, step):
    return START + user * 3_600_000_000_000 + step * 7_000_000


def iso(ns, zone="Z"):
    whole = datetime.datetime.fromtimestamp(ns // 10**9, datetime.UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9 // 10**6:03d}{zone}"


@pytest.mark.parametrize(
    ("name", "times", "dtype", "options"),
    [
        ("log.csv", lambda u, s: moment(u, s) // 10**6, None, {"time_unit": "ms"}),
        ("log.csv", lambda u, s: moment(u, s) // 10**3, None, {"time_unit": "us"}),
        ("log.csv", moment, None, {"time_unit": "ns"}),
        ("log.csv", lambda u, s: moment(u, s) / 10**9, None, {}),
        ("log.csv", lambda u, s: iso(moment(u, s)), None, {}),
        ("log.csv", lambda u, s: iso(moment(u, s), "").replace("T", " "), None, {}),
        ("log.parquet", moment, pl.Datetime("ns"), {}),
        ("log.parquet", lambda u, s: moment(u, s) // 10**6, pl.Datetime("ms"), {}),
        ("log.parquet", lambda u, s: moment(u, s) // 10**3, pl.Datetime("us", "Europe/Berlin"), {}),
        ("log.parquet", lambda u, s: moment(u, s) / 10**6, pl.Float64, {"time_unit": "ms"}),
        ("log.csv", lambda u, s: iso(moment(u, s), "")[:-4] + f".{s}", None, {"time_format": "%Y-%m-%dT%H:%M:%S%.f"}),
    ],
)
def test_events_within_a_second_are_in_order(tmp_path, name, times, dtype, options):
    corpus = table(shuffled_log(tmp_path, times, dtype, name), **options).read()
    items = corpus.items["item_id"].gather(corpus.events["item"]).to_list()
    assert items == [f"i{step}" for step in range(10)] * 40
    first = corpus.events.filter(pl.col("user") == corpus.users["user_id"].to_list().index("u3"))["time"]
    assert first.to_list() == [moment(3, 0) // 10**9] * 10, "the corpus has whole seconds"


def test_a_fractional_order_is_an_order(tmp_path):
    path = shuffled_log(tmp_path, lambda u, s: s / 10)
    corpus = Table(str(path), user_id="user", item_id="item", order="at").read()
    assert corpus.items["item_id"].gather(corpus.events["item"]).to_list() == [f"i{s}" for s in range(10)] * 40


@settings(max_examples=60, deadline=None)
@given(
    st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(2199, 12, 30)),
    st.integers(-14 * 60, 14 * 60),
    st.sampled_from(["T", " "]),
    st.sampled_from(["{:+03d}:{:02d}", "{:+03d}{:02d}"]),
    st.integers(0, 9),
)
def test_iso_8601_is_what_it_says(when, offset, between, form, digits):
    sign = "-" if offset < 0 else "+"
    zone = form.replace("{:+03d}", sign + "{:02d}").format(*divmod(abs(offset), 60))
    fraction = f"{when.microsecond:06d}000"[:digits]
    cell = f"{when:%Y-%m-%d}{between}{when:%H:%M:%S}{'.' if digits else ''}{fraction}{zone}"
    found = pl.DataFrame({"at": [cell]}).select(nanoseconds(pl.col("at"), pl.String(), "s", None)).item()
    whole = when.replace(microsecond=0, tzinfo=datetime.UTC) - datetime.timedelta(minutes=offset)
    expected = int(whole.timestamp()) * 10**9 + int(fraction.ljust(9, "0"))
    assert found == (expected if expected >= 0 else None)


@given(st.integers(0, 7_258_118_400 * 10**9), st.sampled_from(sorted(NANOSECONDS)))
@settings(max_examples=60, deadline=None)
def test_whole_numbers_lose_nothing_as_text_or_as_numbers(ns, unit):
    number = ns // NANOSECONDS[unit]
    for cells in (pl.Series("at", [number]), pl.Series("at", [str(number)])):
        found = pl.DataFrame([cells]).select(nanoseconds(pl.col("at"), cells.dtype, unit, None)).item()
        assert found == number * NANOSECONDS[unit]


@pytest.mark.parametrize(
    ("cells", "row", "value"),
    [
        (["2020-11-26", "03/04/2020"], 3, "'03/04/2020'"),
        (["2020-11-26T18:33:38Z", "2020-11-26T18:33:38"], 3, "'2020-11-26T18:33:38'"),
        (["1606415618", "2020-11-26"], 3, "'2020-11-26'"),
        (["2020-11-26", "2020-02-30"], 3, "'2020-02-30'"),
        (["1606415618123"], 2, "'1606415618123'"),
    ],
)
def test_mixed_ambiguous_and_impossible_times_are_errors_with_the_row(tmp_path, cells, row, value):
    path = tmp_path / "log.csv"
    path.write_text("user,item,at\n" + "".join(f"u,i{n},{cell}\n" for n, cell in enumerate(cells)))
    with pytest.raises(CorpusError, match="as ISO 8601") as error:
        table(path).read()
    assert error.value.row == row and f"got {value}" in str(error.value)


def test_copies_are_counted_and_left_out_or_kept(tmp_path, capsys):
    path = tmp_path / "log.csv"
    rows = [f"u{n % 7},i{n % 5},{1000 + n}" for n in range(70)]
    path.write_text("user,item,at\n" + "\n".join(rows + rows) + "\n")
    single = table(path).read()
    assert single.num_events == 70
    assert "log: left out 70 copies of events (same user, item and time; duplicates='drop')" in capsys.readouterr().out
    double = table(path, duplicates="keep").read()
    assert double.num_events == 140 and "log: kept 70 copies of events" in capsys.readouterr().out
    (tmp_path / "once.csv").write_text("user,item,at\n" + "\n".join(rows) + "\n")
    once = table(tmp_path / "once.csv", duplicates="keep", name="log").read()
    assert once.fingerprint == single.fingerprint
    with pytest.raises(CorpusError, match=r"duplicates must be one of \('drop', 'keep'\), got 'merge'"):
        table(path, duplicates="merge").read()


def test_ties_are_told_and_keep_the_file_s_order(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("user,item,at\nu,c,5\nu,a,5\nv,x,1\nu,b,5\nu,d,9\nv,y,1\n")
    corpus = table(path).read()
    assert corpus.items["item_id"].gather(corpus.events["item"]).to_list() == ["c", "a", "b", "d", "x", "y"]
    said = capsys.readouterr().err
    assert "log: 75.0% of neighbouring events of a user have the same time and keep the file's order" in said
