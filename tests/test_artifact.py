"""Artefacts: complete or not there, and current only if made by the same config from the same inputs."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plum_jax import artifact


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 3
    names: tuple[str, ...] = ("a", "b")


def _write(directory, text="one", config=Config(), inputs=None, fail=False):
    def write(aside):
        (aside / "content.txt").write_text(text)
        if fail:
            raise KeyboardInterrupt

    return artifact.write_artifact(
        directory, kind="thing", fingerprint=artifact.fingerprint(text), config=config, inputs=inputs or {}, write=write
    )


def test_a_killed_write_leaves_the_previous_artefact(tmp_path):
    directory = tmp_path / "thing"
    _write(directory, "one")
    with pytest.raises(KeyboardInterrupt):
        _write(directory, "two", fail=True)
    assert (directory / "content.txt").read_text() == "one"
    assert artifact.is_current(directory, kind="thing", config=Config(), inputs={})
    _write(directory, "two")
    assert (directory / "content.txt").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_current_means_same_kind_config_and_inputs(tmp_path):
    directory = tmp_path / "thing"
    assert not artifact.is_current(directory, kind="thing", config=Config(), inputs={})
    _write(directory, inputs={"corpus": "x"})
    assert artifact.is_current(directory, kind="thing", config=Config(), inputs={"corpus": "x"})
    assert not artifact.is_current(directory, kind="other", config=Config(), inputs={"corpus": "x"})
    assert not artifact.is_current(directory, kind="thing", config=Config(size=4), inputs={"corpus": "x"})
    assert not artifact.is_current(directory, kind="thing", config=Config(), inputs={"corpus": "y"})


def test_what_is_not_a_complete_artefact_is_refused_with_what_to_do(tmp_path):
    directory = tmp_path / "thing"
    with pytest.raises(artifact.ArtifactError, match="there is no manifest.json: run the stage"):
        artifact.read_manifest(directory, "thing")
    _write(directory)
    with pytest.raises(artifact.ArtifactError, match="expected a corpus artefact .* but it is a thing"):
        artifact.read_manifest(directory, "corpus")
    manifest = directory / "manifest.json"
    whole = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(whole | {"schema_version": 99}))
    with pytest.raises(artifact.ArtifactError, match="schema version 99, this code reads 1"):
        artifact.read_manifest(directory, "thing")
    manifest.write_text(json.dumps(whole)[:-20])
    with pytest.raises(artifact.ArtifactError, match="is not a manifest"):
        artifact.read_manifest(directory, "thing")


def test_fingerprints_see_values_dtypes_and_shapes():
    base = np.arange(6, dtype=np.int32)
    others = [base.astype(np.int64), base.reshape(2, 3), base + 1, base[:5]]
    prints = {artifact.fingerprint(array) for array in [base, *others]}
    assert len(prints) == 5
    assert artifact.fingerprint(base[::2]) == artifact.fingerprint(np.array([0, 2, 4], np.int32))
    assert artifact.fingerprint(Config()) != artifact.fingerprint(Config(size=4))
    assert artifact.fingerprint("ab", "c") != artifact.fingerprint("a", "bc")


def test_functions_in_a_config_are_named():
    assert artifact.describe({"activation": jax.nn.silu}) == {"activation": "silu"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_a_description_survives_json(value):
    described = artifact.describe(value)
    assert json.loads(json.dumps(described)) == described
