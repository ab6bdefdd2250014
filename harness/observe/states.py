"""Whether the servers answer while a run goes on, for who watches it. Nothing is judged by it.

Rule 1: a process that has ended is known by its exit status, and is not asked.
Rule 2: a server whose metrics were just read, for the page's charts, is not asked either: that reading tells as much.
Rule 3: a server that does not answer within ``TIMEOUT`` is said not to answer, unless it was this process that had no
time to listen. Any answer but an error of the server itself is one: not every server has ``/health``.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import aiohttp

from harness.cancelled import cancelled
from harness.clock import Clock
from harness.facts import Server
from harness.history import Entry, Sampled
from harness.observe.bodies import get_text, why
from harness.observer import UP
from harness.redact import redact_text

INTERVAL = 1.0
"""Seconds between two looks at a server."""
TIMEOUT = 5.0
"""Seconds for one answer, as for a reading of metrics."""
_LATE = 0.5
"""Seconds by which a time-out may be late. One that is later says that this process was busy, not the server."""


class ServerStates:
    """Follows the states of servers, and of other processes of the deployment, and tells each change."""

    def __init__(
        self,
        servers: Sequence[Server],
        clock: Clock,
        tell: Callable[[str, str], None],
        ended: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """``ended`` returns the exit statuses of the processes that have ended, by name."""
        self._servers = servers
        self._clock = clock
        self._tell = tell
        self._ended = ended
        self._known: dict[str, str] = {}
        self._read_at: dict[str, float] = {}
        """When the metrics of each server were last read."""

    def recorded(self, entry: Entry) -> None:
        """A reading of metrics tells the state of its server."""
        if isinstance(entry, Sampled):
            self._read_at[entry.server] = self._clock.now()
            self._answered(entry.server, entry.cause)

    @asynccontextmanager
    async def followed(self, headers: Mapping[str, str]) -> AsyncIterator[None]:
        """Look at all servers while the context lasts."""
        async with aiohttp.ClientSession(headers=headers) as session:
            tasks = [asyncio.create_task(self._follow(server, session)) for server in self._servers]
            tasks.append(asyncio.create_task(self._follow_processes()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                for task in tasks:
                    # What went wrong here is no reason to end a run.
                    with suppress(Exception):
                        await cancelled(task)

    async def _follow_processes(self) -> None:
        while True:
            self.look_at_processes()
            await self._clock.sleep(INTERVAL)

    def look_at_processes(self) -> None:
        """Tell which processes have ended, and which that are no servers were started again."""
        ended = self._ended()
        for name, status in ended.items():
            self._is(name, f"ended with code {status}")
        servers = {server.name for server in self._servers}
        for name in self._known.keys() - ended.keys() - servers:
            self._is(name, UP)

    async def _follow(self, server: Server, session: aiohttp.ClientSession) -> None:
        while True:
            if self._clock.now() - self._read_at.get(server.name, -2 * INTERVAL) >= 2 * INTERVAL:
                await self._ask(server, session)
            await self._clock.sleep(INTERVAL)

    async def _ask(self, server: Server, session: aiohttp.ClientSession) -> None:
        began = self._clock.now()
        try:
            status, _ = await get_text(session, f"{server.url}/health", TIMEOUT)
        except TimeoutError:
            if self._clock.now() - began <= TIMEOUT + _LATE:
                self._answered(server.name, f"not within {TIMEOUT:.0f} s")
        except (aiohttp.ClientError, OSError) as error:
            self._answered(server.name, redact_text(why(error)))
        except ValueError:
            # It redirects, or says too much: an answer.
            self._answered(server.name, "")
        else:
            failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
            self._answered(server.name, f"HTTP {status}" if failed else "")

    def _answered(self, server: str, cause: str) -> None:
        """A server answered, or did not for a cause; a process that has ended is said to have ended."""
        status = self._ended().get(server)
        if status is not None:
            self._is(server, f"ended with code {status}")
        else:
            self._is(server, f"not answering: {cause}" if cause else UP)

    def _is(self, name: str, state: str) -> None:
        before = self._known.get(name)
        self._known[name] = state
        # The words of a cause may differ from one look to the next.
        if before is None or before.partition(":")[0] != state.partition(":")[0]:
            self._tell(name, state)
