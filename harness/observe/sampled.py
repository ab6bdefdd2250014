"""Reads the few numbers of a ``/metrics`` text that are followed while a load is sent. Does no I/O.

It costs less than a tenth of a millisecond for vLLM's thousand lines, since it runs once a second on the event loop
that stamps the load's tokens; :mod:`harness.observe.exposition`, whose numbers are judged, takes ten times as long.

Rule 1: names are those of :mod:`harness.observe.counters`, whatever stands before ``vllm:``.
Rule 2: values of several engines are summed; of the KV usage, the mean is taken.
Rule 3: what is missing, or is no finite number of 0 or more, is None. So is the value of a last line without a line
feed, which may be cut off.
"""

import math
import re
from typing import Any

from harness.history import Sampled
from harness.observe.counters import SOURCES

_FIELDS = (
    *("running", "waiting", "kv_usage"),
    *("prompt_tokens", "local_compute", "local_cache_hit", "external_kv_transfer"),
    *("generation_tokens", "preemptions", "nixl_bytes", "nixl_transfers"),
)
_PREFIX = "vllm:"
_NAMES = sorted({SOURCES[field].sample.removeprefix(_PREFIX) for field in _FIELDS})
_LABELS = r'(?:\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*)\})?'
_SAMPLE = re.compile(rf"\n\w*{_PREFIX}({'|'.join(_NAMES)}){_LABELS}[ \t]+([^\s]+)(?=[^\n]*\n)")
_OF_SOURCE = re.compile(r'(?:^|,)\s*source="([^"]*)"')

_BY_NAME = {
    (SOURCES[field].sample.removeprefix(_PREFIX), dict(SOURCES[field].labels).get("source")): field for field in _FIELDS
}
"""The field of a sample's name and source."""


def read_sampled(text: str, at: float, server: str) -> Sampled:
    """The numbers of a server's exposition, read at ``at`` seconds."""
    values: dict[str, list[float]] = {}
    for name, labels, value in _SAMPLE.findall(f"\n{text}"):
        source = _OF_SOURCE.search(labels) if name in _WITH_SOURCE else None
        field = _BY_NAME.get((name, source and source[1]))
        if field is not None:
            values.setdefault(field, []).append(_number(value))
    read: dict[str, Any] = {field: _together(field, each) for field, each in values.items()}
    return Sampled(at, server, **read)


_WITH_SOURCE = {name for name, source in _BY_NAME if source}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _together(field: str, values: list[float]) -> float | None:
    if not all(math.isfinite(value) and value >= 0 for value in values):
        return None
    total = sum(values)
    return round(total / len(values), 6) if field == "kv_usage" else _short(total)


def _short(value: float) -> float:
    """Whole counts as integers, which take fewer characters in the journal."""
    return int(value) if value.is_integer() else value
