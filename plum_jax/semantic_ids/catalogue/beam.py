"""Assignment of new items on Apache Beam: the same function for each file, on as many machines as the runner has."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from etils import epath

from plum_jax import artifact
from plum_jax.semantic_ids.catalogue.assign import assign_file
from plum_jax.semantic_ids.catalogue.new_items import CatalogueError
from plum_jax.semantic_ids.catalogue.shards import shard_path
from plum_jax.semantic_ids.codec import Codec
from plum_jax.semantic_ids.codec_files import load_codec
from plum_jax.semantic_ids.table import KIND


def assign_files_on_beam(
    table_dir: epath.PathLike,
    paths: Sequence[epath.Path],
    directory: epath.PathLike,
    runner: str,
    options: Sequence[str] = (),
) -> list[epath.Path]:
    """Assigns all files as a Beam pipeline and returns their shards; those that are there and current are kept.

    Args:
      table_dir: of a SidTable with a codec; every worker reads it.
      paths: all files (`new_item_files`); every worker reads some.
      directory: gets a shard for each file.
      runner: e.g. "DirectRunner", "FlinkRunner", "DataflowRunner".
      options: the runner's, as on a command line, e.g. ("--region=europe-west1",).

    Raises:
      ArtifactError: the table is not complete, or has no codec.
      CatalogueError: Beam is not installed, or a file is not as it must be (then as Beam reports it).
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise CatalogueError(
            "Apache Beam is not installed: pip install 'plum_jax[beam]', or set RUNNER to None and share the files "
            "between processes by PROCESS_INDEX and PROCESS_COUNT"
        ) from None
    artifact.read_manifest(
        table_dir, KIND
    )  # a table that is not complete, or has no codec, is told here, not by a worker
    codec = load_codec(table_dir)
    work = functools.partial(_assign, str(table_dir), codec.fingerprint, str(directory))
    try:
        with beam.Pipeline(options=PipelineOptions([f"--runner={runner}", *options])) as pipeline:
            files = pipeline | "Files" >> beam.Create([str(path) for path in paths])
            _ = files | "Spread" >> beam.Reshuffle() | "Assign" >> beam.Map(work)
    except CatalogueError as error:  # a worker's; where Beam raised it says nothing to who reads it
        raise CatalogueError(str(error)) from None
    return [shard_path(directory, path) for path in paths]


@functools.lru_cache(maxsize=1)
def _codec(table_dir: str, fingerprint: str) -> Codec:
    """The codec, read once by each worker."""
    codec = load_codec(table_dir)
    if codec.fingerprint != fingerprint:
        raise CatalogueError(
            f"{table_dir} holds codec {codec.fingerprint} here, {fingerprint} where the work was started"
        )
    return codec


def _assign(table_dir: str, fingerprint: str, directory: str, path: str) -> str:
    shard = shard_path(directory, epath.Path(path))
    assign_file(_codec(table_dir, fingerprint), path, shard)
    return str(shard)
