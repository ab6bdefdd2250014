"""The streaming client: sends a request, reads the answer as it arrives, and returns how the operation ended.

A server's error and a request that cannot be sent raise no exception: they are ways in which an operation ends.

Plain HTTP goes over connections of the harness's own (``direct``), everything else through aiohttp (``over_aiohttp``).
What arrives is read in the same way (``receiver``): a read of the socket costs a time stamp, and the events are read
when the stream has ended.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import aiohttp

from harness.clock import Clock
from harness.errors import UsageError
from harness.history import Ended, Ending
from harness.load.answers.answer import Answer
from harness.load.answers.outcome import Reply, conclude
from harness.load.answers.receiver import Receiver
from harness.load.body import encode
from harness.load.extra_body import checked
from harness.load.leaving import Leaving, Left, UsualTimes, left_in_time
from harness.load.targets import Targets
from harness.load.transport.coding import UnknownCoding
from harness.load.transport.direct import REQUEST_ID, Direct
from harness.load.transport.limits import TimedOut, time_limit
from harness.load.transport.over_aiohttp import OverAiohttp
from harness.load.transport.pool import NotConnected
from harness.redact import redact_secrets, secrets_of
from harness.scenario import Request, Route


class Client:
    """Sends requests to the servers of ``routes``; an async context manager that keeps connections open.

    ``timeout``: seconds from sending a request to the end of its answer. ``extra_body``: fields added to every body.
    ``direct`` False: all requests go through aiohttp. ``typed`` False: all events are read one by one. Both are slower
    and give the same results, which tests and ``bench`` compare.

    Raises UsageError if ``extra_body`` sets a field that the run sets itself.
    """

    def __init__(  # noqa: PLR0913 - keyword-only settings, all of them independent
        self,
        routes: Mapping[Route, Sequence[str]],
        *,
        model: str,
        clock: Clock,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        direct: bool = True,
        typed: bool = True,
    ) -> None:
        self._targets = Targets(routes)
        self._model = model
        self._clock = clock
        self._timeout = timeout
        # A compressor between server and client would hold tokens back until its window is full.
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **(headers or {})}
        self._secrets = secrets_of(headers or {}, (url for urls in routes.values() for url in urls))
        self._extra_body = checked(extra_body or {})
        self._uses_direct = direct
        self._typed = typed
        self._usual = UsualTimes()
        self._aiohttp: OverAiohttp
        self._direct: Direct
        self._open: AsyncExitStack

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._aiohttp = await stack.enter_async_context(OverAiohttp(self._headers, self._clock.now, self._timeout))
            self._direct = await stack.enter_async_context(Direct(self._headers, self._clock.now, self._timeout))
            self._open = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def send(self, request: Request) -> Ended:
        """Send a request and wait until it ends in any way. Cancellation closes the connection."""
        reply, answer = Reply(), Answer()
        receiver = Receiver(request, reply, answer, typed=self._typed)
        began = self._usual.began(request, self._clock.now)
        try:
            # What verifies a request of the load is like it, but its client stays.
            if request.leaves is None or not request.of_load:
                async with nullcontext() if request.deadline is None else time_limit(request.deadline):
                    await self._exchange(request, receiver)
            else:
                async with left_in_time(self._usual.wait(request)):
                    await self._exchange(request, Leaving(request, receiver))
            receiver.end(self._clock.now())
        except Left as left:
            reply.broken, reply.trouble = Ending.LEFT, str(left)
        except (aiohttp.ClientConnectorError, NotConnected) as error:
            reply.broken, reply.trouble = Ending.NOT_CONNECTED, f"not sent: {error}"
        except UsageError as error:
            reply.broken, reply.trouble = Ending.NOT_SENT, f"not sent: {error}"
        except UnknownCoding as error:
            reply.broken, reply.trouble = Ending.UNREADABLE, f"not read: {error}"
        except TimedOut:
            limit = request.deadline or self._timeout
            reply.broken, reply.trouble = Ending.TIMED_OUT, f"no end of the answer within {limit:g} s"
        except (aiohttp.ClientError, OSError) as error:
            reply.broken, reply.trouble = Ending.CUT, f"cut: {type(error).__name__}: {error}"
        receiver.cut()
        ended = conclude(request, reply, answer, self._clock.now())
        self._usual.learn(ended, began)
        cause = redact_secrets(ended.cause, self._secrets) if ended.cause else ""
        return replace(ended, cause=cause) if cause != ended.cause else ended

    async def _exchange(self, request: Request, receiver: Receiver | Leaving) -> None:
        url = self._targets.url(request)
        body = encode(request, model=self._model, extra=self._extra_body)
        if self._uses_direct and self._direct.takes(url, request.request_id):
            await self._direct.exchange(url, request.request_id, body, receiver)
        else:
            await self._aiohttp.exchange(url, {REQUEST_ID: request.request_id}, body, receiver)
