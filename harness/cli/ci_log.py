"""Keeps foreign text from being read as commands where a CI system reads a step's output. Pure.

What is printed quotes servers: error bodies, answers, ends of logs. GitHub's runner reads each line of both streams. It
takes ``::NAME ...::`` for a command if nothing but blanks stand before it, and ``##[NAME]`` wherever it stands: it
would hide words of the log, annotate files, or read no command any more, annotations included. Buildkite begins a
section of the log at a line that begins with ``---``, ``+++``, ``~~~`` or ``^^^``. A space goes into each such marker.

GitHub's ``::stop-commands::`` is not used: the two streams reach the runner in no certain order, a process that is
killed cannot undo it, and the log is coloured by such markers nevertheless.
"""

import re
from collections.abc import Mapping

# A line also ends at a carriage return alone.
_BEGINNING = r"(?:^|(?<=[\r\n]))"
_GITHUB = rf"{_BEGINNING}[^\S\r\n]*:(?=:)|(?<=##)(?=\[)"
_BUILDKITE = rf"{_BEGINNING}(?:--(?=-)|\+\+(?=\+)|~~(?=~)|\^\^(?=\^))"
_LONGEST = 2
"""Characters of a marker before the one that completes it."""


class CiLog:
    """Makes the text of one stream harmless, whatever parts it is written in."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """``environment`` says which CI system reads the stream; if it is none, no text is changed."""
        detected = {"GITHUB_ACTIONS": _GITHUB, "BUILDKITE": _BUILDKITE}
        patterns = [pattern for name, pattern in detected.items() if environment.get(name) == "true"]
        self._markers = re.compile("|".join(patterns)) if patterns else None
        self._before = ""
        """The end of what was written, as far as a marker may have begun there."""

    def harmless(self, text: str) -> str:
        """The next part of the stream, with a space in every marker that it completes."""
        if self._markers is None or not text:
            return text
        whole, known = self._before + text, len(self._before)
        ends = [found.end() for found in self._markers.finditer(whole) if found.end() >= known]
        self._before = _unfinished(whole)
        pieces = [whole[start:end] for start, end in zip((known, *ends), (*ends, len(whole)), strict=True)]
        return " ".join(pieces)


def _unfinished(text: str) -> str:
    """What decides whether text that follows completes a marker: the last line, in a few characters."""
    line = re.split(r"[\r\n]", text)[-1]
    shown = line.lstrip()
    if len(shown) <= _LONGEST:
        return (" " if len(shown) < len(line) else "") + shown
    return "." + line[-_LONGEST:]
