"""A finished run with a catalogue that has grown: which table its jobs may serve."""

from __future__ import annotations

from plum_jax.semantic_ids.catalogue.accepted import with_new_items
from plum_jax.semantic_ids.table import SidTable


def table_of(own: SidTable, directory: str | None) -> SidTable:
    """The table at `directory` where a model may meet it, its old items first; None: the model's own.

    Raises:
      ArtifactError: no complete table there.
      SidTableMismatch: it changes an ID that the model has learnt.
    """
    if directory is None:
        return own
    grown = with_new_items(own, SidTable.load(directory), directory)
    print(
        f"SidTable {grown.fingerprint} is accepted: the {own.num_items:,} items that the model knows have their IDs, "
        f"{grown.num_items - own.num_items:,} are new"
    )
    return grown
