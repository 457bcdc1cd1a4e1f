"""What it takes to get the figures of a page again: commands, commits, artefacts, versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from plum_jax import artifact
from plum_jax.report.tables import (
    label,
)

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "seqio", "tensorflow", "faiss-cpu", "numpy")


def provenance(run: epath.Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All that is needed to get the same figures: commands, commits, seeds, artefacts, configuration, versions."""
    config = run / "config.gin"
    records = ("seed", "parameters", "wall_seconds", "commit", "config", "machine", "python", "jax")
    return {
        "commands": list(dict.fromkeys(row["command"] for row in rows if row.get("command"))),
        "records": [{"name": label(row, rows), **{key: row.get(key) for key in records}} for row in rows],
        "artifacts": _artifacts(run),
        "config": config.read_text() if config.exists() else None,
        "environment": {
            "Python": platform.python_version(),
            "machine": f"{platform.platform()}, {os.cpu_count()} cores",
            **{package: _version(package) for package in PACKAGES},
        },
    }


def _artifacts(run: epath.Path) -> list[dict[str, Any]]:
    """What each artefact's manifest says; an input that is one of these artefacts goes by its directory."""
    paths = [path for depth in ("*", "*/*", "*/*/*") for path in sorted(run.glob(f"{depth}/{artifact.MANIFEST}"))]
    found = {str(path.parent.relative_to(run)): json.loads(path.read_text()) for path in paths}
    found = {name: manifest for name, manifest in found.items() if not any(p.startswith(".") for p in name.split("/"))}
    homes = {manifest["fingerprint"]: name for name, manifest in reversed(found.items())}
    return [
        {
            "directory": name,
            "kind": manifest["kind"],
            "fingerprint": manifest["fingerprint"],
            "inputs": {key: homes.get(value, value) for key, value in manifest["inputs"].items()},
        }
        for name, manifest in found.items()
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
