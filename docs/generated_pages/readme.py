"""Parts of pages whose text stands in README.md: ``<!-- from README.md: Title -->`` stands for a section."""

import re
from collections.abc import Iterator
from pathlib import Path

from generated_pages.contributing import section

_DOCS = Path(__file__).parents[1]
_README = _DOCS.parent / "README.md"
_MARK = re.compile(r"<!-- from README\.md: (.*?) -->")
_POINTER = re.compile(r"^(?:\[[^\]]*\]\([^)]*\) has the rest\.|If a run is not valid: .*)$", re.MULTILINE)
"""Lines of the README that lead to the page itself."""


def pages() -> Iterator[tuple[str, str]]:
    """Path and whole text of each page that has such parts."""
    readme = _README.read_text(encoding="utf-8")
    for path in sorted(_DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _MARK.search(text):
            yield path.name, _MARK.sub(lambda mark: part(readme, mark[1]), text)


def part(readme: str, title: str) -> str:
    """The section, with links as they are from a page. Raises ValueError if there is none, or it is empty."""
    found = _POINTER.sub("", section(readme, title)).strip()
    if not found:
        raise ValueError(f"README.md has no section {title!r}")
    return found.replace("](docs/", "](")
