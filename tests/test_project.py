"""The project's own promises: gin files parse and say what they need, docs are true, versions are pinned."""

import ast
import importlib.metadata
import pathlib
import re
import runpy
import subprocess
import sys
import sysconfig
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gin import config as gin
from plum_jax import run
from plum_jax.model.config import DecoderConfig
from plum_jax.model.counts import parameter_counts
from plum_jax.model.decoder import Decoder

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("experiments/*/*.md")])
RUN, CORPUS, MODEL = "gin/run/pipeline.gin", "gin/corpus/own_csv_example.gin", "gin/model/cpu_nano.gin"


def gin_files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob(folder))


def configure(files: list[str], bindings: dict[str, str]) -> set[str]:
    """Parses a run, giving a value to each macro that it says is not set; returns those macros."""
    missing: set[str] = set()
    while True:
        try:
            given = {**bindings, **{name: "'somewhere'" for name in missing}}
            run.configure(files, [f"{name} = {value}" for name, value in given.items()])
        except run.ConfigError as error:
            name = re.match(r"the macro (\w+) is read but not set", str(error))
            if name is None or name[1] in missing:
                raise
            missing.add(name[1])
        else:
            return missing


def header(file: str) -> str:
    lines = (REPOSITORY / file).read_text().splitlines()
    return " ".join(line for line in lines if line.startswith("#"))


@pytest.fixture(autouse=True)
def clear_gin():
    yield
    gin.clear_config()


def test_every_gin_folder_is_checked_here():
    known = {
        "run",
        "ranking",
        "study",
        "launcher",
        "corpus",
        "model",
        "optimizer",
        "mesh",
        "pretrained",
        "semantic_ids",
        "systems",
        "tasks",
        "t5x",
    }
    assert {path.parent.name for path in REPOSITORY.glob("gin/**/*.gin")} <= known


# What is only read as a part of another -> one that includes it.
PARTS = {
    "gin/run/lum_steps.gin": "gin/run/lum_query.gin",
    "gin/ranking/with_lum.gin": "gin/run/lum_use.gin",
    "gin/run/trunk_steps.gin": "gin/run/trunk.gin",
    "experiments/trunk/sizes.gin": "experiments/trunk/study.gin",
    "gin/systems/search_towers.gin": "gin/run/product_search_judged.gin",
    "experiments/search/beauty.gin": "experiments/search/arms.gin",
}


def read_with(file: str) -> list[str]:
    """The files that a gin file is given with, itself among them."""
    text, folder = (REPOSITORY / file).read_text(), file.rpartition("/")[0]
    corpus = [] if folder == "gin/corpus" else [CORPUS]
    if folder == "gin/corpus" and "payments" in file:
        return ["gin/run/payments.gin", file]
    if folder == "gin/study" or "gin/run/study" in file:
        if file.rpartition("_")[2] in ("status.gin", "fit.gin", "forecast.gin", "score.gin"):
            return [file]
        study = file if folder == "gin/study" and not file.endswith("/small.gin") else "gin/study/simulated.gin"
        if "include 'gin/run/study.gin'" in text:
            return [file, CORPUS, study]
        job = "gin/run/study_run.gin" if file == "gin/run/study_one_cell.gin" else "gin/run/study_plan.gin"
        return [job, CORPUS, study, *([] if file == study else [file])]
    if file == "gin/run/fit_settings.gin":
        return ["gin/run/fit.gin"]
    if file in PARTS:
        return [PARTS[file]]
    if file == "gin/run/continue.gin":
        return [RUN, *corpus, MODEL, file]
    if folder == "gin/launcher":
        return ["gin/run/study_run.gin", CORPUS, "gin/study/simulated.gin", file]
    if "run.run:" in text:
        # A run without the pipeline reads neither corpus nor model.
        return [*corpus, MODEL, file] if "gin/run/stages.gin" in text else [file]
    study = f"{folder}/study.gin"  # what the other files of an experiment's folder are read behind
    if folder == "experiments/plum_frontier":
        return ["gin/run/fit.gin", file]
    if folder == "experiments/lum":
        if file.endswith("/scaling.gin"):
            return ["gin/run/study_plan.gin", "gin/corpus/ml_1m.gin", "gin/study/lum.gin", file]
        return [study] if file == study else [study, file]
    if folder == "experiments/language":
        return [RUN, CORPUS, MODEL, "gin/tasks/language.gin", file]
    if folder == "experiments/steering":
        tasks = [f"gin/tasks/{name}.gin" for name in ("language", "explanations", "requests")]
        return [RUN, "gin/corpus/ml_1m.gin", MODEL, *tasks, file]
    if folder == "experiments/accuracy/search":
        common = f"{folder}/common.gin"
        return [common] if file == common else [common, file]
    if file == "experiments/trunk/scaling.gin":
        return ["gin/run/study_plan.gin", "gin/corpus/ml_1m.gin", "gin/study/trunk.gin", file]
    if folder == "experiments/query_understanding":
        return [file] if file.endswith("/ml_1m.gin") else [*corpus, file]
    if file == "experiments/relevance/minilm.gin":
        return [f"{folder}/home_depot.gin", file]
    if folder in {f"experiments/{name}" for name in ("unicorn", "trunk", "search", "relevance", "m6rec")}:
        return [file]
    if folder == "experiments/days":
        return ["gin/run/days.gin", file, MODEL]
    if folder == "experiments/payments":
        return [study, f"{folder}/simulator.gin"] if file == study else [study, file]
    if folder in ("experiments/accuracy", "experiments/init_cpt"):
        return [study, *corpus, *([] if file == study else [file])]
    if folder == "experiments/cold_start":
        return ["experiments/accuracy/study.gin", "experiments/accuracy/ml_1m.gin", file]
    if folder.startswith("experiments/") and (REPOSITORY / study).exists():
        return [study, *corpus, MODEL, file, *([f"{folder}/v2.gin"] if file == study else [])]
    return [RUN, *corpus, MODEL, file]


# Those of gin/t5x/ are read by T5X's programs: tests/interop/t5x/test_t5x_gin.py.
OURS = [file for file in gin_files("gin/**/*.gin") + gin_files("experiments/**/*.gin") if "t5x/" not in file]


@pytest.mark.parametrize("file", OURS)
def test_every_gin_file_parses_and_what_must_be_set_is_said_in_its_header(file: str):
    files = read_with(file)
    needed = configure(files, {})
    assert (REPOSITORY / file).read_text().startswith("# "), "a gin file begins with a comment that says what it is"
    for macro in needed:
        assert any(macro in header(f) and "equired" in header(f) for f in files), (
            f"no header says that {macro} is required"
        )


@pytest.mark.parametrize("file", gin_files("gin/model/*.gin"))
def test_every_size_builds_and_has_the_parameters_that_its_header_says(file: str):
    configure([RUN, CORPUS, file], {"MODEL_DIR": "'somewhere'"})
    config = gin.get_configurable(DecoderConfig)()
    one = jnp.zeros((1, 1), jnp.int32)
    decoder = Decoder(config, 1000)
    shapes = jax.eval_shape(lambda key: decoder.init(key, one, one, jnp.ones((1, 1, 1), bool)), jax.random.key(0))
    counts = parameter_counts(config, 1000)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == counts["total"]
    said = re.search(r"About ([\d.]+) (thousand|million|billion) parameters without embeddings", header(file))
    assert said, "the header says how large the model is"
    number = float(said[1]) * {"thousand": 1e3, "million": 1e6, "billion": 1e9}[said[2]]
    assert counts["non_embedding"] == pytest.approx(number, rel=0.1)


def blocks(document: pathlib.Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [block for tag, block in fenced if tag == language]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_gin_and_python_in_the_documents_are_true(document: pathlib.Path, tmp_path: pathlib.Path):
    for number, block in enumerate(blocks(document, "gin")):
        file = tmp_path / f"block_{number}.gin"
        file.write_text(block)
        run.configure([RUN, CORPUS, MODEL, str(file)], ["MODEL_DIR = 'somewhere'", "DATA_DIR = 'somewhere'"])
    for block in blocks(document, "python"):
        imports = [node for node in ast.parse(block).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, type_ignores=[]), str(document), "exec"), {})  # names that are gone fail here


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_files_and_commands_in_the_documents_exist(document: pathlib.Path):
    text = document.read_text()
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not link.startswith("https://"):
            assert (document.parent / link).exists(), f"{document.name} links to {link}, which is not there"
    for file in re.findall(r"\bgin/\w+/\w+\.gin", text):
        assert (REPOSITORY / file).exists(), f"{document.name} names {file}, which is not there"
    targets = re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z][a-z0-9-]*)", text, flags=re.MULTILINE):
        assert target in targets, f"{document.name} says `make {target}`, which the Makefile does not have"


def test_the_readme_s_tree_is_the_tree_there_is():
    (tree,) = [block for block in blocks(REPOSITORY / "README.md", "text") if block.startswith("plum_jax/")]
    named, parent = set(), ""
    for line in tree.splitlines():
        name = line.split()[0]
        path = (parent if line.startswith("  ") else "") + name
        if name.endswith("/") and not line.startswith(" "):
            parent = name
        assert (REPOSITORY / path).exists(), f"the README's tree has {path}, which is not there"
        named.add(path.rstrip("/"))
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    parts = [pathlib.PurePath(file).parts for file in tracked.stdout.splitlines()]
    there = {p[0] for p in parts if len(p) > 1} | {"/".join(p[:2]) for p in parts if p[0] == "plum_jax" and len(p) > 1}
    unnamed = {path for path in there - named if not re.search(r"^\.|__init__|py\.typed|report\.html", path)}
    assert not unnamed, f"the README's tree leaves out {sorted(unnamed)}"


def test_no_figure_is_left_to_be_filled_in():
    for document in DOCUMENTS:
        assert "TODO-" + "FIGURE" not in document.read_text(), f"{document.name} has figures to be filled in"


def test_nothing_speaks_of_one_machine():
    files = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    private = re.compile(r"(?<![\w.$}])/(home|root|work|opt|Users)/\w|pythonhosted|/simple\b|index-url|find-links")
    for file in files.splitlines():
        path = REPOSITORY / file
        if (
            path.suffix in (".py", ".md", ".gin", ".txt", ".toml", ".html", "")
            and path.is_file()
            and path != REPOSITORY / "tests/test_project.py"
        ):
            found = private.search(path.read_text())
            assert not found, f"{file} speaks of {found and found[0]!r}"


def setup_arguments() -> dict:
    with mock.patch.object(setuptools, "setup") as setup:
        runpy.run_path(str(REPOSITORY / "setup.py"))
    return setup.call_args.kwargs


@pytest.mark.parametrize("version", ["3.11", "3.12"])
def test_the_constraints_pin_all_that_setup_asks_for(version: str):
    lines = (REPOSITORY / f"requirements/constraints-{version}.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    for line in pins:
        assert re.fullmatch(r"[\w.-]+==[\w.+!]+", line), f"{line!r} is not one exact version of one package"
    pinned = {canonicalize_name(line.split("==")[0]) for line in pins}
    arguments = setup_arguments()
    extras = arguments["extras_require"]
    wanted = [
        *arguments["install_requires"],
        *extras["cpu"],
        *extras["test"],
        *extras["notebooks"],
        "setuptools",
        "wheel",
    ]
    for requirement in wanted:
        assert canonicalize_name(Requirement(requirement).name) in pinned, f"{requirement} is not pinned: make lock"


def test_the_constraints_are_of_this_environment():
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    lines = (REPOSITORY / f"requirements/constraints-{version}.txt").read_text().splitlines()
    pins = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines if line[0] != "#")}
    here = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])  # not what setuptools carries inside
    installed = {canonicalize_name(distribution.name): distribution.version for distribution in here}
    tools = {"setuptools", "wheel"}  # nothing of ours runs with them
    other = {name: (installed[name], pins[name]) for name in pins.keys() & installed.keys() - tools}
    assert len(other) > 50, "this test runs in an environment that has what the constraints name"
    wrong = {name: versions for name, versions in other.items() if versions[0] != versions[1]}
    assert not wrong, f"installed and pinned versions differ: {wrong}"


def test_every_package_that_is_imported_is_declared_and_no_other_is():
    imported = set()
    for file in [*REPOSITORY.glob("plum_jax/**/*.py"), *REPOSITORY.glob("tasks/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add((node.module or "").split(".")[0])
    imported -= {*sys.stdlib_module_names, "plum_jax", "tasks"}
    optional = {
        "apache_beam",
        "gguf",
        "lancedb",
        "ray",
        "sentence_transformers",
        "torch",
        "t5x",
        "clu",
    }  # clu comes with T5X
    homes = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(Requirement(name).name) for name in setup_arguments()["install_requires"]}
    undeclared = {
        package
        for package in imported - optional
        if not declared & {canonicalize_name(name) for name in homes.get(package, [])}
    }
    assert not undeclared, f"{sorted(undeclared)} are imported and not declared in setup.py"
    used = {canonicalize_name(name) for package in imported for name in homes.get(package, [])}
    indirect = {"importlib-resources", "wordllama"}  # see setup.py; the files in its wheel are read
    assert not declared - used - indirect, f"{sorted(declared - used - indirect)} are declared and nowhere imported"


def test_no_file_of_the_packages_is_over_three_hundred_lines():
    files = [file for package in ("plum_jax", "tasks") for file in (REPOSITORY / package).glob("**/*.py")]
    long = {str(file.relative_to(REPOSITORY)): len(file.read_text().splitlines()) for file in files}
    assert not {name: lines for name, lines in long.items() if lines > 300}, "split by what they do"
