"""How the text of ``/metrics`` is spoiled. No I/O."""

import re
from collections.abc import Callable, Iterator
from enum import StrEnum

_STARTED = "process_start_time_seconds"
_LINE = re.compile(r"^(?P<series>[^#\s{]+(?:\{.*\})?)\s+(?P<value>\S+)(?P<rest>.*)$")
_GROWING = ("_total", "_sum", "_count", "_bucket")
"""The ends of the names of what only grows while a process lives."""


class Spoiling(StrEnum):
    """What is wrong with the answers."""

    NOTHING = "nothing"
    SLOW = "slow"
    """They come so slowly that nobody waits for their end."""
    CUT = "cut"
    """The connection is reset in the middle of them."""
    SHORT = "short"
    """They end in the middle, after a whole line, and nothing says that more was to come."""
    ERROR = "500"
    """They have the status 500."""
    NAN = "nan"
    """All values are NaN."""
    RESTARTED = "restarted"
    """All counters begin again from zero, with a new start time, as if the process had been restarted."""


def first_half(text: str) -> str:
    """The first half of the exposition, up to the end of a line."""
    return text[: text.rfind("\n", 0, len(text) // 2) + 1]


def with_nan(text: str) -> str:
    """The exposition with NaN for every value."""
    return _each(text, lambda _series, _value: "NaN")


def from_zero(text: str, baseline: str, started: float) -> str:
    """The exposition as if its process had started at ``started`` (seconds since 1970), with ``baseline``'s counts."""
    before = dict(_values(baseline))

    def since(series: str, value: str) -> str:
        name = series.partition("{")[0]
        if name == _STARTED:
            return repr(started)
        return repr(float(value) - before.get(series, 0.0)) if name.endswith(_GROWING) else value

    return _each(text, since)


def started_at(text: str) -> float:
    """When the process of the exposition started, in seconds since 1970; 0 if it does not say."""
    return dict(_values(text)).get(_STARTED, 0.0)


def _values(text: str) -> Iterator[tuple[str, float]]:
    for line in text.split("\n"):
        if found := _LINE.match(line):
            yield found["series"], float(found["value"])


def _each(text: str, changed: Callable[[str, str], str]) -> str:
    """The text with the value of each sample replaced by what ``changed`` makes of its series and value."""

    def line(one: str) -> str:
        found = _LINE.match(one)
        if found is None:
            return one
        return f"{found['series']} {changed(found['series'], found['value'])}{found['rest']}"

    return "\n".join(map(line, text.split("\n")))
