"""Which cores the processes of a benchmark run on, so that clients and servers do not take each other's time. Linux.

The system counts hardware threads as cores. Two threads of one core take each other's time, too (about a third of it),
so each client has a core by itself where there are enough.
"""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

Threads = Callable[[int], frozenset[int]]
"""The hardware threads of a core, by the number of one of them."""


def threads_of(core: int) -> frozenset[int]:
    """As the system reports them; the core alone if it does not."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    return frozenset({core, *_numbers(path.read_text())}) if path.exists() else frozenset({core})


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of clients and of servers."""

    clients: tuple[int, ...]
    """One for each worker."""
    main: int | None
    """The main process's own; None: it shares the cores of the workers."""
    servers: tuple[int, ...]
    """All others, as far as possible without the clients' other threads; if there are none, those of the clients."""
    halves: bool = False
    """Whether two clients, or a client and servers, are threads of one core."""

    @classmethod
    def of(
        cls, clients: Sequence[int], main: int | None, available: frozenset[int], threads: Threads = threads_of
    ) -> "Cores":
        """The cores, of those that this process may use."""
        taken = [*clients, *(() if main is None else (main,))]
        beside = frozenset[int]().union(*map(threads, taken))
        servers = available - beside or available - {*taken} or available
        halves = bool((servers - {*taken}) & beside) or any(
            one in threads(other) for one, other in combinations(taken, 2)
        )
        return cls(tuple(clients), main, tuple(sorted(servers)), halves)

    @property
    def shared(self) -> bool:
        """Whether servers run on the clients' cores."""
        return bool({*self.clients, self.main} & {*self.servers})

    def of_workers(self, number: int) -> tuple[int, ...]:
        """One core for each of so many workers; the main process without workers has one, too."""
        return self.clients[: max(number, 1)]

    def of_main(self, number: int) -> set[int]:
        """The cores of the main process beside so many workers."""
        return {self.main} if self.main is not None and number else {*self.of_workers(number)}

    def __str__(self) -> str:
        main = "shared with the main process" if self.main is None else f"core {self.main} for the main process"
        servers = f"servers on {spelled(self.servers)}"
        if self.shared:
            servers += ": this machine has TOO FEW CORES, so that servers and clients take each other's time"
        if self.halves:
            servers += "; some of them are TWO THREADS OF ONE CORE, which is slower than two cores"
        return f"clients on {spelled(self.clients)}, one for each worker, {main}; {servers}"


def spelled(cores: Sequence[int]) -> str:
    """The cores for a reader: ``cores 0-3,8``."""
    spans: list[list[int]] = []
    for core in cores:
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return "cores " + ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def apart(cores: Iterable[int], threads: Threads = threads_of) -> list[int]:
    """The same cores, with the first thread of each core first."""
    return sorted(cores, key=lambda core: (core != min(threads(core)), core))


def _numbers(text: str) -> list[int]:
    """Of ``0-3,8``. Raises ValueError."""
    spans = [part.partition("-") for part in text.split(",")]
    return [core for first, dash, last in spans for core in range(int(first), int(last if dash else first) + 1)]


def core_list(text: str) -> tuple[int, ...]:
    """Cores as ``taskset --cpu-list`` writes them: ``0-3,8``. Raises ArgumentTypeError."""
    try:
        cores = _numbers(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of cores, such as 0-3,8") from None
    available = os.sched_getaffinity(0)
    if not cores or not available.issuperset(cores):
        raise argparse.ArgumentTypeError(f"{text}: this process may use {spelled(sorted(available))}")
    return tuple(dict.fromkeys(cores))
