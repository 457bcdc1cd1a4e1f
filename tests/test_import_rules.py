"""Who may import whom: the contracts in pyproject.toml hold, they catch what they are for, and imports stay light."""

import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]

# Contract -> (file, an import that it must not let pass).
PLANTED = {
    "Data flows one way": ("plum_jax/training/step.py", "import plum_jax.systems.generative.pipeline"),
    "The model imports nothing of ours": ("plum_jax/model/config.py", "import plum_jax.artifact"),
    "The corpus imports nothing of ours": ("plum_jax/corpus/schema.py", "import plum_jax.model.config"),
    "Retrieval does not know": ("plum_jax/retrieval/trie.py", "import plum_jax.objectives.next_token"),
    "Tasks know corpus": ("tasks/templates.py", "import plum_jax.model.masks"),
    "The vocabulary needs no training": ("plum_jax/semantic_ids/vocabulary.py", "import plum_jax.training.trainer"),
    "gin only in run.py": ("tasks/mixtures.py", "import gin"),
    "TensorFlow only in tasks": ("plum_jax/evaluation/metrics/ranking.py", "import tensorflow"),
    "Orbax only in checkpoints": ("plum_jax/training/trainer.py", "import orbax.checkpoint"),
    "matplotlib only in charts": ("plum_jax/report/page.py", "import matplotlib.pyplot"),
    "Apache Beam only in": ("plum_jax/semantic_ids/catalogue/assign.py", "import apache_beam"),
    "faiss only in": ("plum_jax/retrieval/top_k.py", "import faiss"),
    "LanceDB only": ("plum_jax/retrieval/shards.py", "import lancedb"),
    "Ray only in": ("plum_jax/studies/launch_local.py", "import ray"),
    "T5X only in": ("plum_jax/jobs/prepare.py", "import t5x"),
    "No circles": ("plum_jax/semantic_ids/codec.py", "import plum_jax.semantic_ids.quantization"),
}


def lint_imports(root: pathlib.Path) -> dict[str, str]:
    """Contract -> "KEPT" or "BROKEN", for the packages in `root`."""
    tool = pathlib.Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([tool, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    lines = [line.split(" (")[0] for line in done.stdout.splitlines() if "KEPT" in line or "BROKEN" in line]
    verdicts = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines}
    assert verdicts, f"lint-imports said nothing of contracts: {done.stdout}{done.stderr}"
    return verdicts


def test_the_contracts_hold_and_each_catches_what_it_is_for(tmp_path: pathlib.Path):
    assert set(lint_imports(REPOSITORY).values()) == {"KEPT"}
    for package in ("plum_jax", "tasks"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for file, planted in PLANTED.values():
        with (tmp_path / file).open("a") as source:
            source.write(f"\n{planted}\n")
    verdicts = lint_imports(tmp_path)
    assert len(verdicts) == len(PLANTED), "a contract without a planted import, or one planted twice"
    for name, (file, planted) in PLANTED.items():
        (verdict,) = [v for contract, v in verdicts.items() if contract.startswith(name)]
        assert verdict == "BROKEN", f"{planted!r} in {file} passed {name!r}"


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (
            "plum_jax.training.trainer, plum_jax.systems.generative.evaluator, plum_jax.report.page",
            ["tensorflow", "tensorflow_datasets", "seqio", "gin", "apache_beam"],
        ),
        (
            "plum_jax.model.decoder, plum_jax.objectives.next_token",
            ["tensorflow", "orbax", "polars", "grain", "matplotlib"],
        ),
        (
            "plum_jax.corpus.schema, plum_jax.semantic_ids.table, plum_jax.semantic_ids.vocabulary",
            ["jax", "tensorflow"],
        ),
    ],
)
def test_importing_what_needs_no_tensorflow_does_not_load_it(modules: str, absent: list[str]):
    """The contracts see our imports; this sees those of the libraries we import."""
    code = f"import sys, {modules}; print([name for name in {absent} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]", f"importing {modules} loads {done.stdout}"
