"""MovieLens of any size, from a directory of the user's or from what `movielens_download` finds."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import polars as pl

from plum_jax.corpus.schema import Corpus, CorpusError
from plum_jax.corpus.sources import assembly, movielens_download
from plum_jax.corpus.sources.bad_rows import BadRows, OnBadRow
from plum_jax.corpus.sources.events import EventColumns, read_events
from plum_jax.corpus.sources.files import DataFile, open_file
from plum_jax.corpus.sources.parts import file_hashes

Variant = Literal["100k", "1m", "latest", "latest-small", "25m"]

# fmt: off
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)
_OCCUPATIONS_1M = (  # by number, as in the README of MovieLens-1M
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)
# fmt: on
_NO_GENRES = ("unknown", "(no genres listed)")
_AGE_GENDER_OCCUPATION = {"age": "age", "gender": "gender", "occupation": "occupation"}


@dataclasses.dataclass(frozen=True)
class _File:
    name: str
    options: Mapping[str, Any]
    columns: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """The files of a published form of MovieLens: their names, how they are opened, which columns are what."""

    events: _File
    items: _File
    users: _File | None


def _headerless(separator: str, *columns: str) -> dict[str, Any]:
    return {"separator": separator, "columns": columns, "encoding": "latin-1", "quote": None}


_EVENT_COLUMNS = {"user": "user", "item": "item", "rating": "rating", "time": "time"}
_GROUPLENS_100K = _Layout(
    _File("u.data", _headerless("\t", *_EVENT_COLUMNS), _EVENT_COLUMNS),
    _File(
        "u.item",
        _headerless("|", "item", "title", "released", "on_video", "url", *_GENRES_100K),
        {"id": "item", "title": "title", **{genre: genre for genre in _GENRES_100K}},
    ),
    _File("u.user", _headerless("|", "user", "age", "gender", "occupation", "zip_code"), {"id": "user"}),
)
_GROUPLENS_1M = _Layout(
    _File("ratings.dat", _headerless("::", *_EVENT_COLUMNS), _EVENT_COLUMNS),
    _File(
        "movies.dat", _headerless("::", "item", "title", "genres"), {"id": "item", "title": "title", "genres": "genres"}
    ),
    _File("users.dat", _headerless("::", "user", "gender", "age", "occupation", "zip_code"), {"id": "user"}),
)
_GROUPLENS_CSV = _Layout(
    _File("ratings.csv", {}, {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}),
    _File("movies.csv", {}, {"id": "movieId", "title": "title", "genres": "genres"}),
    None,
)


def _recbole(variant: str) -> _Layout:
    """The atomic files of RecBole: tab-separated, with typed headers."""
    stem = f"ml-{variant}"
    genres = "class:token_seq" if variant == "100k" else "genre:token_seq"
    events = {"user": "user_id:token", "item": "item_id:token", "rating": "rating:float", "time": "timestamp:float"}
    items = {"title": "movie_title:token_seq", "year": "release_year:token", "genres": genres}
    users = {name: f"{name}:token" for name in _AGE_GENDER_OCCUPATION}
    return _Layout(
        _File(f"{stem}.inter", {"quote": None}, events),
        _File(f"{stem}.item", {"quote": None}, {"id": "item_id:token", **items}),
        _File(f"{stem}.user", {"quote": None}, {"id": "user_id:token", **users}) if variant in ("100k", "1m") else None,
    )


@dataclasses.dataclass(frozen=True)
class MovieLens:
    """Films (title, year, genres), users (age, gender, occupation, in 100K and 1M) and ratings with unix times.

    Attributes:
      variant: which MovieLens.
      data_dir: where its files are (or a directory `ml-<variant>` with them), as GroupLens or RecBole publishes them.
        None: TFDS's download, else, for 100k, the copy that the package recbole carries.
      minimum_history, minimum_item_events: users and films with fewer ratings are left out, until none is.
      on_bad_row: "error" or "skip" (count and print).
    """

    variant: Variant = "100k"
    data_dir: str | None = None
    minimum_history: int = 1
    minimum_item_events: int = 0
    on_bad_row: OnBadRow = "error"

    def inputs(self) -> dict[str, str]:
        """Hashes of the user's files; nothing for a download, which never changes."""
        if self.data_dir is None:
            return {}
        directory, layout = self._find(pathlib.Path(self.data_dir))
        files = (layout.events, layout.items, layout.users)
        return file_hashes(directory / file.name for file in files if file is not None)

    def read(self) -> Corpus:
        """Reads, and says on the screen from where.

        Raises:
          CorpusError: no such files, or a bad row; says which, and what to do.
        """
        _layouts(self.variant)
        directory = movielens_download.fetch(self.variant) if self.data_dir is None else pathlib.Path(self.data_dir)
        directory, layout = self._find(directory)
        name = f"MovieLens-{self.variant.upper() if self.variant[0].isdigit() else self.variant}"
        print(f"{name}: reading {directory}")
        bad_rows = BadRows(self.on_bad_row)
        with contextlib.ExitStack() as stack:

            def opened(file: _File) -> DataFile:
                options: dict[str, Any] = {"skip_wrong_encoding": self.on_bad_row == "skip", **file.options}
                return open_file(directory / file.name, stack, **options)

            events_file = opened(layout.events)
            columns = layout.events.columns
            return assembly.assemble(
                name,
                read_events(
                    events_file,
                    EventColumns(
                        user=columns["user"],
                        item=columns["item"],
                        time=columns["time"],
                        engagement={"rating": columns["rating"]},
                    ),
                    "events",
                    "",
                    bad_rows,
                ),
                events_file,
                user_column=columns["user"],
                item_column=columns["item"],
                bad_rows=bad_rows,
                clock="absolute",
                items=_items(opened(layout.items), layout.items.columns, bad_rows),
                users=None if layout.users is None else _users(opened(layout.users), layout.users.columns, bad_rows),
                minimum_history=self.minimum_history,
                minimum_item_events=self.minimum_item_events,
            )

    def _find(self, directory: pathlib.Path) -> tuple[pathlib.Path, _Layout]:
        layouts = _layouts(self.variant)
        for candidate in (directory, directory / f"ml-{self.variant}"):
            for layout in layouts:
                if (candidate / layout.events.name).is_file():
                    return candidate, layout
        expected = " or ".join(
            ", ".join(file.name for file in (layout.events, layout.items, layout.users) if file) for layout in layouts
        )
        raise CorpusError(
            f"no MovieLens {self.variant} there; expected {expected}. Unpack "
            f"{movielens_download.url(self.variant)} and give that directory as data_dir",
            file=directory,
        )


def _layouts(variant: str) -> list[_Layout]:
    grouplens = {
        "100k": _GROUPLENS_100K,
        "1m": _GROUPLENS_1M,
        "latest": _GROUPLENS_CSV,
        "latest-small": _GROUPLENS_CSV,
        "25m": _GROUPLENS_CSV,
    }
    if variant not in grouplens:
        raise CorpusError(f"there is no MovieLens {variant!r}; known are {list(grouplens)}")
    return [grouplens[variant], _recbole(variant)]


def _items(file: DataFile, columns: Mapping[str, str], bad_rows: BadRows) -> assembly.Side:
    """Titles without the year in parentheses, the year as a category, genres as lists."""
    features = {name: column for name, column in columns.items() if name not in ("id", "title")}
    side = assembly.read_side(
        file,
        bad_rows,
        id_name="item_id",
        id_column=columns["id"],
        text_fields={"title": columns["title"]},
        features=features,
    )
    frame, title = side.frame, pl.col("title")
    if "genres" not in features:
        flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES_100K]
        frame = frame.with_columns(genres=pl.concat_list(flags).list.drop_nulls())
    else:
        separator = " " if file.path.suffix == ".item" else "|"
        frame = frame.with_columns(genres=pl.col("genres").str.split(separator))
    year = title.str.extract(r"\((\d{4})\)\s*$")
    if "year" in features:
        year = pl.coalesce(pl.col("year").str.extract(r"^(\d{4})$"), year)
    genres = pl.col("genres").list.eval(pl.element().filter(~pl.element().is_in(_NO_GENRES)))
    frame = frame.select("item_id", title.str.replace(r"\s*\(\d{4}\)\s*$", ""), year.alias("year"), genres, "__row")
    return assembly.Side(frame, ("title",), ("genres", "year"))


def _users(file: DataFile, columns: Mapping[str, str], bad_rows: BadRows) -> assembly.Side:
    side = assembly.read_side(
        file,
        bad_rows,
        id_name="user_id",
        id_column=columns["id"],
        features={**_AGE_GENDER_OCCUPATION, **{name: c for name, c in columns.items() if name != "id"}},
        numbers=("age",),
    )
    numbered = {str(number): name for number, name in enumerate(_OCCUPATIONS_1M)}
    frame = side.frame.with_columns(pl.col("occupation").replace(numbered))
    return assembly.Side(frame, (), side.features)
