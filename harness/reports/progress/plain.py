"""Progress as plain lines, for logs.

A phase has a line when it begins, one at each further tenth or every ten seconds, and one when it ends. Lines for
tenths are at least a second apart, so that a quick phase has few.
"""

from collections.abc import Iterator
from typing import Self, TextIO

from harness.clock import Clock
from harness.history import Entry
from harness.observer import PhasePlan, VerifiedSoFar
from harness.reports.progress.figures import Figures
from harness.reports.progress.phase_count import PhaseCount
from harness.reports.progress.verifying import Verifying, estimate
from harness.reports.progress.words import fault_words, latency_words, seconds_left, server_words, verified_words
from harness.reports.text import clean, duration, figure, plural

EVERY_SECONDS = 10.0
AT_MOST_EVERY_SECONDS = 1.0


class PlainProgress:
    """Writes to ``stream``."""

    def __init__(self, stream: TextIO, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._phase: PhaseCount | None = None
        self._verifying: Verifying | None = None
        self._shown: dict[str, tuple[str, float]] = {}
        """The last line about each server: its text and time."""
        self._tenth = 0
        self._line_at = 0.0
        self._figures = Figures()

    def deploy(self, server: str, text: str, seconds: float) -> None:
        """A line when the text changes, and every ten seconds."""
        before, at = self._shown.get(server, ("", 0.0))
        now = self._clock.now()
        if text != before or now - at >= EVERY_SECONDS:
            self._shown[server] = (text, now)
            self._print(f"{server}: {text}, {duration(seconds)}")

    def phase(self, scenario: str, phase: str, total: int) -> None:
        """Print the end of the last phase and the beginning of this one."""
        self.close()
        self._phase = PhaseCount(scenario, phase, total, self._clock.now())
        self._figures.phase(self._phase.began)
        self._tenth, self._line_at = 0, self._phase.began
        self._print(f"{self._phase.name}: {plural(total, 'request')}")

    def advance(self, done: int, total: int, failed: int) -> None:
        """Update the counts, and print a line if one is due."""
        if self._phase is not None:
            self._phase = self._phase.advanced(done, total, failed)
            if self._is_due(self._phase):
                self._print_phase(self._phase)

    def sending(self, plan: PhasePlan) -> None:
        """Remember what the next phase sends. A load ends the verification of the load before."""
        self._figures.sending(plan)
        if plan.of_load:
            self._verifying = None

    def recorded(self, entry: Entry) -> None:
        """Update the figures."""
        self._figures.recorded(entry, self._clock.now)

    def server(self, name: str, state: str) -> None:
        """A line when the state changes."""
        if self._figures.server(name, state):
            self._print(f"{name}: {clean(state)}")

    def verified(self, so_far: VerifiedSoFar) -> None:
        """A line, if something changed."""
        if so_far != self._figures.so_far:
            self._figures.so_far = so_far
            self._print(f"verification: {verified_words(so_far)}")

    def verifying(self, expected: float, seconds: float | None, tokens: int | None) -> None:
        """Print the estimate; lines of phases have the time that has passed from now on."""
        self.close()
        self._verifying = Verifying(self._clock.now(), seconds, expected)
        self._print(estimate(expected, seconds, tokens))

    def note(self, text: str) -> None:
        """Print the text as a line."""
        self._print(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Print the end of the last phase."""
        if self._phase is not None:
            self._print(f"{self._phase.name}: ended: {self._words(self._phase)}")
            self._phase = None

    def _is_due(self, phase: PhaseCount) -> bool:
        """Whether a line is due; the last one is printed when the phase ends."""
        since = self._clock.now() - self._line_at
        further = phase.tenth > self._tenth and since >= AT_MOST_EVERY_SECONDS
        return phase.done < phase.total and (further or since >= EVERY_SECONDS)

    def _print_phase(self, phase: PhaseCount) -> None:
        self._tenth, self._line_at = phase.tenth, self._clock.now()
        self._print(f"{phase.name}: {self._words(phase)}")

    def _words(self, phase: PhaseCount) -> str:
        now = self._clock.now()
        own = phase.words(now) + ("" if self._verifying is None else self._verifying.words(now))
        return "; ".join((own, *self._more(phase, now)))

    def _more(self, phase: PhaseCount, now: float) -> Iterator[str]:
        """The figures of a load, for a log that is read afterwards."""
        traffic = self._figures.traffic
        if traffic is None or traffic.plan is None or not traffic.plan.of_load:
            return
        mean, left = traffic.mean(now), seconds_left(traffic.plan, phase.done, now - phase.began, traffic.e2e)
        yield f"{traffic.in_flight:,} in flight"
        yield f"{figure(mean.tokens if mean else None)} output tokens/s"
        if latencies := latency_words(traffic):
            yield latencies
        yield from (server_words(name, server) for name, server in self._figures.servers.items())
        yield from (fault_words(name, text, now - since) for name, (since, text) in self._figures.faults.items())
        if left:
            yield f"about {duration(left)} left"

    def _print(self, line: str) -> None:
        print(clean(line, None), file=self._stream, flush=True)
