"""Checks before anything is started that the files which the user wants written can be written.

A run may take an hour: a wrong path must not be found out at its end.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.cli.options import Options
from harness.errors import UsageError


def require_places(options: Options) -> None:
    """Make the directories of all files that flags name, and check that files can be made there. Raises UsageError."""
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
    if options.verification.noise_floor is not None:
        yield "--noise-floor", options.verification.noise_floor
    if options.state_file is not None:
        yield "--state-file", options.state_file


def _require(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(None, "it is a directory")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file is really made: permissions alone do not show that a file system is read-only or full.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass
