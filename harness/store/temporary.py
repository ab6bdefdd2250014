"""A journal for a run that is not stored, so that its history does not lie in memory: it goes with the last entry."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.store.journal import JournalWriter


@contextmanager
def temporary_journal() -> Iterator[JournalWriter | None]:
    """A journal in the system's directory for temporary files, without a name there, so that nothing is left behind.

    Entries are read from it as long as they exist, and a killed process leaves nothing. None if no file can be made:
    then the history stays in memory.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="pd-harness-") as directory:
            # The file stays open when the directory is gone.
            writer = JournalWriter(Path(directory) / "history.jsonl")
    except OSError:
        yield None
        return
    with writer:
        yield writer
