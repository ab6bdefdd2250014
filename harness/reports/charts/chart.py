"""A chart, independent of the page that it stands on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of a chart for those who cannot see it, or want the numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    """Each as long as the header; texts as displayed, not yet escaped."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: what it is called, what it shows, and how it is drawn."""

    name: str
    """Unique on its page: lower-case letters and hyphens, used as the element's id."""
    title: str
    description: str
    """What the chart shows, in sentences with its main figures: a screen reader reads it instead of the picture. It
    says so if the data were sampled."""
    spec: Mapping[str, Any]
    """A Vega-Lite specification with its data. Its ``width`` is "container"; fonts and colours are the page's."""
    table: Table | None = None
    """None: a table elsewhere on the page has the figures."""
