"""The pages whose text stands in CONTRIBUTING.md: the house, and the glossary."""

from collections.abc import Iterator
from pathlib import Path

_SOURCE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of each page."""
    text = _SOURCE.read_text(encoding="utf-8")
    yield (
        "design.md",
        f"# Design\n\nThis page is a part of CONTRIBUTING.md.\n\n## The house\n\n{section(text, 'The house')}\n",
    )
    yield "glossary.md", f"# Glossary\n\nThis page is a part of CONTRIBUTING.md.\n\n{section(text, 'Glossary')}\n"


def section(text: str, title: str) -> str:
    """The text under this heading of the second level."""
    _, _, rest = text.partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0].strip()
