"""Installs plum_jax. Versions are pinned by `requirements/constraints-<python>.txt`, which `make` passes to pip."""

import pathlib

import setuptools

README = pathlib.Path(__file__).parent / "README.md"

# Beam wants protobuf 6; sentencepiece from 0.2.2 on wants protobuf 7, and says so only when it is imported.
BEAM = ["apache-beam", "sentencepiece<0.2.2"]
NOTEBOOKS = ["ipykernel", "nbclient", "nbformat"]

setuptools.setup(
    name="plum_jax",
    version="0.1.0",
    description="Generative recommendation: Semantic IDs, continued pre-training, retrieval and scaling studies in JAX",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=setuptools.find_packages(include=["plum_jax", "plum_jax.*", "tasks", "tasks.*"]),
    package_data={"plum_jax": ["py.typed"], "plum_jax.report": ["*.html", "*.css"], "plum_jax.scaling": ["*.html"]},
    install_requires=[
        "array-record",
        "etils[epath]",
        "faiss-cpu",
        "flax",
        "gin-config",
        "grain",
        "importlib_resources",  # tensorflow-datasets imports it without declaring it
        "jax",
        "jinja2",
        "matplotlib",
        "numpy",
        "optax",
        "orbax-checkpoint",
        "polars",
        "pyarrow",
        "safetensors",
        "scikit-learn",
        "scipy",
        "sentencepiece",
        "seqio",
        "tensorboardX",
        "tensorflow",
        "tensorflow-datasets",
        "tensorflow-text",
        "threadpoolctl",
        "tokenizers",
        "tqdm",
        "wordllama",
    ],
    extras_require={
        "beam": BEAM,
        "bench": ["copt", "numba", "torch", "transformers"],
        "cpu": ["jax"],
        "tpu": ["jax[tpu]"],
        "gguf": ["gguf"],
        "gpu": ["jax[cuda13]"],
        "notebooks": NOTEBOOKS,
        "ray": ["ray"],
        "store": ["lancedb"],  # vectors of a trunk (docs/trunk.md)
        "test": [
            *BEAM,
            *NOTEBOOKS,
            "gguf",
            "hypothesis",
            "import-linter",
            "libtpu",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ray",
            "ruff",
        ],
    },
    entry_points={"console_scripts": ["plum = plum_jax.run:main"]},
)
