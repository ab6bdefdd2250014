"""Checks before a run that the files that flags name can be written: a run may take an hour."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness.cli.options import Options
from harness.errors import UsageError
from harness.store.atomic import is_special


def require_places(options: Options) -> None:
    """Make the directories of all files that flags name, and check that files can be made there. Raises UsageError."""
    for flag, path in _named(options):
        try:
            _require(path)
        except OSError as error:
            raise unwritable(flag, path, error) from error


def unwritable(flag: str, path: Path, error: OSError) -> UsageError:
    """The error for a file that a flag names and that cannot be written."""
    advice = "Name a file in a directory that exists and can be written to."
    return UsageError(f"{flag} {path} cannot be written: {error.strerror}. {advice}")


def _named(options: Options) -> Iterator[tuple[str, Path]]:
    report = options.report
    if report.junit is not None:
        yield "--junit", report.junit
    yield from report.files.named
    if report.result_filename:
        yield "--result-filename", report.result_dir / report.result_filename
    if options.verification.noise_floor is not None:
        yield "--noise-floor", options.verification.noise_floor
    if options.compare is not None and options.compare.output is not None:
        yield "--output", options.compare.output
    if options.output is not None:
        yield "--output", options.output
    if options.state_file is not None:
        yield "--state-file", options.state_file


def _require(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(None, "it is a directory")
    if is_special(path):
        if not os.access(path, os.W_OK):
            raise PermissionError(None, "it may not be written to")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file is made, since permissions do not show that a file system is read-only or full.
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass
