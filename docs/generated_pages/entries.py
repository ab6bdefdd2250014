"""The entries of a run's history, from their docstrings."""

import re
from collections.abc import Iterator
from typing import get_args

from generated_pages.markup import doc, field_docs, table
from harness.history.entries import Entry


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of the page."""
    about = "What a line of `history.jsonl` may be. Times (`at`) are seconds since the run began."
    yield "history.md", "\n\n".join(("# Entries of the history", about, *map(_section, get_args(Entry)))) + "\n"


def _section(kind: type) -> str:
    summary, rest = doc(kind)
    said = field_docs(kind)
    rows = [(f"`{name}`", said.get(name, "")) for name in kind.__annotations__ if not name.startswith("_")]
    fields = table(("field", "meaning"), rows)
    return "\n\n".join(filter(None, (f"## {kind_name(kind)}", summary, rest, fields)))


def kind_name(kind: type) -> str:
    """The entry's ``kind`` in the file: the class's name in snake case."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
