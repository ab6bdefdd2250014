"""Lines of the live view, cut to the size of a terminal. Pure.

Every line is shorter than the terminal is wide, since a line that wraps would be left behind by the next drawing. If
there are too many lines, those that matter least are left out: a server's figures before the rate, the rate before
failures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from harness.observer import UP
from harness.reports.progress.figures import ServerState
from harness.reports.progress.sources import SOURCES
from harness.reports.progress.words import SOURCE_WORDS, source_words, state_word
from harness.reports.text import clean, count, duration

_GAP = 2
_MOST_SERVERS = 12
_SILENT_S = 1.5
"""Seconds. Servers are read at the same times, and answer within a second."""
_LONGEST_BAR = 40
_SHORTEST_BAR = 8


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the view. ``rank``: lines of a higher rank are left out first."""

    text: Text
    rank: int = 0


def fitted(lines: Sequence[Line], width: int, height: int) -> list[Text]:
    """As many lines as the terminal has room for, in their order, each cut to its width."""
    # The cursor stands on a line below the view.
    room = max(height - 1, 1)
    kept = sorted(range(len(lines)), key=lambda number: (lines[number].rank, number))[:room]
    found = [lines[number].text.copy() for number in sorted(kept)]
    for text in found:
        text.truncate(max(width - 1, 1), overflow="ellipsis")
    return found


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar of so many characters of which a share is done, 0 to 1; it can be read without colours."""
    done, left = ("#", "-") if ascii_only else ("━", "─")
    full = round(min(max(share, 0.0), 1.0) * width)
    return done * full + left * (width - full)


def progress_line(name: str, share: float, words: str, width: int, *, ascii_only: bool = False) -> Text:
    """A name, a bar, and words; the bar is as long as there is room, and left out if there is none."""
    room = width - 1 - len(name) - len(words) - 2 * _GAP
    shown = bar(share, min(room, _LONGEST_BAR), ascii_only=ascii_only) if room >= _SHORTEST_BAR else ""
    gap = " " * _GAP
    return Text.assemble((name, "bold"), gap, (f"{shown}{gap}" if shown else "", "green"), words)


_FIGURES = ("running", "waiting", "KV", *(SOURCE_WORDS[source] for source in SOURCES))
_DROPPED = ("cached", "computed", "waiting", "transferred", "KV", "running")
"""Columns that a narrow terminal has no room for, in the order in which they are left out."""
_FAILED, _ROW, _HEADING = 1, 4, 5
"""Ranks of lines: a server that is not up matters as much as requests that failed."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A server's line of the table: texts by column, and whether the server is not up."""

    cells: Mapping[str, str]
    failed: bool


def server_lines(read: Mapping[str, ServerState], states: Mapping[str, str], width: int, now: float) -> Iterator[Line]:
    """A table of the servers: a heading, and a line for each of the first few; all that are not up come before others.

    ``read``: their latest readings, which there are while a load is sent. ``states``: whether they are up.
    """
    names = list(dict.fromkeys((*read, *states)))
    if not names:
        return
    newest = max((server.at for server in read.values()), default=0.0)
    rows = {name: _row(name, read.get(name), states.get(name, UP), newest, now) for name in names}
    shown = sorted(names, key=lambda name: not rows[name].failed)[:_MOST_SERVERS]
    shown_rows = [rows[name] for name in names if name in shown]
    for number, text in enumerate(_in_columns(shown_rows, width, with_figures=bool(read))):
        failed = number and shown_rows[number - 1].failed
        yield Line(Text(text, "red" if failed else "" if number else "dim"),
                   _FAILED if failed else _ROW if number else _HEADING)  # fmt: skip
    if len(names) > _MOST_SERVERS:
        yield Line(Text(f"and {len(names) - _MOST_SERVERS} more servers", "dim"), _ROW)


def _row(name: str, server: ServerState | None, state: str, newest: float, now: float) -> _Row:
    # A server that has not answered yet, while others did.
    silent = server is not None and newest - server.at > _SILENT_S
    if state != UP:
        word = clean(state.partition(":")[0], 24)
    elif server is None:
        word = UP
    else:
        word = f"silent {duration(now - server.at)}" if silent else state_word(server)
    failed = state != UP or silent or bool(server and server.reading.cause)
    return _Row({"server": clean(name, 24), "state": word, **_figures(server)}, failed)


def _figures(server: ServerState | None) -> dict[str, str]:
    if server is None:
        return dict.fromkeys(_FIGURES, "-")
    reading, words = server.reading, source_words(server)
    usage = "-" if reading.kv_usage is None else f"{reading.kv_usage:.0%}"
    sources = {SOURCE_WORDS[source]: words[source] for source in SOURCES}
    return {"running": count(reading.running), "waiting": count(reading.waiting), "KV": usage, **sources}


def _in_columns(rows: Sequence[_Row], width: int, *, with_figures: bool) -> Iterator[str]:
    columns = ("server", "state", *(_FIGURES if with_figures else ()))
    widths = {column: max(len(column), *(len(row.cells[column]) for row in rows)) for column in columns}
    # Whether a server is busy or idle is seen from its requests, too; that it is not up is not.
    for column in (*_DROPPED, "state") if any(row.failed for row in rows) else ("state", *_DROPPED):
        if sum(widths.values()) + _GAP * (len(widths) - 1) < width:
            break
        widths.pop(column, None)
    for cells in ({column: column for column in columns}, *(row.cells for row in rows)):
        found = (cells[column].ljust(size) if column in ("server", "state") else cells[column].rjust(size)
                 for column, size in widths.items())  # fmt: skip
        yield (" " * _GAP).join(found).rstrip()
