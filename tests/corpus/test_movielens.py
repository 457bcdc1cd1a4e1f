"""MovieLens: all published layouts of the same ratings give the same corpus; downloads fall back and say so."""

import functools
import http.server
import pathlib
import subprocess
import threading
import zipfile

import pytest

from plum_jax.corpus import tfds_builders
from plum_jax.corpus.schema import CorpusError
from plum_jax.corpus.sources import movielens, movielens_download

RATINGS = [(2, 10, 5, 300), (1, 20, 3, 200), (1, 10, 4, 100), (2, 20, 1, 400)]


def write(directory: pathlib.Path, files: dict[str, str], encoding: str) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_bytes(text.encode(encoding))
    return str(directory)


def lines(rows, separator: str) -> str:
    return "".join(separator.join(str(cell) for cell in row) + "\n" for row in rows)


def flags(*genres: int) -> str:
    return "|".join("1" if genre in genres else "0" for genre in range(19))


def grouplens_100k(directory: pathlib.Path) -> str:
    items = f"10|Amélie (2001)|01-Jan-2001||http://x|{flags(5, 14)}\n20|Heat, The|||http://y|{flags(0)}\n"
    users = "1|24|M|technician|85711\n2|53|F|other|94043\n"
    return write(directory, {"u.data": lines(RATINGS, "\t"), "u.item": items, "u.user": users}, "latin-1")


def grouplens_1m(directory: pathlib.Path) -> str:
    items = "10::Amélie (2001)::Comedy|Romance\n20::Heat, The::unknown\n"
    users = "1::M::24::17::85711\n2::F::53::0::94043\n"
    return write(directory, {"ratings.dat": lines(RATINGS, "::"), "movies.dat": items, "users.dat": users}, "latin-1")


def grouplens_csv(directory: pathlib.Path) -> str:
    ratings = "userId,movieId,rating,timestamp\n" + lines(RATINGS, ",")
    items = 'movieId,title,genres\n10,Amélie (2001),Comedy|Romance\n20,"Heat, The",(no genres listed)\n'
    return write(directory, {"ratings.csv": ratings, "movies.csv": items}, "utf-8")


def recbole(directory: pathlib.Path, stem: str = "ml-100k", genres: str = "class") -> str:
    events = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + lines(RATINGS, "\t")
    items = f"item_id:token\tmovie_title:token_seq\trelease_year:token\t{genres}:token_seq\n"
    items += "10\tAmélie\t2001\tComedy Romance\n20\tHeat, The\tunkonwn\tunknown\n"
    users = "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
    users += "1\t24\tM\ttechnician\t85711\n2\t53\tF\tother\t94043\n"
    return write(directory, {f"{stem}.inter": events, f"{stem}.item": items, f"{stem}.user": users}, "utf-8")


LAYOUTS = {
    "100k": ("100k", grouplens_100k),
    "100k recbole": ("100k", recbole),
    "1m": ("1m", grouplens_1m),
    "1m recbole": ("1m", functools.partial(recbole, stem="ml-1m", genres="genre")),
    "latest-small": ("latest-small", grouplens_csv),
    "25m": ("25m", grouplens_csv),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout(tmp_path, layout):
    variant, make = LAYOUTS[layout]
    make(tmp_path / f"ml-{variant}")
    corpus = movielens.MovieLens(variant, data_dir=str(tmp_path)).read()
    assert corpus.items.to_dict(as_series=False) == {
        "item_id": ["10", "20"],
        "title": ["Amélie", "Heat, The"],
        "year": ["2001", None],
        "genres": [["Comedy", "Romance"], []],
    }
    ids = corpus.users["user_id"].to_list()
    events = [(int(ids[u]), (corpus.items["item_id"][i]), t, r) for u, i, t, r in corpus.events.iter_rows()]
    assert sorted(events) == [(1, "10", 100, 4.0), (1, "20", 200, 3.0), (2, "10", 300, 5.0), (2, "20", 400, 1.0)]
    assert [t for u, _, t, _ in events if u == 1] == [100, 200]
    if not layout.startswith(("latest", "25m")):
        occupations = {"1m": ["technician/engineer", "other"]}.get(layout, ["technician", "other"])
        expected = {"user_id": ["1", "2"], "age": [24, 53], "gender": ["M", "F"], "occupation": occupations}
        assert corpus.users.to_dict(as_series=False) == expected
        assert corpus.user_features == ("age", "gender", "occupation")


def test_bad_rating_is_named(tmp_path):
    directory = grouplens_1m(tmp_path)
    (tmp_path / "ratings.dat").write_text("1::10::4::100\n1::99::4::100\n")
    with pytest.raises(CorpusError, match=r"ratings.dat, row 2, field 'item': unknown item: '99'"):
        movielens.MovieLens("1m", data_dir=directory).read()


def test_directory_without_movielens_says_what_it_wants(tmp_path):
    with pytest.raises(CorpusError, match=r"expected ratings.dat, movies.dat, users.dat or ml-1m.inter"):
        movielens.MovieLens("1m", data_dir=str(tmp_path)).read()
    with pytest.raises(CorpusError, match="there is no MovieLens '2m'; known are"):
        movielens.MovieLens("2m").read()  # type: ignore[arg-type]


def test_inputs_are_the_files_of_the_user(tmp_path):
    source = movielens.MovieLens("25m", data_dir=grouplens_csv(tmp_path))
    assert sorted(pathlib.Path(path).name for path in source.inputs()) == ["movies.csv", "ratings.csv"]
    assert movielens.MovieLens("25m").inputs() == {}


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("PLUM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_tfds_first_then_the_cache(cache, tmp_path, monkeypatch, capsys):
    extracted = grouplens_1m(tmp_path / "extracted" / "ml-1m")
    monkeypatch.setattr(movielens_download, "_reachable", lambda address: None)
    monkeypatch.setattr(tfds_builders, "download_movielens", lambda address, into: pathlib.Path(extracted).parent)
    first = movielens.MovieLens("1m").read()
    assert "TFDS downloads https://files.grouplens.org/datasets/movielens/ml-1m.zip" in capsys.readouterr().out
    monkeypatch.setattr(movielens_download, "_reachable", lambda address: pytest.fail("the cache was not used"))
    assert movielens.MovieLens("1m").read().fingerprint == first.fingerprint
    assert "TFDS's download, from the cache" in capsys.readouterr().out


def test_tfds_downloads_and_unpacks(tmp_path):
    grouplens_csv(tmp_path / "served")
    with zipfile.ZipFile(tmp_path / "served" / "ml-9.zip", "w") as archive:
        archive.write(tmp_path / "served" / "ratings.csv", "ml-9/ratings.csv")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/ml-9.zip"
        assert movielens_download._reachable(address) is None
        extracted = tfds_builders.download_movielens(address, tmp_path / "tfds")
        server.shutdown()
    assert (extracted / "ml-9" / "ratings.csv").read_text() == (tmp_path / "served" / "ratings.csv").read_text()


def test_out_of_reach(cache, monkeypatch):
    monkeypatch.setattr(movielens_download, "_reachable", lambda address: "no network")
    with pytest.raises(CorpusError, match=r"MovieLens 25m cannot be downloaded \(no network\); unpack https"):
        movielens.MovieLens("25m").read()

    def fail(*args, **kwargs):
        raise subprocess.CalledProcessError(1, "pip", stderr="ERROR: no index\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(CorpusError, match=r"neither .*ml-100k.zip nor recbole==1.2.1 can be had \(ERROR: no index\)"):
        movielens.MovieLens("100k").read()
    assert not list(cache.glob("*"))


def test_the_real_100k(cache, monkeypatch, capsys):
    monkeypatch.setattr(movielens_download, "_reachable", lambda address: "not tried")
    try:
        corpus = movielens.MovieLens().read()
    except CorpusError as error:
        pytest.skip(f"the package index is out of reach: {error}")
    assert "taking the copy inside the package recbole" in capsys.readouterr().out
    assert (corpus.num_users, corpus.num_items, corpus.num_events) == (943, 1_682, 100_000)
    assert corpus.events["rating"].mean() == pytest.approx(3.52986)
    assert corpus.items.row(0) == ("1", "Toy Story", "1995", ["Animation", "Children's", "Comedy"])
    assert (corpus.events["time"].min(), corpus.events["time"].max()) == (874724710, 893286638)
