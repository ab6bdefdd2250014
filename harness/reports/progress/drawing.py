"""Lines of the live view, cut to the size of a terminal. Pure.

Every line is shorter than the terminal is wide, since a line that wraps would be left behind by the next drawing. If
there are too many lines, those that matter least are left out: a server's figures before the rate, the rate before
failures.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

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


_COLUMNS = ("server", "state", "running", "waiting", "KV", *(SOURCE_WORDS[source] for source in SOURCES))
_DROPPED = ("state", "cached", "computed", "waiting", "transferred", "KV", "running")
"""Columns that a narrow terminal has no room for, in the order in which they are left out."""


def server_lines(servers: Iterable[tuple[str, ServerState]], width: int, now: float) -> Iterator[Text]:
    """A table of the servers: a heading, and a line for each of the first few."""
    every = list(servers)
    if not every:
        return
    newest = max(server.at for _, server in every)
    rows = [_row(name, server, newest, now) for name, server in every[:_MOST_SERVERS]]
    for number, cells in enumerate(_in_columns(rows, width)):
        failed = number and rows[number - 1]["state"].startswith(("no answer", "silent"))
        yield Text(cells, "red" if failed else "" if number else "dim")
    if len(every) > _MOST_SERVERS:
        yield Text(f"and {len(every) - _MOST_SERVERS} more servers", "dim")


def _row(name: str, server: ServerState, newest: float, now: float) -> dict[str, str]:
    reading, words = server.reading, source_words(server)
    # A server that has not answered yet, while others did.
    silent = newest - server.at > _SILENT_S
    state = f"silent {duration(now - server.at)}" if silent else state_word(server)
    usage = "-" if reading.kv_usage is None else f"{reading.kv_usage:.0%}"
    figures = {"running": count(reading.running), "waiting": count(reading.waiting), "KV": usage}
    sources = {SOURCE_WORDS[source]: words[source] for source in SOURCES}
    return {"server": clean(name, 24), "state": state, **figures, **sources}


def _in_columns(rows: Sequence[dict[str, str]], width: int) -> Iterator[str]:
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in _COLUMNS}
    for column in _DROPPED:
        if sum(widths.values()) + _GAP * (len(widths) - 1) < width:
            break
        del widths[column]
    for row in ({column: column for column in _COLUMNS}, *rows):
        cells = (row[column].ljust(size) if column in ("server", "state") else row[column].rjust(size)
                 for column, size in widths.items())  # fmt: skip
        yield (" " * _GAP).join(cells).rstrip()
