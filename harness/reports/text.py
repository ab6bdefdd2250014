"""The format of numbers and of foreign text in all reports."""

import math
import re

# Reports quote servers' error bodies, whose escape sequences must not reach a terminal, nor forbidden characters XML:
# C0 and C1 controls, surrogates, the two non-characters, and marks that change the writing direction.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """The text without unprintable characters, all its spaces kept: line breaks and tabs become spaces."""
    return _UNPRINTABLE.sub(lambda found: " " if found[0].isspace() else "\N{REPLACEMENT CHARACTER}", text)


def clean(text: str, limit: int | None = 240) -> str:
    """One line of printable text, at most ``limit`` characters."""
    line = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: limit - 3] + "..."


def count(value: float | None) -> str:
    """A counter's exact value; ``-`` if there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if math.isfinite(value) and value == int(value) else f"{value:,}"


def signed(value: float) -> str:
    """A difference with its sign."""
    return f"+{count(value)}" if value > 0 else count(value)


def figure(value: float | None) -> str:
    """A measurement to three or four digits: ``0.42``, ``9.87``, ``98.7``, ``987``, ``12,345``; ``-`` if none."""
    if value is None or not math.isfinite(value):
        return "-"
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:,.{decimals}f}"


def duration(seconds: float) -> str:
    """``4.2 s`` below ten seconds, ``52 s`` below two minutes, then ``3 min 05 s``, ``2 h 03 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def plural(number: int, noun: str) -> str:
    """``1 check``, ``2 checks``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
