"""Any Parquet, CSV, TSV, `::`-separated or JSON-lines files as a Corpus, by naming their columns."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

import polars as pl
from etils import epath

from plum_jax.corpus.schema import FOLD, Corpus, CorpusError
from plum_jax.corpus.sources import assembly, times
from plum_jax.corpus.sources.assembly import Duplicates
from plum_jax.corpus.sources.bad_rows import BadRows, OnBadRow
from plum_jax.corpus.sources.events import EventColumns, Layout, read_events
from plum_jax.corpus.sources.files import DataFile, open_file
from plum_jax.corpus.sources.parts import file_hashes, table_name

Columns = Mapping[str, str] | Sequence[str]
_RESERVED = {"user", "item", "time", "event", "user_id", "item_id", "publish_time", "fold"}


@dataclasses.dataclass(frozen=True)
class Table:
    """Files of the user's: events, and if there are any, items and users.

    Formats are told by the name: .parquet, .csv, .tsv, .dat (`::`), .jsonl/.json/.ndjson; text may be .gz, .bz2, .xz or
    .zst. A path may be a directory of parts or a pattern. Columns are named as in the files. A feature or text field
    is a column's name, or {its name in the corpus: the column}.

    Attributes:
      events_path: one event a row, or one user a row (`layout`); or {fold: path} where there is a file for each fold,
        all of one form (events without time follow each other in the order of the files).
      items_path: one item a row. None: items are those of the events, their text and features in the events file too.
      users_path: one user a row. None: likewise.
      data_dir: directory of the three files; "" where their paths say it all.
      name: what the reports call the corpus; "" for the name of the events file.
      layout: "events" (one event a row) or "users" (one user a row; columns of events hold lists).
      user_id, item_id: columns of the events file; with "users", `item_id` is the list of items.
      time: when the event was; or
      gap: time since the user's event before (times are then relative to the user's first event); or
      order: a number to sort a user's events by. None of the three: events are in order.
      time_unit: of `time`, `gap` and `publish_time` as numbers: "s", "ms", "us", "ns".
      time_format: strptime format of `time` and `publish_time` as dates, e.g. "%d/%m/%Y %H:%M"; ISO 8601 needs none.
      rating, watch_ratio, watch_time, event_type: columns of engagement.
      fold: column that says which fold an event is of (`splits.Given`), where one file holds all folds.
      context_features: columns of the events file that describe the request.
      items_id, users_id: id columns of the other files; "" for the same name as in the events file.
      text_fields, item_features: columns of the items.
      publish_time: column of the items.
      user_features: columns of the users.
      numbers: features (by their name in the corpus) that are numbers; the others are text.
      list_separators: {feature: what separates its elements}; such features become lists.
      history_separator: what separates the elements of lists in an events file with one user a row.
      events_separator, items_separator, users_separator: of fields, where the file's name does not tell.
      events_columns, items_columns, users_columns: names of the columns, for text files without a header.
      events_encoding, items_encoding, users_encoding: of text files.
      quote: encloses fields of text files that hold a separator; None: no such thing.
      minimum_history, minimum_item_events: users and items with fewer events are left out, until none is.
      duplicates: "drop" leaves out copies of an event (same user, item and time, in one fold), as exports make
        them; "keep" keeps them. Both count and print. Without times there are none.
      on_bad_row: "error" or "skip" (count and print).
    """

    events_path: str | Mapping[str, str]
    items_path: str | None = None
    users_path: str | None = None
    data_dir: str = ""
    name: str = ""
    layout: Layout = "events"
    user_id: str = "user_id"
    item_id: str = "item_id"
    time: str | None = None
    gap: str | None = None
    order: str | None = None
    time_unit: str = "s"
    time_format: str | None = None
    rating: str | None = None
    watch_ratio: str | None = None
    watch_time: str | None = None
    event_type: str | None = None
    fold: str | None = None
    context_features: Columns = ()
    items_id: str = ""
    users_id: str = ""
    text_fields: Columns = ()
    item_features: Columns = ()
    publish_time: str | None = None
    user_features: Columns = ()
    numbers: Sequence[str] = ()
    list_separators: Mapping[str, str] = dataclasses.field(default_factory=dict)
    history_separator: str = " "
    events_separator: str | None = None
    items_separator: str | None = None
    users_separator: str | None = None
    events_columns: Sequence[str] = ()
    items_columns: Sequence[str] = ()
    users_columns: Sequence[str] = ()
    events_encoding: str = "utf-8"
    items_encoding: str = "utf-8"
    users_encoding: str = "utf-8"
    quote: str | None = '"'
    minimum_history: int = 1
    minimum_item_events: int = 0
    duplicates: Duplicates = "drop"
    on_bad_row: OnBadRow = "error"

    def inputs(self) -> dict[str, str]:
        """Hashes of the files, so that a stage knows when one of them has changed."""
        paths = (*self._fold_paths().values(), self.items_path, self.users_path)
        return file_hashes(_path(self.data_dir, path) for path in paths if path is not None)

    def read(self) -> Corpus:
        """Reads the files.

        Raises:
          CorpusError: a file, column or row is not as named here; says which, and what to do.
        """
        self._check_names()
        bad_rows = BadRows(self.on_bad_row)
        columns = self._event_columns()
        with contextlib.ExitStack() as stack:
            events_files = {
                fold: self._open(path, stack, self.events_separator, self.events_columns, self.events_encoding)
                for fold, path in self._fold_paths().items()
            }
            for file in events_files.values():
                file.require(list(columns.sources().values()))
            items = self._items(stack, list(events_files.values()), bad_rows)
            users = self._users(stack, list(events_files.values()), bad_rows)
            first = next(iter(events_files.values()))
            return assembly.assemble(
                self.name or table_name(first.path),
                self._events(events_files, columns, items, users, bad_rows),
                first,
                user_column=self.user_id,
                item_column=self.item_id,
                bad_rows=bad_rows,
                clock=columns.clock,
                items=items,
                users=users,
                context_features=tuple(columns.context),
                minimum_history=self.minimum_history,
                minimum_item_events=self.minimum_item_events,
                duplicates=self.duplicates,
            )

    def _fold_paths(self) -> dict[str, str]:
        """Path of each fold's events; one path without a fold where no fold has a file of its own."""
        return {"": self.events_path} if isinstance(self.events_path, str) else dict(self.events_path)

    def _events(
        self,
        files: Mapping[str, DataFile],
        columns: EventColumns,
        items: assembly.Side | None,
        users: assembly.Side | None,
        bad_rows: BadRows,
    ) -> pl.DataFrame:
        """Events of all files, those of several with the fold that each file stands for."""
        frames = []
        for fold, file in files.items():
            frame = read_events(file, columns, self.layout, self.history_separator, bad_rows)
            if not isinstance(self.events_path, str):
                sides = {"item_id": (self.item_id, items), "user_id": (self.user_id, users)}
                frame = assembly.drop_unknown(frame, file, sides, bad_rows)  # the file is known here only
                frame = frame.with_columns(pl.lit(fold).alias(FOLD))
            frames.append(frame)
        return pl.concat(frames, how="vertical_relaxed")

    def _check_folds(self) -> None:
        if isinstance(self.events_path, str):
            return
        if not self.events_path:
            raise CorpusError("expected events_path as a path or as {fold: path}, got neither")
        if self.fold is not None or self.gap is not None:
            wrong = "fold" if self.fold is not None else "gap"
            why = "the file says the fold" if wrong == "fold" else "a gap across two files is not known: use `time`"
            raise CorpusError(f"events_path with a file for each fold goes without `{wrong}`: {why}")

    def _check_names(self) -> None:
        self._check_folds()
        fields = ("text_fields", "item_features", "user_features", "context_features")
        for field in fields:
            for name in _by_name(getattr(self, field)):
                if name in _RESERVED:
                    raise CorpusError(f"{field} may not be called {name!r}; give it a name: {{'my_{name}': {name!r}}}")
        features = {name for field in fields[1:] for name in _by_name(getattr(self, field))}
        for field in ("numbers", "list_separators"):
            for name in getattr(self, field):
                if name not in features:
                    raise CorpusError(
                        f"{field} speaks of {name!r}, which is no feature; features are {sorted(features)}"
                    )

    def _event_columns(self) -> EventColumns:
        engagement = {name: getattr(self, name) for name in ("rating", "watch_ratio", "watch_time", "event_type")}
        return EventColumns(
            user=self.user_id,
            item=self.item_id,
            time=self.time,
            gap=self.gap,
            order=self.order,
            time_unit=self.time_unit,
            time_format=self.time_format,
            engagement={name: column for name, column in engagement.items() if column is not None},
            context=_by_name(self.context_features),
            numbers=tuple(name for name in _by_name(self.context_features) if name in self.numbers),
            fold=self.fold,
        )

    def _open(
        self,
        path: str,
        stack: contextlib.ExitStack,
        separator: str | None,
        columns: Sequence[str],
        encoding: str,
    ) -> DataFile:
        return open_file(
            _path(self.data_dir, path),
            stack,
            skip_wrong_encoding=self.on_bad_row == "skip",
            separator=separator,
            columns=columns,
            encoding=encoding,
            quote=self.quote,
        )

    def _items(
        self, stack: contextlib.ExitStack, events_files: list[DataFile], bad_rows: BadRows
    ) -> assembly.Side | None:
        if self.items_path is None and (self.layout == "users" or not (self.text_fields or self.item_features)):
            if self.text_fields or self.item_features or self.publish_time:
                raise CorpusError("a file with one user a row cannot hold fields of items; name items_path")
            return None
        files, column = events_files, self.item_id
        if self.items_path is not None:
            files = [self._open(self.items_path, stack, self.items_separator, self.items_columns, self.items_encoding)]
            column = self.items_id or self.item_id
        publish = None
        if self.publish_time is not None:
            for file in files:
                file.require([self.publish_time])
            dtype = files[0].dtype(self.publish_time)
            publish = times.seconds(pl.col("publish_time"), dtype, self.time_unit, self.time_format)
        sides = [
            assembly.read_side(
                file,
                bad_rows,
                id_name="item_id",
                id_column=column,
                text_fields=_by_name(self.text_fields),
                features=_by_name(self.item_features),
                list_separators=self.list_separators,
                numbers=self.numbers,
                publish_time=publish,
                publish_column=self.publish_time,
                repeated_ids=self.items_path is None,
            )
            for file in files
        ]
        return assembly.first_of_each(sides, "item_id")

    def _users(
        self, stack: contextlib.ExitStack, events_files: list[DataFile], bad_rows: BadRows
    ) -> assembly.Side | None:
        if self.users_path is None and not self.user_features:
            return None
        files, column = events_files, self.user_id
        if self.users_path is not None:
            files = [self._open(self.users_path, stack, self.users_separator, self.users_columns, self.users_encoding)]
            column = self.users_id or self.user_id
        sides = [
            assembly.read_side(
                file,
                bad_rows,
                id_name="user_id",
                id_column=column,
                features=_by_name(self.user_features),
                list_separators=self.list_separators,
                numbers=self.numbers,
                repeated_ids=self.users_path is None,
            )
            for file in files
        ]
        return assembly.first_of_each(sides, "user_id")


def _path(data_dir: str, path: str) -> epath.Path:
    return epath.Path(data_dir) / path if data_dir else epath.Path(path)


def _by_name(columns: Columns) -> dict[str, str]:
    return dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
