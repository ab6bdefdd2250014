"""Prometheus text to samples, keeping only what is asked for.

A server exposes some two thousand lines, most of them histogram buckets. They are dropped before parsing, so that a
scrape costs little while a load runs on the same cores, and the journal stays small.

Four rules of vLLM's expositions:

1. The engine's families start with ``vllm:``, or with another prefix that ends in it (``kserve_vllm:``). Names are
   given back with ``vllm:`` alone.
2. A labelled family without any event has its ``# TYPE`` line but no sample. That is a count of 0; a family without
   even that line is one that this server does not have. The two are kept apart: see :attr:`Exposition.declared`.
3. A counter's samples end in ``_total``, a histogram's that are kept here in ``_sum`` and ``_count``.

4. Every line ends in a line feed, the last one too. A sample that does not was cut in its value or before it: an
   exposition of 2,237 tokens may say 22.

A gateway may answer in OpenMetrics instead. Of what it adds, the end mark is a comment here, and exemplars are cut off.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from harness.history import Sample

_PREFIX = "vllm:"
_SHOWN = 80
"""Characters of a line that is quoted."""
_NAME = re.compile(r"\s*([^\s{]+)")
_EXEMPLAR = re.compile(r"\s#\s*\{[^}]*\}[^}\"]*$")


@dataclass(frozen=True, slots=True)
class Exposition:
    """What was kept of one scrape."""

    samples: tuple[Sample, ...]
    declared: tuple[str, ...]
    """Wanted sample names that have a family but no sample yet."""


def parse(text: str, wanted: Collection[str]) -> Exposition:
    """Samples whose normalised names are in ``wanted``; ValueError when the text is no exposition."""
    # Not splitlines(): a label's value may hold what Unicode calls the end of a line.
    *lines, rest = text.split("\n")
    if _may_matter(rest, wanted) and not rest.lstrip().startswith("#"):
        raise ValueError(f"it is cut off: its last line is not ended ({rest[-_SHOWN:]})")
    kept = "".join(f"{_without_exemplar(line)}\n" for line in lines if _may_matter(line, wanted))
    samples: list[Sample] = []
    declared: set[str] = set()
    for family in _families(kept):
        samples += _samples(family, wanted)
        declared |= _sample_names(family) & set(wanted)
    return Exposition(tuple(samples), tuple(sorted(declared - {sample.name for sample in samples})))


def _families(kept: str) -> list[Metric]:
    try:
        return list(text_string_to_metric_families(kept))
    except Exception as error:  # the parser fails in as many ways as there are malformed lines
        raise ValueError(f"it is no Prometheus exposition ({type(error).__name__}: {error})") from error


def normalised(name: str) -> str:
    """The name with ``vllm:`` as its only prefix; other names as they are."""
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
    # Only behind the labels: what looks like one inside a label's value is followed by the closing quote and brace.
    return line if line.lstrip().startswith("#") else _EXEMPLAR.sub("", line.rstrip("\r"))
