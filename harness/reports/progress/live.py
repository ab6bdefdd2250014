"""Progress on a terminal: a view of the run is redrawn in place, finished phases are lines above it.

A thread of rich draws four times a second, from figures that the event loop keeps. While it draws, the loop waits, so
the lines are plain text: a drawing takes a third of a millisecond, and a table of rich's own several times as long.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from harness.clock import Clock
from harness.history import Entry
from harness.observer import PhasePlan, VerifiedSoFar
from harness.reports.progress.drawing import Line, fitted, progress_line, server_lines
from harness.reports.progress.figures import Figures, Traffic
from harness.reports.progress.phase_count import PhaseCount
from harness.reports.progress.verifying import Verifying, estimate
from harness.reports.progress.words import (
    fault_words,
    latency_words,
    rate_words,
    seconds_left,
    share_done,
    verified_words,
)
from harness.reports.text import clean, duration

REDRAWS_PER_SECOND = 2.0
"""Four cost more than 2 % of the client's CPU time (bench/RESULTS.md)."""

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
        self._began: PhaseCount | None = None
        self._counts: tuple[int, int, int] | None = None
        """Requests of the phase: done, in all, failed; None: the phase has just begun."""
        self._verifying: Verifying | None = None
        self._figures = Figures()
        self._live = Live(
            get_renderable=self.render,
            console=console,
            transient=True,
            auto_refresh=redraw,
            refresh_per_second=REDRAWS_PER_SECOND,
            vertical_overflow="crop",
        )

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """Show how far the server has come in starting, until the first phase begins."""
        starting = _Starting(clean(text, None), seconds, self._clock.now())
        # A new mapping each time: the redrawing thread may be iterating over the old one.
        self._servers = {**self._servers, clean(server): starting}

    def sending(self, plan: PhasePlan) -> None:
        """Remember what the next phase sends. A load ends the verification of the load before."""
        self._figures.sending(plan)
        if plan.of_load:
            self._verifying = None

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """Leave finished phases as lines, and draw this one."""
        self._leave_lines()
        now = self._clock.now()
        self._figures.phase(now)
        self._counts = None
        self._began = PhaseCount(clean(scenario), clean(phase), total, now)

    def advance(self, done: int, total: int, failed: int) -> None:
        """Update the counts; they are drawn at the next redraw."""
        self._counts = (done, total, failed)

    def recorded(self, entry: Entry) -> None:
        """Update the figures."""
        self._figures.recorded(entry, self._clock.now)

    def server(self, name: str, state: str) -> None:
        """Show the state, and leave a line when it changes."""
        if self._figures.server(name, state):
            self.note(f"{name}: {clean(state)}")

    def verified(self, so_far: VerifiedSoFar) -> None:
        """Show what is known of the outputs."""
        self._figures.so_far = so_far

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        """Print the estimate above the drawing, and show the time that has passed from now on."""
        self._leave_lines()
        self._verifying = Verifying(self._clock.now(), seconds, expected)
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
        try:
            self._leave_lines()
        finally:
            # Shows the cursor again.
            self._live.stop()

    def render(self) -> RenderableType:
        """The current drawing."""
        size = self._console.size
        lines = fitted(list(self._lines(self._clock.now(), size.width)), size.width, size.height)
        drawn = Text("\n", no_wrap=True, overflow="crop").join(lines)
        drawn.no_wrap, drawn.overflow = True, "crop"
        return drawn

    def _lines(self, now: float, width: int) -> Iterator[Line]:
        for name, starting in self._servers.items():
            yield Line(Text.assemble((name, "bold"), f"  {starting.text}  ", (starting.words(now), "dim")))
        if (phase := self._phase) is not None:
            yield self._progress(phase, now, width)
            yield from self._traffic(phase, now)
        yield from (Line(Text(f"{name} has died", "bold red")) for name in self._figures.died)
        for name, (since, text) in self._figures.faults.items():
            yield Line(Text(fault_words(name, text, now - since), "yellow"))
        if self._verifying is not None:
            yield from self._verification(self._verifying, now)
        yield from server_lines(self._figures.servers, self._figures.states, width, now)

    @property
    def _phase(self) -> PhaseCount | None:
        """The phase as it is now."""
        began, counts = self._began, self._counts
        return began and (began.advanced(*counts) if counts else began)

    def _progress(self, phase: PhaseCount, now: float, width: int) -> Line:
        traffic, elapsed = self._figures.traffic, max(now - phase.began, 0.0)
        plan, e2e = (traffic.plan, traffic.e2e) if traffic else (None, None)
        share = share_done(plan, phase.done, phase.total, elapsed)
        left = seconds_left(plan, phase.done, elapsed, e2e)
        words = f"{share:4.0%}  {duration(elapsed)}" + (f", about {duration(left)} left" if left else "")
        if phase.done >= phase.total and plan is not None:
            next_step = "waiting for the servers to settle" if plan.of_load else "choosing what to ask next"
            words = f"{share:4.0%}  {duration(elapsed)}, {next_step}"
        ascii_only = self._console.options.ascii_only
        return Line(progress_line(phase.name, share, words, width, ascii_only=ascii_only))

    def _traffic(self, phase: PhaseCount, now: float) -> Iterator[Line]:
        traffic = self._figures.traffic
        if traffic is None or traffic.plan is None:
            yield Line(Text(f"{phase.words(now)}", "red" if phase.failed else ""), 1)
            return
        counts = f"{phase.done:,} of {phase.total:,} requests done, {traffic.in_flight:,} in flight, "
        yield Line(Text.assemble(counts, (f"{phase.failed:,} failed", "bold red" if phase.failed else "")), 1)
        yield from _rates(traffic, now)

    def _verification(self, verifying: Verifying, now: float) -> Iterator[Line]:
        if (so_far := self._figures.so_far) is not None and so_far.outputs:
            yield Line(Text(verified_words(so_far), "bold red" if so_far.wrong else ""), 1)
        yield Line(Text(f"verification: {verifying.time_words(now)}"), 2)

    def _leave_lines(self) -> None:
        for name, starting in self._servers.items():
            self._console.print(Text(f"{name}: {starting.text}, {duration(starting.seconds)}", "dim"))
        if (phase := self._phase) is not None:
            words = phase.words(self._clock.now())
            traffic = self._figures.traffic
            latencies = latency_words(traffic) if traffic and traffic.plan and traffic.plan.of_load else ""
            line = f"{phase.name}: {words}{f'; {latencies}' if latencies else ''}"
            self._console.print(Text(line, "dim"))
        self._servers, self._began = {}, None


def _rates(traffic: Traffic, now: float) -> Iterator[Line]:
    if words := rate_words(traffic.recent(now), traffic.mean(now)):
        yield Line(Text(words), 2)
    if words := latency_words(traffic):
        yield Line(Text(words), 3)
