"""One thing that was looked at, what was seen, and what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import UsageError


class Level(StrEnum):
    """What a check means for a run; the order is from harmless to final."""

    OK = "ok"
    UNTOLD = "not told"
    """The servers do not say it, and no verdict depends on it."""
    WARNS = "warning"
    """A run goes on: something may be found that is the operator's doing."""
    UNKNOWN = "unknown"
    """A run goes on, and a part of its verdict will be unknown."""
    STOPS = "stops"
    """No run is of any use until its operator has put it right."""


@dataclass(frozen=True, slots=True)
class Item:
    """One check's result; ``seen`` and ``remedy`` are sentences without a full stop, for a person."""

    check: str
    """Its name in the table: ``servers``, ``model``."""
    level: Level
    seen: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.seen}. {self.remedy}." if self.remedy else f"{self.seen}."


class NotReady(UsageError):  # noqa: N818 - reads as what happened
    """The deployment, or the load, must be put right before anything can be judged."""


def refuse(items: Iterable[Item]) -> None:
    """Raises NotReady with everything that stops a run; nothing where nothing does."""
    stops = list(dict.fromkeys(str(item) for item in items if item.level is Level.STOPS))
    if stops:
        raise NotReady(" ".join(stops) + " Nothing was judged; `python -m harness doctor` shows every check.")
