"""Parses Prometheus text into samples, keeping only the wanted families.

A server exposes some two thousand lines, most of them histogram buckets. Unwanted lines are dropped before parsing, so
that a scrape costs little while a load runs on the same cores, and the journal stays small.

Rules of vLLM's expositions:

1. The engine's families start with ``vllm:`` or with a prefix that ends in it, such as ``kserve_vllm:``. Names are
   normalised to ``vllm:``.
2. A labelled family without any event has a ``# TYPE`` line but no sample: its count is 0. A family without a
   ``# TYPE`` line does not exist on the server. :attr:`Exposition.declared` distinguishes the two.
3. A counter's sample names end in ``_total``; of a histogram, ``_sum`` and ``_count`` are kept.
4. Every line ends in a line feed, including the last one. A last line without one is cut off, possibly in its value:
   2,237 tokens may read 22.

A gateway may answer in OpenMetrics: its end mark is ignored as a comment, and its exemplars are removed.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from harness.history import Sample

_PREFIX = "vllm:"
_MOST_LINES = 50_000
"""Wanted lines of one exposition. A server with 256 engines has fewer than 20,000."""
_SHOWN = 80
"""Characters of a line that an error message quotes."""
_NAME = re.compile(r"\s*([^\s{]+)")
_EXEMPLAR = re.compile(r"\s#\s*\{[^}]*\}[^}\"]*$")


@dataclass(frozen=True, slots=True)
class Exposition:
    """The wanted part of one exposition."""

    samples: tuple[Sample, ...]
    declared: tuple[str, ...]
    """Wanted sample names whose family is declared but has no sample."""


def parse(text: str, wanted: Collection[str]) -> Exposition:
    """Parse the samples whose normalised names are in ``wanted``; ValueError if the text is no exposition."""
    # splitlines() would also split at other line ends of Unicode, which a label's value may contain.
    *lines, rest = text.split("\n")
    if _may_matter(rest, wanted) and not rest.lstrip().startswith("#"):
        raise ValueError(f"the text is cut off: its last line has no line feed ({rest[-_SHOWN:]})")
    wanted_lines = [line for line in lines if _may_matter(line, wanted)]
    if len(wanted_lines) > _MOST_LINES:
        raise ValueError(f"the text has {len(wanted_lines):,} samples of the wanted families, more than any server has")
    kept = "".join(f"{_without_exemplar(line)}\n" for line in wanted_lines)
    samples: list[Sample] = []
    declared: set[str] = set()
    for family in _families(kept):
        samples += _samples(family, wanted)
        declared |= _sample_names(family) & set(wanted)
    return Exposition(tuple(samples), tuple(sorted(declared - {sample.name for sample in samples})))


def _families(kept: str) -> list[Metric]:
    try:
        return list(text_string_to_metric_families(kept))
    # The parser raises many types of errors for malformed lines.
    except Exception as error:
        raise ValueError(f"the text is no Prometheus exposition ({type(error).__name__}: {error})") from error


def normalised(name: str) -> str:
    """Remove any prefix before ``vllm:``; other names stay as they are."""
    start = name.find(_PREFIX)
    return name if start < 0 else name[start:]


def _samples(family: Metric, wanted: Collection[str]) -> Iterator[Sample]:
    for sample in family.samples:
        name = normalised(sample.name)
        if name in wanted:
            yield Sample(name, dict(sample.labels), sample.value)


def _sample_names(family: Metric) -> set[str]:
    name = normalised(family.name)
    suffixes = {"counter": ("_total",), "histogram": ("_sum", "_count"), "summary": ("_sum", "_count")}
    return {name + suffix for suffix in suffixes.get(family.type, ("",))}


def _may_matter(line: str, wanted: Collection[str]) -> bool:
    if not line.lstrip().startswith("#"):
        start = _NAME.match(line)
        return start is not None and normalised(start[1]) in wanted
    words = line.split(maxsplit=3)
    if len(words) < 3 or words[1] != "TYPE":
        return False
    name = normalised(words[2])
    return any(name + suffix in wanted for suffix in ("", "_total", "_sum", "_count"))


def _without_exemplar(line: str) -> str:
    # An exemplar follows the labels. A similar text in a label's value is followed by the closing quote and brace.
    return line if line.lstrip().startswith("#") else _EXEMPLAR.sub("", line.rstrip("\r"))
