"""Which stored runs the command line names, and what compare needs of each."""

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.compare import StoredRun
from harness.errors import UsageError
from harness.memo import forget
from harness.store import load_run

_HISTORY, _RESULT = "history.jsonl", "result.json"


def run_dirs(words: Sequence[str]) -> list[Path]:
    """The directories of runs, each once.

    A word is a run's directory, a directory that has runs in it, a glob, or several of these with commas between.
    Raises UsageError if a word names no run.
    """
    found = [path for word in words for part in _parts(word) for path in _named(part)]
    return list({path.resolve(): path for path in found}.values())


def _parts(word: str) -> list[str]:
    return [word] if Path(word).exists() else [part for part in word.split(",") if part]


def _named(word: str) -> Iterator[Path]:
    places = [word] if Path(word).exists() else sorted(glob.glob(word))  # noqa: PTH207 - the glob may be absolute
    found = [path for place in places for path in _runs(Path(place))]
    if not found:
        raise UsageError(
            f"{word} names no stored run. Name a run's directory, which has {_HISTORY}, a directory of such "
            "directories, a glob in quotes, or several with commas between."
        )
    yield from found


def _runs(path: Path) -> list[Path]:
    if (path / _HISTORY).is_file():
        return [path]
    # The link to the newest run is one of the others.
    return sorted(one.parent for one in path.glob(f"*/{_HISTORY}") if not one.parent.is_symlink())


def read_run(path: Path) -> StoredRun:
    """Read one run. Raises UsageError with what is missing or damaged."""
    result = _result(path / _RESULT)
    deployment, history = load_run(path)
    run = StoredRun.of(str(path), deployment, history, result)
    # What judging remembered holds the whole history.
    forget()
    return run


def _result(path: Path) -> dict[str, Any]:
    again = f"`python -m harness check --save {path.parent}` judges the run and writes it"
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist: the run was killed before its end. {again}.") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}. {again}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object. {again}.")
    return content
