"""experiments/scaling: the notebook runs from end to end, and the tables of the README are those of its files."""

import os
import pathlib
import shutil
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.scaling.made_study import write_made_study

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENT = REPOSITORY / "experiments" / "scaling"


def test_the_notebook_has_no_outputs_and_computes_nothing_itself():
    notebook = nbformat.read(EXPERIMENT / "scaling.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    assert not [cell for cell in code if "numpy" in cell.source or "def " in cell.source]


def test_the_notebook_runs(tmp_path, monkeypatch):
    """On the committed rows of MovieLens, with few draws; the kernel is the Python that runs this test."""
    monkeypatch.setenv("JUPYTER_PATH", str(_kernel(tmp_path)))
    monkeypatch.setenv("DRAWS", "10")
    monkeypatch.setenv("STUDY", "movielens")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(EXPERIMENT / "scaling.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="this", resources={"metadata": {"path": str(EXPERIMENT)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "".join(output.get("text", "") for output in outputs)
    assert "parametric law, Huber" in text
    assert "Forecast before the runs: recall@10" in text
    assert "straight line in log C" in text
    assert len([o for o in outputs if "image/svg+xml" in o.get("data", {})]) >= 10


def _kernel(directory: pathlib.Path) -> pathlib.Path:
    """A data directory of Jupyter whose kernel `this` is the running Python."""
    kernels = directory / "kernels" / "this"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"], '
        '"display_name": "this", "language": "python"}'
    )
    return directory


def run_tables(readme: pathlib.Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(EXPERIMENT / "tables.py"), str(readme)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_tables_are_written_between_the_markers_and_the_same_twice(tmp_path):
    write_made_study(tmp_path / "made")
    readme = tmp_path / "README.md"
    readme.write_text("# Head\n\n<!-- made -->\nold words\n<!-- end of made -->\n\nTail\n")
    run_tables(readme)
    first = readme.read_text()
    assert first.startswith("# Head\n")
    assert first.endswith("<!-- end of made -->\n\nTail\n")
    assert "old words" not in first
    assert "| parametric law, Huber | 0.469 [0.449, 0.489] |" in first
    assert "(made/recall.svg)" in first
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "made").glob("*.svg")}
    run_tables(readme)
    assert readme.read_text() == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "made").glob("*.svg")} == pictures


@pytest.mark.slow
def test_the_readme_is_what_its_files_say(tmp_path):
    copy = tmp_path / "scaling"
    shutil.copytree(EXPERIMENT, copy)
    run_tables(copy / "README.md")
    assert (copy / "README.md").read_text() == (EXPERIMENT / "README.md").read_text()
