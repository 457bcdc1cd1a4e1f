"""Without T5X, or with one that has another interface, there is one clear error; these tests run in both cases."""

import subprocess
import sys

import pytest
from t5x_run import REPOSITORY

LOOK = """
import sys
sys.modules["t5x"] = None
from plum_jax.interop import InteropError
try:
    import plum_jax.interop.t5x.{module}
except InteropError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("module", ["sid_model", "checkpoints", "partitioner", "mixtures"])
def test_t5x_is_missed_by_name(module):
    code = LOOK.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    said = done.stdout.strip().splitlines()[-1]
    assert said.startswith("T5xError expected T5X beside plum_jax, but t5x.checkpoints cannot be imported"), said
    assert "docs/t5x.md says how to install it from source" in said


def test_what_another_t5x_lacks_is_named():
    code = """
import sys, types
from plum_jax.interop.t5x import __name__ as package
names = ["checkpoints", "checkpoint_utils", "metrics", "models", "optimizers", "partitioning", "trainer", "train_state"]
for name in ["t5x", *(f"t5x.{name}" for name in names), "t5x.utils"]:
    sys.modules[name] = types.ModuleType(name)
try:
    import plum_jax.interop.t5x.installed
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    said = done.stdout.strip().splitlines()[-1]
    assert said.startswith("this T5X lacks t5x.checkpoints.OrbaxCheckpointManagerInterface, ")
    assert "t5x.models.BaseTransformerModel" in said and "take a commit that has them" in said
