"""What all loads have in common: how many requests are in flight, when requests are sent, and sessions. Pure.

A *session* is a conversation: its requests are turns, each of which continues the turn before (prompt and answer) and
is sent a *think time* after that one's end. Sessions arrive as single requests do in a load without sessions: in a
closed loop ``concurrency`` of them at a time, in an open loop at the given rate.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from harness.errors import UsageError
from harness.loads.arrival import Arrival
from harness.loads.packed import packed
from harness.scenario import Phase, Request

CLOSED = 32
"""Requests that a closed loop keeps in flight if nothing else is asked for."""
_SCHEDULE, _THINKING = 1, 2
"""The streams of random numbers beside that of the prompts: another rate sends the same prompts."""


@dataclass(frozen=True, kw_only=True)
class TimedLoad:
    """The fields of every load."""

    concurrency: int | None = None
    """Requests in flight, or sessions, at most. None: ``CLOSED`` in a closed loop, which is then its value; no limit in
    an open loop, whose requests must not wait for answers."""
    seed: int = 0
    """The same seed sends the same prompts at the same times. It decides what is verified, too."""
    arrival: Arrival | None = None
    """When requests are due; None: as soon as ``concurrency`` allows."""
    turns: int = 1
    """Requests of a session, at most; 1: no sessions."""
    think_time: tuple[float, float] = (0.0, 0.0)
    """Seconds between the end of a turn and the next one, least and most; drawn anew for each turn."""
    seconds: float | None = None
    """No request is sent later than so many seconds after the first; None: all are sent."""

    def __post_init__(self) -> None:
        if self.concurrency is None and not self.is_open:
            object.__setattr__(self, "concurrency", CLOSED)

    @property
    def is_open(self) -> bool:
        """Whether requests are sent at times that are fixed beforehand."""
        return self.arrival is not None

    def texts(self) -> Sequence[str]:
        """Texts that a server must turn into token ids before the load is sent; most loads have none."""
        return ()

    def with_tokens(self, tokens: Sequence[Sequence[int]] | None) -> Self:  # noqa: ARG002 - for loads with texts
        """The load with the token ids of its texts; None: no server tokenizes. Raises UsageError if they are needed."""
        return self

    def phase(self, name: str, requests: Iterable[Request], *, due: Sequence[float] = ()) -> Phase:
        """The phase in which the requests are sent. Their prompts are packed (:mod:`harness.loads.packed`).

        A request that continues another one of the phase becomes its session's next turn. ``due``: times of the
        dataset's own, one for each session; ``arrival`` replaces them. Raises UsageError if there are fewer requests
        than the stages ask for.
        """
        requests = tuple(packed(requests))
        within = {request.request_id for request in requests}
        turns = [request.request_id for request in requests if request.continues in within]
        times = self._due(len(requests) - len(turns)) or tuple(due)
        return Phase(
            name,
            requests,
            max(1, len(requests)) if self.concurrency is None else self.concurrency,
            due=times,
            think_times=dict(zip(turns, self._thinking(len(turns)), strict=True)),
            seconds=self.seconds,
        )

    def _due(self, number: int) -> tuple[float, ...]:
        if self.arrival is None:
            return ()
        if self.arrival.size is not None and self.arrival.size > number:
            raise UsageError(
                f"--stages ask for {self.arrival.size:,} requests (rate times seconds), but the dataset has "
                f"{number:,}: shorten the stages, or lower their rates."
            )
        rng = np.random.default_rng((self.seed, _SCHEDULE))
        return tuple(self.arrival.times(number, rng).tolist())

    def _thinking(self, number: int) -> list[float]:
        rng = np.random.default_rng((self.seed, _THINKING))
        thinking: list[float] = rng.uniform(*self.think_time, size=number).tolist()
        return thinking

    def in_sessions(self, requests: Iterable[Request]) -> Iterator[Request]:
        """The requests, in groups of ``turns``, each of a group continuing the one before."""
        before = ""
        for number, request in enumerate(requests):
            first = number % self.turns == 0
            yield request if first else replace(request, continues=before)
            before = request.request_id

    def timing_words(self) -> Iterator[str]:
        """The flags of the command line that ask for the same timing."""
        yield from ("--seed", str(self.seed))
        if self.concurrency is not None:
            yield from ("--concurrency", str(self.concurrency))
        if self.arrival is not None:
            yield from self.arrival.words
        if self.turns != 1:
            yield from ("--session-turns", str(self.turns))
        if self.think_time != (0.0, 0.0):
            yield from ("--think-time", ":".join(f"{seconds:.15g}" for seconds in self.think_time))
        if self.seconds is not None:
            yield from ("--duration-sec", f"{self.seconds:.15g}")
