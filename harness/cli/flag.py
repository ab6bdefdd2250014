"""Adds one flag to a parser or a group of flags."""

import argparse
from collections.abc import Callable
from typing import Any, TypeAlias

Kind = Callable[[str], Any]
Flags: TypeAlias = "argparse._ActionsContainer"  # noqa: SLF001 - what parsers and groups have in common


def value(  # noqa: PLR0913, PLR0917 - a flag has as many parts
    flags: Flags, name: str, metavar: str, text: str, kind: Kind = str, default: Any = None, *more_names: str
) -> None:
    """A flag with one value, which ``kind`` reads."""
    flags.add_argument(name, *more_names, metavar=metavar, help=text, type=kind, default=default)


def values(flags: Flags, name: str, metavar: str, text: str, kind: Kind = str) -> None:
    """A flag that may be given several times."""
    flags.add_argument(name, metavar=metavar, help=text, type=kind, action="append", default=[])
