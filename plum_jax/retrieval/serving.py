"""An export for servers: the beam search as serialised StableHLO, parameters, trie and items, to run without this code.

One program for each prompt length, for any number of users (a symbolic batch), for CPU and TPU alike. The directory has
its own loader, `serving_loader.py`, which needs JAX and numpy only.
"""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export

from plum_jax import artifact
from plum_jax.retrieval import serving_loader
from plum_jax.retrieval.beam_search import beam_search
from plum_jax.retrieval.beams import Params
from plum_jax.retrieval.exclusion import Exclusion
from plum_jax.retrieval.recommend import Recommender
from plum_jax.semantic_ids.table import SidTable

KIND = "serving_export"
FACTS_FILE = "serving.json"
LOADER_FILE = "loader.py"


def export_serving(
    recommender: Recommender,
    params: Params,
    *,
    directory: epath.PathLike,
    lengths: Sequence[int],
    prompt_recipe: dict[str, Any] | None = None,
    prompt_values: int | None = None,
    platforms: Sequence[str] = ("cpu", "tpu"),
    overwrite: bool = False,
) -> epath.Path:
    """Writes the export as an artefact and returns its directory; one from the same inputs is left as it is.

    Args:
      recommender: decoder, vocabulary, table and beams.
      params: the decoder's.
      directory: of the artefact.
      lengths: tokens that prompts are padded to, a program each; the longest prompt that can be served is the largest.
      prompt_recipe: how a prompt is made of Semantic IDs (`Retrieval.prompt_recipe`); None: prompts come as token ids.
      prompt_values: numbers of a prompt are below this; None: they are tokens of the vocabulary.
      platforms: that the programs can be compiled for.
      overwrite: whether an export of another model or with other settings gives way.

    Raises:
      artifact.ArtifactError: another export is there, and nobody said that it may go.
    """
    directory = epath.Path(directory)
    lengths = sorted(set(lengths))
    config = {
        "format": serving_loader.FORMAT,
        "num_beams": recommender.num_beams,
        "lengths": lengths,
        "platforms": list(platforms),
        "prompt": prompt_recipe,
        "decoder": artifact.describe(recommender.decoder.config),
        "jax": jax.__version__,
    }
    inputs = {
        "params": artifact.tree_fingerprint(params),
        "sid_table": recommender.table.fingerprint,
        "vocabulary": recommender.vocabulary.fingerprint,
    }
    if artifact.is_current(directory, kind=KIND, config=config, inputs=inputs):
        return directory
    if directory.exists() and not overwrite:
        raise artifact.ArtifactError(
            f"{directory} has an export of another model or with other settings, which servers may be reading: "
            "export into another directory, or say that it may be overwritten (OVERWRITE = True)"
        )

    def write(aside: epath.Path) -> None:
        parameters, trie = (jax.tree.leaves(tree) for tree in (params, recommender.trie))
        for length in lengths:
            program = _program(recommender, params, length, platforms)
            (aside / f"search_{length}.stablehlo").write_bytes(program.serialize())
        dtypes = {name: _write_arrays(aside, name, a) for name, a in (("parameters", parameters), ("trie", trie))}
        _write_items(aside, recommender.table)
        loader = importlib.resources.files("plum_jax.retrieval") / "serving_loader.py"
        (aside / LOADER_FILE).write_text(loader.read_text())
        facts = {
            **config,
            "made_from": inputs,
            "vocab_size": prompt_values or recommender.vocabulary.vocab_size,
            "codebook_sizes": list(recommender.table.codebook_sizes),
            "sid_offsets": recommender.vocabulary.sid_offsets.tolist(),
            "dtypes": dtypes,
            "files": {path.name: _sha256(path) for path in sorted(aside.iterdir())},
        }
        artifact.write_json(aside / FACTS_FILE, facts)

    digest = artifact.fingerprint(config, inputs)
    artifact.write_artifact(directory, kind=KIND, fingerprint=digest, config=config, inputs=inputs, write=write)
    return directory


def _program(recommender: Recommender, params: Params, length: int, platforms: Sequence[str]) -> export.Exported:
    """(parameters, trie, prompts [b, T], lengths [b], excluded codes [b, e, L] and lengths [b, e]) -> codes, log_probs.

    The two trees are lists of their arrays; what is excluded is as in `exclusion.Exclusion`.
    """
    model, trie = (jax.tree.flatten(tree) for tree in (params, recommender.trie))

    def search(
        parameters: list[jax.Array],
        constraint: list[jax.Array],
        prompts: jax.Array,
        lengths: jax.Array,
        *excluded: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        return beam_search(
            recommender.decoder,
            jax.tree.unflatten(model[1], parameters),
            prompts,
            lengths,
            sid_offsets=tuple(int(offset) for offset in recommender.vocabulary.sid_offsets),
            codebook_sizes=recommender.table.codebook_sizes,
            num_beams=recommender.num_beams,
            trie=jax.tree.unflatten(trie[1], constraint),
            excluded=Exclusion(*excluded),
            start_token=recommender.vocabulary.start_id,
        )

    def shapes(leaves: Sequence[Any]) -> list[jax.ShapeDtypeStruct]:
        return [jax.ShapeDtypeStruct(np.shape(leaf), jnp.asarray(leaf).dtype) for leaf in leaves]

    def integers(*shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    b, e = export.symbolic_shape("b, e")
    asked = integers(b, length), integers(b), integers(b, e, recommender.table.num_levels), integers(b, e)
    return export.export(jax.jit(search), platforms=list(platforms))(shapes(model[0]), shapes(trie[0]), *asked)


def _write_arrays(directory: epath.Path, name: str, arrays: Sequence[Any]) -> list[str]:
    """Writes arrays by number, and returns their types; numpy's files hold bfloat16 and its like as bits."""
    host = [np.asarray(array) for array in jax.device_get(arrays)]
    bits = {1: np.uint8, 2: np.uint16}
    stored = {f"{n}": a.view(bits[a.itemsize]) if a.dtype.kind == "V" else a for n, a in enumerate(host)}
    with (directory / f"{name}.npz").open("wb") as file:
        np.savez(file, **stored)  # type: ignore[arg-type]
    return [str(array.dtype) for array in host]


def _write_items(directory: epath.Path, table: SidTable) -> None:
    """The catalogue: sorted SIDs, the items of each, and the items' ids as bytes one after another."""
    index = table.items_of_sid()
    names = [item_id.encode() for item_id in table.item_ids.tolist()]
    with (directory / "items.npz").open("wb") as file:
        np.savez(
            file,
            sids=index.sids,
            offsets=index.offsets,
            items=index.items,
            item_id_bytes=np.frombuffer(b"".join(names), np.uint8),
            item_id_ends=np.cumsum([len(name) for name in names]),
        )


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
