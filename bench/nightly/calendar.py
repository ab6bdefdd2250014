"""The nights as a calendar: a column a week, a row a weekday."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from bench.nightly.record import Night, Result, State

_MOST_WEEKS = 58
_NAME_WIDTH = 3
"""Columns that the name of a month takes."""


@dataclass(frozen=True, slots=True)
class Day:
    """One cell."""

    row: int
    """2 is Monday; row 1 has the months."""
    column: int
    kind: str
    """The result, for the colour and the sign in it; ``none``: no night ran."""
    label: str
    name: str = ""
    """The night that it leads to."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """All cells, and the months above them."""

    days: Sequence[Day]
    months: Sequence[tuple[int, str]]
    """Column and name."""
    shown: int
    """Nights in it."""


def calendar(nights: Sequence[Night]) -> Calendar:
    """The weeks up to the newest night, at most a year and six weeks."""
    dates = [date.fromisoformat(night.name.partition(".")[0]) for night in nights]
    if not dates:
        return Calendar((), (), 0)
    last = max(dates)
    monday = max(min(dates), last - timedelta(weeks=_MOST_WEEKS))
    monday -= timedelta(days=monday.weekday())
    by_day: dict[date, list[Night]] = {}
    for day, night in zip(dates, nights, strict=True):
        by_day.setdefault(day, []).append(night)
    every = [monday + timedelta(days=n) for n in range((last - monday).days + 1)]
    return Calendar(
        [_day(day, monday, by_day.get(day, ())) for day in every],
        list(_months(every, monday)),
        sum(len(by_day.get(day, ())) for day in every),
    )


def _day(day: date, monday: date, nights: Sequence[Night]) -> Day:
    row, column = day.weekday() + 2, (day - monday).days // 7 + 1
    if not nights:
        return Day(row, column, "none", f"{day.isoformat()}: no night")
    newest = nights[-1]
    return Day(row, column, kind_of(newest), "; ".join(f"{one.name}: {kind_of(one)}" for one in nights), newest.name)


def _months(days: Sequence[date], monday: date) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for day in days:
        column = (day - monday).days // 7 + 1
        text = f"{day:%b}" if day.month > 1 else f"{day:%Y}"
        if day.day == 1 or day == days[0]:
            # The rest of the first month may be too short for its name.
            if found and column - found[-1][0] < _NAME_WIDTH:
                found.pop()
            found.append((column, text))
    return found


def kind_of(night: Night) -> str:
    """A night's result in a word."""
    return "running" if night.state is State.RUNNING else str(Result(night.result))
