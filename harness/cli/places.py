"""Files that the user wants written: refused before anything is started where they could not be.

A run may take an hour. That its verdict has nowhere to go must not be found out at its end.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.cli.options import Options
from harness.errors import UsageError


def require_places(options: Options) -> None:
    """Make the directories of all files that flags name, and see that a file can be put there. Raises UsageError."""
    for flag, path in _named(options):
        try:
            _require(path)
        except OSError as error:
            raise UsageError(
                f"{flag} {path} cannot be written: {error.strerror}. Name a file in a directory that exists and can "
                "be written to."
            ) from error


def _named(options: Options) -> Iterator[tuple[str, Path]]:
    report = options.report
    if report.junit is not None:
        yield "--junit", report.junit
    if report.result_filename:
        yield "--result-filename", report.result_dir / report.result_filename
    if options.load.noise_floor is not None:
        yield "--noise-floor", options.load.noise_floor
    if options.state_file is not None:
        yield "--state-file", options.state_file


def _require(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(None, "it is a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Asked by doing: permissions alone do not tell of a file system that is read-only or full.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass
