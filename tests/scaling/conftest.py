"""Published points that several tests fit."""

import pathlib

import numpy as np
import polars as pl
import pytest


@pytest.fixture(scope="session")
def chinchilla(shared_data: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N, D, loss of the 240 points of 2404.10102: all but the five largest losses."""
    table = pl.read_csv(shared_data / "scaling" / "chinchilla_epoch_svg.csv").sort("loss")[:-5]
    N, C, loss = (table[name].to_numpy() for name in ("Model Size", "Training FLOP", "loss"))
    return N, C / (6.0 * N), loss
