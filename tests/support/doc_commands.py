"""What the README and the pages of the docs show as code: commands, with the page that each stands on, and Python."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from generated_pages import contributing, entries, faults, workloads
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
LANGUAGES = {"sh", "text", "python", "json", "yaml", "toml", "xml"}
"""What a block of code may be marked as. In one that is marked ``text`` nothing is meant to be typed."""
_BEGINS = re.compile(r"(?:[A-Z_]+=\S+ )*(?:python -m (?:harness|bench)\b|(?:make|pip|pytest) \S)")
_NAME = re.compile(r"python -m [\w.]+")
_COMMENT = re.compile(r"\s+#\s.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, order=True)
class Command:
    """A command that a reader may type."""

    page: str
    text: str
    """In one line, without comments."""


def pages() -> dict[str, str]:
    """Text by path, of the README, the pages that are written by hand, and those that are made from the code."""
    written = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
    made = {f"docs/{path}": text for one in (contributing, entries, faults, workloads) for path, text in one.pages()}
    return {"README.md": (ROOT / "README.md").read_text(), **written, **made}


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a page in Markdown, those inside of paragraphs and tables too."""
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        yield token
        yield from token.children or ()


def blocks(text: str, language: str) -> Iterator[str]:
    """The blocks of code that are marked as this language."""
    return (token.content for token in tokens(text) if token.type == "fence" and token.info.strip() == language)


def commands() -> list[Command]:
    """Each command of each page once."""
    return sorted({Command(page, text) for page, content in pages().items() for text in _commands(content)})


def _commands(content: str) -> Iterator[str]:
    for block in blocks(content, "sh"):
        joined = _COMMENT.sub("", block.replace("\\\n", " "))
        yield from (" ".join(line.split()) for line in joined.splitlines() if line.strip())
    for token in tokens(content):
        if token.type == "code_inline" and is_command(token.content):
            yield " ".join(token.content.split())


def is_command(text: str) -> bool:
    """Whether the text is a command rather than the name of one: ``python -m harness`` and something after it."""
    return bool(_BEGINS.match(text)) and not _NAME.fullmatch(text)
