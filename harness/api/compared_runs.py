"""Compares stored runs by their directories: which runs a name means, and what is read of each."""

import filecmp
import glob
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.memo import forget
from harness.store import load_run

if TYPE_CHECKING:
    from harness.compare import Comparison, StoredRun

_HISTORY, _RESULT = "history.jsonl", "result.json"


def compare_runs(
    baseline: str | Path | Sequence[str | Path],
    run: str | Path | Sequence[str | Path],
    *,
    fail_on: Sequence[str] = (),
    allow_different: Sequence[str] = (),
) -> "Comparison":
    """What changed between two sets of stored runs, and whether it is real. Give 5 runs of each, made in turns.

    Args:
        baseline: the baseline's runs: directories of runs, or directories that have runs in them.
        run: the runs that are compared with them.
        fail_on: limits, as in ``p99_ttft:+10%``; without them, any real worsening counts.
        allow_different: settings that may differ, such as ``num_prompts``.

    Raises:
        UsageError: a run cannot be read, or a limit has no meaning.
        NotComparableError: the runs differ in model, deployment, workload or faults.

    """
    from harness.compare import compare, parse_thresholds  # noqa: PLC0415 - scipy takes most of a second to import

    thresholds = parse_thresholds(fail_on)
    old, new = (run_dirs([str(one) for one in _several(side)]) for side in (baseline, run))
    if both := {one.resolve() for one in old} & {one.resolve() for one in new}:
        raise UsageError(f"{min(both)} is named on both sides. A run can be compared with other runs only.")
    of_baseline = _Distinct()
    for path in old:
        of_baseline.add(path)
    if copy := next(((path, other) for path in new if (other := of_baseline.copied(path))), None):
        raise UsageError(f"{copy[0]} is a copy of {copy[1]}. A run can be compared with other runs only.")
    return compare(
        [read_run(path) for path in old],
        [read_run(path) for path in new],
        thresholds,
        allow_different=allow_different,
    )


def _several(side: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return [side] if isinstance(side, str | Path) else side


def run_dirs(words: Sequence[str]) -> list[Path]:
    """The directories of runs, each once. Copies count once, too: they say nothing of how much runs differ.

    A word is a run's directory, a directory that has runs in it, a glob, or several of these with commas between.
    Raises UsageError if a word names no run.
    """
    found = _Distinct()
    named = (path for word in words for part in _parts(word) for path in _named(part))
    return [path for path in named if found.add(path)]


class _Distinct:
    """Runs of which none is a copy of another. Only those whose histories have as many bytes are read and compared."""

    def __init__(self) -> None:
        self._by_size: dict[int, list[Path]] = {}

    def add(self, path: Path) -> bool:
        """Add a run; returns whether it was new."""
        if self.copied(path):
            return False
        self._by_size.setdefault(_size(path), []).append(path)
        return True

    def copied(self, path: Path) -> Path | None:
        """The run of which this is a copy; None if there is none."""
        return next((one for one in self._by_size.get(_size(path), ()) if _copies(one, path)), None)


def _size(run: Path) -> int:
    """The bytes of its history; -1 if there is none that can be read."""
    try:
        return (run / _HISTORY).stat().st_size
    except OSError:
        return -1


def _copies(one: Path, other: Path) -> bool:
    """Whether two directories have the same run, as where a link was replaced by what it leads to."""
    try:
        return filecmp.cmp(one / _HISTORY, other / _HISTORY, shallow=False)
    except OSError:
        # Whoever reads the run says what is wrong.
        return False


def _parts(word: str) -> list[str]:
    return [word] if _exists(word) else [part for part in word.split(",") if part]


def _exists(word: str) -> bool:
    # Path("") is the working directory, and Path.exists() fails if a list is too long for a file's name.
    return os.path.exists(word)  # noqa: PTH110


def _named(word: str) -> Iterator[Path]:
    places = [word] if _exists(word) else sorted(glob.glob(word))  # noqa: PTH207 - the glob may be absolute
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


def read_run(path: Path) -> "StoredRun":
    """Read one run. Raises UsageError with what is missing or damaged."""
    from harness.compare import StoredRun  # noqa: PLC0415 - see above

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
