"""Progress on a terminal: the current phase is redrawn in place, finished phases are lines above it."""

from dataclasses import dataclass
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.clock import Clock
from harness.reports.progress.phase_count import PhaseCount
from harness.reports.progress.verifying import Verifying, estimate
from harness.reports.text import clean, duration

REDRAWS_PER_SECOND = 4.0

_OVER = frozenset({"answering", "ready", "done"})
"""Texts of a server that has started: its time no longer grows."""


@dataclass(frozen=True, slots=True)
class _Starting:
    """How far a server had come in starting after ``seconds``; ``at``: time on the run's clock."""

    text: str
    seconds: float
    at: float

    def words(self, now: float) -> str:
        return duration(self.seconds if self.text in _OVER else self.seconds + now - self.at)


class LiveProgress:
    """Draws on ``console``; a thread of rich redraws, so that the shown time advances even if nothing happens."""

    def __init__(self, console: Console, clock: Clock, *, redraw: bool = True) -> None:
        self._console = console
        self._clock = clock
        self._servers: dict[str, _Starting] = {}
        self._phase: PhaseCount | None = None
        self._verifying: Verifying | None = None
        self._live = Live(
            get_renderable=self.render,
            console=console,
            transient=True,
            auto_refresh=redraw,
            refresh_per_second=REDRAWS_PER_SECOND,
        )

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """Show how far the server has come in starting, until the first phase begins."""
        starting = _Starting(clean(text, None), seconds, self._clock.now())
        # A new mapping each time: the redrawing thread may be iterating over the old one.
        self._servers = {**self._servers, clean(server): starting}

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """Leave finished phases as lines, and draw this one."""
        self._leave_lines()
        self._phase = PhaseCount(scenario, phase, total, self._clock.now())

    def advance(self, done: int, total: int, failed: int) -> None:
        """Update the counts; they are drawn at the next redraw."""
        if self._phase is not None:
            self._phase = self._phase.advanced(done, total, failed)

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        """Print the estimate above the drawing, and show the time that has passed from now on."""
        self._verifying = Verifying(self._clock.now(), seconds)
        self.note(estimate(expected, seconds, tokens))

    def note(self, text: str) -> None:
        """Print a line above the drawing."""
        self._console.print(Text(clean(text, None)))

    def __enter__(self) -> Self:
        self._live.start(refresh=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave everything as lines, and stop drawing."""
        self._leave_lines()
        self._live.stop()

    def render(self) -> RenderableType:
        """The current drawing."""
        now = self._clock.now()
        if self._phase is None:
            return self._render_servers(now)
        return _render_phase(self._phase, now, "" if self._verifying is None else self._verifying.words(now))

    def _render_servers(self, now: float) -> Table:
        grid = Table.grid(padding=(0, 2))
        for name, starting in self._servers.items():
            grid.add_row(Text(name, "bold"), Text(starting.text), Text(starting.words(now), "dim"))
        return grid

    def _leave_lines(self) -> None:
        for name, starting in self._servers.items():
            self._console.print(Text(f"{name}: {starting.text}, {duration(starting.seconds)}", "dim"))
        if self._phase is not None:
            self._console.print(Text(f"{self._phase.name}: {self._phase.words(self._clock.now())}", "dim"))
        self._servers, self._phase = {}, None


def _render_phase(phase: PhaseCount, now: float, more: str) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        Text(clean(phase.name), "bold"),
        ProgressBar(total=max(phase.total, 1), completed=phase.done, width=20),
        Text(phase.words(now) + more, "red" if phase.failed else ""),
    )
    return grid
