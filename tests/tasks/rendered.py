"""What a task gives, and the tokens of items."""

from __future__ import annotations


def records(task) -> list[tuple[list[int], list[float]]]:
    dataset = task.get_dataset(sequence_length=None, split="train", shuffle=False)
    return [(row["targets"].tolist(), row["weights"].tolist()) for row in dataset.as_numpy_iterator()]


def sids(world, *items: int) -> list[int]:
    return world.vocabulary.encode_sid(world.table.codes[list(items)]).reshape(-1).tolist()
