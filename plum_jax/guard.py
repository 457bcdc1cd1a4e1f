"""What a job may do to the stages of a run: which settings differ is said before anything is made anew."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath

# Folders of a run that trained parameters depend on; what a job writes for itself lies elsewhere.
UPSTREAM = ("corpus", "features", "sids", "vocabulary", "records")
TRAINED = ("train", "systems")
_SHOWN = 8  # differences that one message names


class RunError(ValueError):
    """A run does not hold what a job asks of it, or holds what other settings have made."""


@dataclasses.dataclass(frozen=True)
class _Guarded:
    root: epath.Path
    serving: bool
    remake: bool


_guarded: list[_Guarded] = []


@contextlib.contextmanager
def guarded(root: epath.PathLike, *, serving: bool = False, remake: bool = False) -> Iterator[None]:
    """While it lasts, stages of the run `root` are not overwritten in silence.

    Args:
      root: MODEL_DIR.
      serving: a job that uses what was trained: no stage and no training is made or changed.
      remake: the user wants stages and trainings of other settings made anew.
    """
    _guarded.append(_Guarded(epath.Path(root), serving, remake))
    try:
        yield
    finally:
        _guarded.pop()


def remakes() -> bool:
    """Whether the user has said that trainings of other settings are to be made anew."""
    return bool(_guarded) and _guarded[-1].remake


def before_making(directory: epath.PathLike, found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> None:
    """Called where an artefact is not there as it is wanted; returns where it may be made.

    Args:
      directory: of the artefact.
      found: "config" and "inputs" of the one that is there; None: none is.
      wanted: the same of the one that is wanted (JSON values).

    Raises:
      RunError: it must not be made; names the settings that differ, with both values.
    """
    if not _guarded:
        return
    guard, where = _guarded[-1], _place(directory)
    if where is None:
        return
    told = "" if found is None else said(differences(found, wanted))
    if guard.serving:
        why = f"differs from what is asked for: {told}" if told else "is not there"
        raise RunError(
            f"{where} of the run {guard.root} {why}. This job only reads a run: take the directory of one that is "
            "finished, with its own settings (plum JOB RUN_DIR), or finish it first"
        )
    if where.split("/")[0] not in UPSTREAM or found is None:
        return
    if not guard.remake and (trained := _trained(guard.root)):
        raise RunError(
            f"{where} of {guard.root} was made with other settings, and {trained} was trained on it: {told}. Take the "
            "settings that it has, take another MODEL_DIR, or add --remake to make and train anew"
        )
    print(f"{where} is made anew: {told}")


def differences(found: Any, wanted: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """(setting, its value there, its value here) of JSON values that differ; lists are compared as a whole."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping) and found.get("type") == wanted.get("type"):
        names = [*wanted, *(name for name in found if name not in wanted)]
        parts = (differences(found.get(n), wanted.get(n), f"{path}.{n}" if path else str(n)) for n in names)
        return [difference for part in parts for difference in part]
    return [] if found == wanted else [(path, found, wanted)]


def said(different: list[tuple[str, Any, Any]]) -> str:
    """Differences in one line: settings first; other inputs are named where no setting differs."""
    settings = [(path.removeprefix("config."), *values) for path, *values in different if path.startswith("config")]
    if not settings:
        inputs = [path.removeprefix("inputs.") for path, *_ in different]
        return f"it was made from another {' and another '.join(inputs)}" if inputs else "nothing differs"
    shown = [f"{path} {_short(there)} there, {_short(here)} here" for path, there, here in settings[:_SHOWN]]
    more = f" and {len(settings) - _SHOWN} more" if len(settings) > _SHOWN else ""
    return "; ".join(shown) + more


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value.get("type", value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _place(directory: epath.PathLike) -> str | None:
    """The artefact's path inside the guarded run; None where it is no stage and no training of it."""
    parts, root = epath.Path(directory).parts, _guarded[-1].root.parts
    inside = parts[len(root) :]
    if parts[: len(root)] != root or not inside or inside[0] not in UPSTREAM + TRAINED:
        return None
    return "/".join(inside)


def _trained(root: epath.Path) -> str:
    """A training that the run holds, or has begun; "" for none."""
    for folder in TRAINED:
        directory = root / folder
        for training in sorted(directory.iterdir()) if directory.exists() else ():
            if any((training / name).exists() for name in ("params", "checkpoints")):
                return f"{folder}/{training.name}"
    return ""
