"""Markdown from what docstrings are written in."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import pairwise

_ROLE = re.compile(r":(?:class|func|meth|attr|mod):`~?([^`]*)`")
_LITERAL = re.compile(r"``([^`]+)``")
_RULE = re.compile(r"^Rule \d+[.:] +", re.MULTILINE)


def without_roles(text: str) -> str:
    """The text with roles as code."""
    return _ROLE.sub(r"`\1`", text)


def markdown(text: str) -> str:
    """The text with roles and literals as code, and numbered rules as a list."""
    text = _LITERAL.sub(r"`\1`", without_roles(text))
    before, *rules = _RULE.split(text)
    listed = "\n".join(f"{number}. {_sentence(rule)}" for number, rule in enumerate(rules, 1))
    return "\n\n".join(filter(None, (before.strip(), listed)))


def doc(what: object) -> tuple[str, str]:
    """Summary and rest of a docstring, as Markdown."""
    summary, _, rest = (inspect.getdoc(what) or "").partition("\n")
    return markdown(summary), markdown(rest.strip())


def field_docs(kind: type) -> dict[str, str]:
    """The docstrings of a class's fields and members, by name; inherited ones too."""
    found: dict[str, str] = {}
    for one in kind.__mro__:
        if one.__module__.partition(".")[0] == "harness":
            found = {**_documented(one), **found}
    return found


def _documented(kind: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        target.id: markdown(" ".join(said.value.value.split()))
        for what, said in pairwise(body)
        for target in (what.targets if isinstance(what, ast.Assign) else [getattr(what, "target", None)])
        if isinstance(target, ast.Name) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant)
    }


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table. A bar in a cell stands inside of code."""
    return "\n".join(_lines(list(head), rows))


def _lines(head: list[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sentence(text: str) -> str:
    joined = " ".join(text.split())
    return joined[:1].upper() + joined[1:]
