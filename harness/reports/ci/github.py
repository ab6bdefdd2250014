"""GitHub Actions: annotations by workflow commands, and the step summary.

A workflow command is a line of a step's output, ``::error title=TITLE::TEXT``, whose special characters are escaped, so
that a server's text cannot end it or begin another one. GitHub reads both streams; the commands go to stderr, since
stdout holds the report. Of each level it shows ten annotations per step.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.reports.ci.announcement import Announcement, at_most

MOST = 10
"""Annotations of each level that GitHub shows of a step."""
MOST_BYTES = 1024 * 1024
"""Of a step's summary; GitHub shows nothing of a larger one."""

_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_PROPERTY = _DATA | str.maketrans({":": "%3A", ",": "%2C"})


def workflow_commands(found: Sequence[Announcement]) -> Iterator[str]:
    """A line for each annotation."""
    for one in at_most(found, MOST):
        yield f"::{one.level.value} title={one.title.translate(_PROPERTY)}::{one.text.translate(_DATA)}"


def append_summary(path: Path, markdown: str) -> None:
    """Add to the step's summary, in which other programs of the step may have written. Raises OSError."""
    taken = path.stat().st_size if path.exists() else 0
    with path.open("ab") as file:
        file.write(_fitting(markdown, MOST_BYTES - taken))


_LEFT_OUT = "\n\nThe rest is left out: a step's summary has at most 1 MiB. The whole report is in the step's log.\n"


def _fitting(markdown: str, room: int) -> bytes:
    """The text as UTF-8 if there is room for it, else its first lines; nothing if there is no room even to say so."""
    whole = f"\n{markdown}\n".encode()
    if len(whole) <= room:
        return whole
    end = _LEFT_OUT.encode()
    kept = whole[: max(room - len(end), 0)].rpartition(b"\n")[0]
    return kept + end if kept else b""
