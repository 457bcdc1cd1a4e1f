"""The codec of a SidTable, read from its directory; `Codec.write_files` wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from plum_jax import artifact
from plum_jax.semantic_ids.codec import ARRAYS_FILE, CODEC_FILE, Codec, Encoder, LinearEncoder
from plum_jax.semantic_ids.inputs import BlockInput


def load_codec(directory: epath.PathLike) -> Codec:
    """Reads the codec of a SidTable's directory.

    Raises:
      ArtifactError: the table has none (random IDs, IDs from a file), or its files are not those that were written.
    """
    directory = epath.Path(directory)
    if not (directory / CODEC_FILE).exists():
        raise artifact.ArtifactError(
            f"{directory} has no {CODEC_FILE}: random IDs and IDs from a file say nothing about new items. "
            "Use a table made by a quantiser (RqVae, ResidualKMeans, ProductQuantizer)"
        )
    described = json.loads((directory / CODEC_FILE).read_text())
    with (directory / ARRAYS_FILE).open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = dict(stored)
    inputs = tuple(BlockInput(mean=arrays[f"mean_{n}"], **facts) for n, facts in enumerate(described["inputs"]))
    encoder_arrays = {n.removeprefix("encoder/"): a for n, a in arrays.items() if n.startswith("encoder/")}
    codec = Codec(
        encoder=_load_encoder(described["encoder"], described["encoder_facts"], inputs, encoder_arrays),
        codebooks=tuple(arrays[f"level_{level}"] for level in range(described["levels"])),
        last_level_bias=arrays.get("last_level_bias"),
    )
    if codec.fingerprint != described["fingerprint"]:
        raise artifact.ArtifactError(
            f"the codec in {directory} has fingerprint {codec.fingerprint}, {CODEC_FILE} says "
            f"{described['fingerprint']}: its files were changed; make the table again"
        )
    return codec


def _load_encoder(
    kind: str, facts: Mapping[str, Any], inputs: tuple[BlockInput, ...], arrays: Mapping[str, np.ndarray]
) -> Encoder:
    if kind == "LinearEncoder":
        return LinearEncoder(inputs, arrays.get("rotation"))
    from plum_jax.semantic_ids.rqvae.encoder import RqVaeEncoder  # linear codecs need no network

    return RqVaeEncoder.from_arrays(facts, inputs, arrays)
