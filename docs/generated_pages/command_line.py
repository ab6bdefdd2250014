"""The reference of all commands and flags, from the parser that reads them."""

import argparse
from collections.abc import Iterable, Iterator

from generated_pages.markup import table
from harness.cli.flags import make_parser


def pages() -> Iterator[tuple[str, str]]:
    """Path and text of the page."""
    parser = make_parser()
    commands = next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction))  # noqa: SLF001
    texts = {one.dest: one.help for one in commands._choices_actions}  # noqa: SLF001 - argparse offers no other way
    about = f"{parser.description}\n\n{parser.epilog}\n\nWithout a command, `run` is meant."
    sections = (_section(name, texts[name] or "", one) for name, one in commands.choices.items())
    yield "command-line.md", "\n\n".join(("# Command line", about, *sections)) + "\n"


def _section(name: str, text: str, parser: argparse.ArgumentParser) -> str:
    return "\n\n".join((f"## {name}", f"{text[:1].upper()}{text[1:]}.", *_groups(parser)))


def _groups(parser: argparse.ArgumentParser) -> Iterator[str]:
    for group in parser._action_groups:  # noqa: SLF001 - argparse offers no other way
        rows = list(_rows(group._group_actions))  # noqa: SLF001 - as above
        if rows:
            title = (group.title or "").removesuffix(":")
            yield f"*{title[:1].upper()}{title[1:]}*" if title not in {"options", "positional arguments"} else ""
            yield table(("flag", "meaning"), rows)


def _rows(actions: Iterable[argparse.Action]) -> Iterator[tuple[str, str]]:
    for action in actions:
        if action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        values = f" {_metavar(action)}" if action.option_strings and action.nargs != 0 else ""
        yield f"`{names}{values}`", _escaped((action.help or "") % _figures(action))


def _metavar(action: argparse.Action) -> str:
    if action.metavar is None and action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or action.dest.upper())


def _figures(action: argparse.Action) -> dict[str, object]:
    return {**vars(action), "prog": "python -m harness"}


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("|", "&#124;")
