"""Stops a process and lets it go on later: SIGSTOP and SIGCONT."""

import signal
from dataclasses import dataclass, field
from typing import ClassVar

from harness.faults.fault import NoEvidence
from harness.faults.health import answers, until_answers, url_of
from harness.faults.proc import STOPPED
from harness.faults.site import Site
from harness.faults.targets import running_pids
from harness.history import Tolerated

_OF = {"all": "", "engine": "the engine of "}
_PARTS = tuple(_OF)
_LEAST_SHARE = 0.1
"""The least part of a server's processor time that its engine has used. On a CPU pair of vLLM 0.32 that had just
started, the engines had used half, and the idle process beside each (Python's resource tracker) 0.2 %."""
IDLE_S = 5.0
"""Seconds of silence after which vLLM closes a connection (``VLLM_HTTP_TIMEOUT_KEEP_ALIVE``)."""


@dataclass(slots=True)
class Pause:
    """Stop a server or the proxy (SIGSTOP) for a time, as a hung host or a long garbage collection does.

    Rule 1: every process of the server is stopped. Evidence is that the kernel says so of each (state T), and that the
            server's address does not answer: a signal may hit processes that do not serve it.
    Rule 2: it is healed when none of them is stopped and the server answers again.
    Rule 3: a server that was stopped whole for more than 5 s (``IDLE_S``) first closes connections that seem idle when
            it goes on, with the requests that came meanwhile. These fail clearly, or are sent again, and their
            transfers are never begun: such a pause does not test what becomes of a transfer that waits for so long.
    Rule 4: with ``part=engine``, the first process, which speaks HTTP, goes on: it takes requests that the others do
            not serve, and no connection is closed. Evidence is, in place of the address, that the stopped processes
            have done a part of the server's computing so far: an idle child that is stopped stops nothing. A server of
            one process is stopped whole.
    """

    kind: ClassVar[str] = "pause"
    note: ClassVar[str] = (
        f"a whole server that was stopped for more than {IDLE_S:g} s closes idle connections when it goes on, with the "
        "requests on them: use part=engine to test transfers that wait for so long"
    )
    server: str = "decode-0"
    part: str = "all"
    """``all`` processes of the server, or its ``engine`` alone."""
    tolerates: tuple[Tolerated, ...] = (
        Tolerated.ERRORS,
        Tolerated.FAILED_TRANSFERS,
        Tolerated.UNREAD_METRICS,
    )
    _stopped: tuple[int, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        if self.part not in _PARTS:
            raise ValueError(f"part={self.part}: give one of {', '.join(_PARTS)}.")

    @property
    def target(self) -> str:
        """The server's name."""
        return self.server

    @property
    def text(self) -> str:
        """What it does."""
        return f"stop {_OF[self.part]}{self.server} with SIGSTOP"

    async def strike(self, site: Site) -> str:
        """Stop all its processes; evidence: their states."""
        pids = running_pids(site, self.server)
        self._stopped = (pids[1:] or pids) if self.part == "engine" else pids
        for pid in self._stopped:
            site.table.send(pid, signal.SIGSTOP)
        if not await site.until(lambda: all(site.table.state(pid) == STOPPED for pid in self._stopped)):
            states = {pid: site.table.state(pid) for pid in self._stopped}
            raise NoEvidence(f"after SIGSTOP, the processes of {self.server} are in the states {states}, not all T")
        stopped = f"{len(self._stopped)} processes of {self.server} are stopped (state T)"
        if self._stopped and self._stopped != pids:
            return f"{stopped}, all but the one that speaks HTTP, {self._computed(site, pids)}"
        if not self._stopped or await answers(url_of(site, self.server)):
            raise NoEvidence(f"{self.server} still answers, although {len(self._stopped)} processes were stopped")
        return f"{stopped}, and /health does not answer"

    async def heal(self, site: Site) -> str:
        """Let them go on."""
        for pid in self._stopped:
            site.table.send(pid, signal.SIGCONT)
        if not await site.until(lambda: all(site.table.state(pid) != STOPPED for pid in self._stopped)):
            raise NoEvidence(f"after SIGCONT, processes of {self.server} are still stopped")
        if self._stopped and not await until_answers(site, url_of(site, self.server), site.long_patience):
            raise NoEvidence(f"after SIGCONT, {self.server} did not answer within {site.long_patience:.0f} s")
        return f"{len(self._stopped)} processes of {self.server} go on, and it answers"

    def _computed(self, site: Site, pids: tuple[int, ...]) -> str:
        """How much of the server's computing the stopped processes have done. Raises NoEvidence if it is too little."""
        ticks = {pid: site.table.cpu_ticks(pid) or 0 for pid in pids}
        share = sum(ticks[pid] for pid in self._stopped) / max(1, sum(ticks.values()))
        if share < _LEAST_SHARE:
            raise NoEvidence(
                f"the stopped processes have used {share:.1%} of the processor time of {self.server}: its engine is "
                "not among them"
            )
        return f"and have used {share:.0%} of its processor time"
