"""A Corpus as TensorFlow Datasets, and TFDS's downloads as files."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import polars as pl
import tensorflow_datasets as tfds
from etils import epath

from plum_jax.corpus import schema

Contents = Literal["items", "histories"]


class PlumCorpus(tfds.core.GeneratorBasedBuilder):
    """The items, or the histories, of a saved Corpus; make one with `corpus_builder`."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = epath.Path(__file__).parent  # TFDS looks there for metadata files; there are none

    def __init__(self, *, corpus: schema.Corpus, contents: Contents, **kwargs: Any):
        self._corpus = corpus
        self._contents = contents
        config = tfds.core.BuilderConfig(
            name=f"{contents}-{corpus.fingerprint}", description=f"{contents} of {corpus.name}"
        )
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: _feature(dtype) for name, dtype in self._frame().schema.items()}
        if self._contents == "histories":
            events = {name: _feature(dtype) for name, dtype in self._events().schema.items()}
            features["events"] = tfds.features.Sequence(events)
        return self.dataset_info_from_configs(
            description=f"{self._corpus.name}: {self._contents}",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # examples stay in the order of their index
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # the corpus is here already
        return {self._contents: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = self._frame().iter_rows(named=True)
        if self._contents == "items":
            yield from enumerate(rows)
            return
        offsets = self._corpus.history_offsets
        columns = {name: self._events()[name].to_numpy() for name in self._events().columns}
        for user, row in enumerate(rows):
            events = {name: column[offsets[user] : offsets[user + 1]] for name, column in columns.items()}
            yield user, {**row, "events": events}

    def _frame(self) -> pl.DataFrame:
        """One row an example, without nulls, "item" or "user" its index."""
        frame, index = (self._corpus.items, "item") if self._contents == "items" else (self._corpus.users, "user")
        return _without_nulls(frame).with_columns(pl.int_range(pl.len(), dtype=pl.Int32).alias(index))

    def _events(self) -> pl.DataFrame:
        return _without_nulls(self._corpus.events.drop("user"))


def corpus_builder(
    directory: epath.PathLike,
    contents: Contents,
    data_dir: epath.PathLike | None = None,
    file_format: str | None = None,
) -> PlumCorpus:
    """TFDS builder over the Corpus in `directory`: `download_and_prepare()`, then `as_dataset(split="all")`.

    Examples of "items": "item" int32 and the columns of `Corpus.items`. Of "histories": "user" int32, the columns of
    `Corpus.users`, and "events", a Sequence of "item", "time", engagement and context features in order. TFDS has no
    nulls: text becomes "", lists empty, numbers NaN, integers -1.

    Args:
      directory: of the artefact.
      contents: "items" or "histories".
      data_dir: where TFDS keeps the prepared records; the name of the data set holds the corpus's fingerprint.
      file_format: of the records, e.g. "array_record" for `as_data_source`; None: TFDS's default.

    Raises:
      ArtifactError: no complete corpus in `directory`.
      ValueError: unknown contents.
    """
    if contents not in ("items", "histories"):
        raise ValueError(f"contents must be 'items' or 'histories', got {contents!r}")
    corpus = schema.Corpus.load(directory)
    return PlumCorpus(corpus=corpus, contents=contents, data_dir=data_dir, file_format=file_format)


def _feature(dtype: pl.DataType) -> tfds.features.FeatureConnector:
    if isinstance(dtype, pl.List):
        return tfds.features.Sequence(_feature(dtype.inner))  # type: ignore[arg-type]
    if dtype == pl.String:
        return tfds.features.Text()
    if dtype.is_float():
        return tfds.features.Scalar(np.float32 if dtype == pl.Float32 else np.float64)
    return tfds.features.Scalar(np.int32 if dtype == pl.Int32 else np.int64)


def _without_nulls(frame: pl.DataFrame) -> pl.DataFrame:
    def filled(name: str, dtype: pl.DataType) -> pl.Expr:
        column = pl.col(name)
        if isinstance(dtype, pl.List):
            return column.fill_null([])
        if dtype == pl.String:
            return column.fill_null("")
        return column.fill_null(float("nan") if dtype.is_float() else -1)

    return frame.select(filled(name, dtype) for name, dtype in frame.schema.items())


def download_movielens(address: str, cache: epath.PathLike) -> pathlib.Path:
    """Directory with the unpacked files of one of GroupLens's archives, through TFDS's downloader and checksums."""
    known = tfds.structured.movielens.Movielens.url_infos
    manager = tfds.download.DownloadManager(download_dir=cache, dataset_name="movielens", url_infos=known)
    return pathlib.Path(manager.download_and_extract(address))
