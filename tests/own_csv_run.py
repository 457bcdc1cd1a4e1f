"""A whole run through the command line, small enough for tests: a hundred-row CSV of somebody's own."""

import csv
import os
import pathlib
import random
import sys

from fast_compiling import FAST_COMPILING

from plum_jax import run_jobs

GIN = """\
from __gin__ import dynamic_registration
from plum_jax.corpus.sources import table
include 'gin/corpus/table.gin'
table.Table.events_path = '{path}'
table.Table.user_id = 'who?'
table.Table.item_id = 'Film No'
table.Table.time = 'when (UTC)'
table.Table.time_format = '%d/%m/%Y %H:%M'
table.Table.rating = 'stars'
table.Table.text_fields = {{'title': 'the film'}}
"""
WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "islet", "jetty"]


# Sizes of a run of a few seconds, behind a file of gin/model/.
SIZES = {
    "CODEBOOK_SIZES": "(4, 4)",
    "COLLISIONS": "'extra_digit'",
    "NUM_PIECES": "300",
    "LENGTH": "64",
    "CPT_STEPS": "30",
    "RETRIEVAL_STEPS": "8",
    "BATCH_SIZE": "4",
    "EVALUATION_PERIOD": "4",
    "CHECKPOINT_PERIOD": "5",
    "KS": "(1, 5)",
    "NUM_BEAMS": "10",
    "SELECT_BY": "'validation/recall@5'",
}


def own_events() -> list[tuple[int, int, int, int]]:
    """A hundred events in order of time: user, item, row and stars."""
    rng = random.Random(0)
    events = []
    for row in range(100):
        item = min(rng.randrange(10), rng.randrange(10))
        events.append((row % 10, item, row, rng.randrange(1, 6)))
    return events


def write_own_csv(directory: pathlib.Path) -> None:
    """A hundred rows with odd column names, and the ten-line gin file beside them."""
    with (directory / "odd.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["who?", "the film", "Film No", "when (UTC)", "stars"])
        for user, item, row, stars in own_events():
            time_of_row = f"{1 + row // 10:02d}/03/2024 {row % 10 + 10}:30"
            writer.writerow([f"user {user}", f"The {WORDS[item]} film", f"tt{item}", time_of_row, stars])
    (directory / "own.gin").write_text(GIN.format(path=directory / "odd.csv"))


def plum_command(own_csv: pathlib.Path, model_dir: pathlib.Path, *more: str, run: str = "pipeline") -> list[str]:
    """`plum_arguments` as a command for a process of its own."""
    return [sys.executable, "-m", "plum_jax.run", *plum_arguments(own_csv, model_dir, *more, run=run)]


def plum_arguments(own_csv: pathlib.Path, model_dir: pathlib.Path, *more: str, run: str = "pipeline") -> list[str]:
    """Of a run of a few seconds over that CSV, or of a job on the run in `model_dir`."""
    if run in run_jobs.names():
        return [run, str(model_dir), *more]
    files = [f"gin/run/{run}.gin", str(own_csv / "own.gin"), "gin/model/cpu_nano.gin"]
    bindings = [f"--gin.{name}={value}" for name, value in {**SIZES, "MODEL_DIR": f"'{model_dir}'"}.items()]
    return [*(f"--gin_file={file}" for file in files), *bindings, *more]


def user_environment() -> dict[str, str]:
    """One device, as a user has, that compiles fast."""
    return {**os.environ, "XLA_FLAGS": FAST_COMPILING}
