"""A deployment for tests of faults: real HTTP servers, but processes and signals that exist only here."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from signal import SIGKILL, SIGTERM, Signals

import counted_run as run
from jumping_clock import JumpingClock

from harness.errors import DeployError
from harness.faults import Site
from harness.faults.proc import ProcessTable


class Server:
    """Answers ``/health`` while its processes run."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.port = 0
        self.silent = False
        """Whether it accepts connections and never answers."""

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            # Somebody only looks whether connections are accepted.
            writer.close()
            return
        if self.silent:
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()


@dataclass
class Table(ProcessTable):
    """Processes by id, with their states. ``obeys``: the signals that end a process."""

    states: dict[int, str] = field(default_factory=dict)
    ticks: dict[int, int] = field(default_factory=lambda: {10: 200, 11: 800})
    """Clock ticks that processes have computed for."""
    obeys: frozenset[Signals] = frozenset({SIGKILL, SIGTERM})
    sent: list[tuple[int, Signals]] = field(default_factory=list)
    ended: Callable[[], None] = lambda: None

    def state(self, pid: int) -> str | None:
        return self.states.get(pid)

    def cpu_ticks(self, pid: int) -> int | None:
        return self.ticks.get(pid)

    def send(self, pid: int, number: Signals) -> bool:
        self.sent.append((pid, number))
        if number in self.obeys:
            self.states.pop(pid, None)
        if not self.states:
            self.ended()
        return True


@dataclass
class Processes:
    """The processes of ``decode-0``; a restart gives it new ones."""

    table: Table
    server: Server
    generation: int = 1
    restarts: bool = True
    """Whether a restart does anything."""
    fails: str = ""
    """Why a restart fails."""
    expected: list[str] = field(default_factory=list)

    def names(self) -> tuple[str, ...]:
        return ("decode-0",)

    def pids(self, _name: str) -> tuple[int, ...]:
        return tuple(self.table.states)

    def ended(self) -> dict[str, int]:
        return {}

    def will_end(self, name: str) -> None:
        self.expected.append(name)

    async def restart(self, _name: str) -> None:
        if self.fails:
            raise DeployError(self.fails)
        if self.restarts:
            self.generation += 1
            self.server.close()
            self.table.states = dict.fromkeys((self.generation * 10, self.generation * 10 + 1), "S")
            await self.server.open()


@dataclass
class FaultWorld:
    """All parts of it."""

    site: Site
    table: Table
    processes: Processes
    server: Server
    values: dict[str, dict[str, float]]
    """What the servers' /metrics say, by server."""


@asynccontextmanager
async def fault_world() -> AsyncIterator[FaultWorld]:
    """A decode server of two processes that answers."""
    server = Server()
    await server.open()
    table = Table(dict.fromkeys((10, 11), "S"), ended=server.close)
    processes = Processes(table, server)
    values: dict[str, dict[str, float]] = {}

    async def read(name: str) -> Mapping[str, float]:
        return {"process_start": float(processes.generation)} | values.get(name, {})

    servers = (run.DEPLOYMENT.servers[0], replace(run.DEPLOYMENT.servers[1], url=f"http://127.0.0.1:{server.port}"))
    deployment = replace(run.DEPLOYMENT, servers=servers)
    site = Site(deployment, JumpingClock(), processes, table=table, patience=1.0, values=read)
    try:
        yield FaultWorld(site, table, processes, server, values)
    finally:
        server.close()
