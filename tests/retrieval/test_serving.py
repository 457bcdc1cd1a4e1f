"""An export serves what the recommender finds, where none of our code is, and refuses what it cannot do."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fast_compiling import FAST_COMPILING
from jax import export

from plum_jax import artifact
from plum_jax.model.config import DecoderConfig
from plum_jax.model.decoder import Decoder
from plum_jax.ragged import Ragged
from plum_jax.retrieval import serving
from plum_jax.retrieval.offline import ranked_lists
from plum_jax.retrieval.serving_loader import Server, ServingError

LENGTHS = (15, 31)
RECIPE = {"before": [260], "after": [], "history_length": 3}


@pytest.fixture(scope="module")
def model(world):
    """The recommender of `world` with a decoder that reads the whole prompt, and beams fewer than there are SIDs."""
    config = DecoderConfig(num_layers=1, d_model=8, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=16)
    decoder = Decoder(config, world.recommender.vocabulary.vocab_size)
    one = jnp.zeros((1, 1), jnp.int32)
    params = nn.unbox(jax.jit(decoder.init)(jax.random.key(1), one, one, jnp.ones((1, 1, 1), bool)))["params"]
    params = jax.device_get(jax.tree.map(lambda x: 2.0 * x, params))
    params["embedding"] = np.asarray(params["embedding"], jnp.bfloat16)  # a type that numpy's files do not know
    return dataclasses.replace(world.recommender, decoder=decoder, num_beams=6), params


def write(model, directory, **settings):
    recommender, params = model
    return serving.export_serving(
        recommender, params, directory=directory, **{"lengths": LENGTHS, "prompt_recipe": RECIPE, **settings}
    )


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return pathlib.Path(write(model, tmp_path_factory.mktemp("exports") / "serving"))


@pytest.fixture(scope="module")
def server(exported):
    return Server(exported)


def found_by(recommender, params, world, seen):
    """Each user's list as the recommender has it."""
    prompts = Ragged.from_series(world.prompts["prompt"])
    seen = Ragged.from_series(world.prompts["seen_items"]) if seen else None
    rows, _, items, scores = ranked_lists(recommender, params, prompts, 4, seen)
    lists = [[] for _ in range(len(world.prompts))]
    for row, item, score in zip(rows, items, scores.tolist(), strict=True):
        lists[row].append((f"item-{item}", score))
    return lists


@pytest.mark.parametrize("with_seen", [False, True])
def test_lists_and_scores_are_the_recommender_s(model, world, server, with_seen):
    seen = [[f"item-{item}" for item in items] for items in world.prompts["seen_items"]] if with_seen else None
    lists = server.recommend(world.prompts["prompt"].to_list(), k=4, seen=seen)
    expected = found_by(*model, world, with_seen)
    assert [[item for item, _ in items] for items in lists] == [[item for item, _ in items] for items in expected]
    # Prompts are padded to other lengths here than there, so sums are rounded differently.
    scores = [[[score for _, score in items] for items in of] for of in (lists, expected)]
    np.testing.assert_allclose(np.concatenate(scores[0]), np.concatenate(scores[1]), rtol=2e-6)
    assert len({tuple(item for item, _ in items) for items in lists}) > 5, "the prompt matters"


def test_one_user_gets_what_many_get(world, server):
    prompts = world.prompts["prompt"].to_list()
    codes, log_probs = server.search(prompts)
    alone_codes, alone = server.search(prompts[3:4])
    np.testing.assert_array_equal(alone_codes[0], codes[3])
    np.testing.assert_allclose(alone[0], log_probs[3], rtol=2e-6)


WITHOUT_OUR_CODE = """
import runpy, sys

class Blocked:
    def find_spec(self, name, *others):
        if name.partition(".")[0] in {"plum_jax", "tasks", "flax", "orbax", "polars", "gin", "tensorflow"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_loader_needs_jax_and_numpy_alone(world, exported, server, tmp_path):
    prompts, history = world.prompts["prompt"].to_list()[:2], ["item-3", "item-7"]
    users = [{"prompt": prompts[0]}, {"prompt": prompts[1], "seen": ["item-1"]}, {"history": history, "seen": history}]
    copied = shutil.copytree(exported, tmp_path / "elsewhere")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_OUR_CODE, str(copied / "loader.py"), str(copied)],
        input="\n".join(map(json.dumps, users)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"XLA_FLAGS": FAST_COMPILING},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    served = [json.loads(line) for line in done.stdout.splitlines()]
    here = server.recommend([*prompts, server.prompt(history)], k=10, seen=[[], ["item-1"], history])
    assert [[item for item, _ in items] for items in served] == [[item for item, _ in items] for items in here]
    for there, items in zip(served, here, strict=True):
        np.testing.assert_allclose([score for _, score in there], [score for _, score in items], rtol=2e-6)


def test_a_prompt_of_items_is_what_the_recipe_says(world, server):
    vocabulary, table = world.recommender.vocabulary, world.recommender.table
    tokens = vocabulary.encode_sid(table.codes[[5, 2, 5]]).reshape(-1).tolist()
    assert server.prompt(["item-9", "item-5", "item-2", "item-5"]) == [260, *tokens]


def test_the_programs_are_for_every_platform_asked_for(exported):
    for length in LENGTHS:
        program = export.deserialize(bytearray((exported / f"search_{length}.stablehlo").read_bytes()))
        assert program.platforms == ("cpu", "tpu")


def test_what_cannot_be_served_is_refused(server):
    with pytest.raises(ServingError, match="prompt 1 has 32 tokens, this export takes at most 31"):
        server.search([[1], [1] * 32])
    size = server.facts["vocab_size"]
    for token in (-1, size):
        with pytest.raises(ServingError, match=f"prompt 0 has token {token}, expected ids from 0 to {size - 1}"):
            server.search([[3, token]])
    with pytest.raises(ServingError, match="'item-99' is not in the catalogue"):
        server.recommend([[3]], seen=[["item-99"]])
    with pytest.raises(ServingError, match="seen items for each of 2 prompts, got 1"):
        server.recommend([[3], [4]], seen=[[]])
    assert server.recommend([]) == []


def test_an_export_that_was_touched_is_not_served(exported, tmp_path):
    copied = shutil.copytree(exported, tmp_path / "copy")
    file = copied / "parameters.npz"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ServingError, match="parameters.npz was changed after it was written"):
        Server(copied)
    file.unlink()
    with pytest.raises(ServingError, match="parameters.npz is missing"):
        Server(copied)
    facts = json.loads((copied / "serving.json").read_text())
    (copied / "serving.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(ServingError, match="has format 99, this loader reads 1"):
        Server(copied)
    with pytest.raises(ServingError, match="expected a directory that gin/run/export_serving.gin wrote"):
        Server(tmp_path)


def test_another_export_gives_way_only_when_told(model, exported, tmp_path):
    copied = tmp_path / "serving"
    shutil.copytree(exported, copied)
    before = (copied / "serving.json").stat().st_mtime_ns
    write(model, copied)
    assert (copied / "serving.json").stat().st_mtime_ns == before, "the same export is left as it is"
    with pytest.raises(artifact.ArtifactError, match="an export of another model or with other settings"):
        write(model, copied, lengths=(7,))
    assert Server(copied).facts["lengths"] == [15, 31]
    write(model, copied, lengths=(7,), overwrite=True)
    assert Server(copied).facts["lengths"] == [7]


def test_prompts_of_more_than_items_come_as_tokens(model, exported, tmp_path):
    copied = shutil.copytree(exported, tmp_path / "copy")
    facts = json.loads((copied / "serving.json").read_text())
    (copied / "serving.json").write_text(json.dumps({**facts, "prompt": None}))
    with pytest.raises(ServingError, match="render them with the model's own templates"):
        Server(copied).prompt(["item-1"])
