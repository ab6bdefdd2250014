"""The result of one check: what was found, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError


class Level(StrEnum):
    """The consequence of a check's result for a run, in ascending severity."""

    OK = "ok"
    UNREPORTED = "not reported"
    """The servers do not report a fact, and no verdict depends on it."""
    WARNS = "warning"
    """The run goes on; it may find faults that the operator's configuration causes."""
    UNKNOWN = "unknown"
    """The run goes on, and a part of its verdict will be unknown."""
    STOPS = "stops"
    """A run is useless until the operator has changed the deployment or the load."""


@dataclass(frozen=True, slots=True)
class Item:
    """One check's result; ``seen`` and ``remedy`` are sentences for the user, without a full stop."""

    check: str
    """The check's name in the table: ``servers``, ``model``."""
    level: Level
    seen: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.seen}. {self.remedy}." if self.remedy else f"{self.seen}."


class NotReady(UsageError):  # noqa: N818 - reads as what happened
    """The user must change the deployment or the load before a run can be judged."""


def refuse(items: Iterable[Item]) -> None:
    """Raise NotReady with every item that stops a run, if there is one."""
    stops = list(dict.fromkeys(str(item) for item in items if item.level is Level.STOPS))
    if stops:
        raise NotReady(" ".join(stops) + " Nothing was judged; `python -m harness doctor` shows every check.")
