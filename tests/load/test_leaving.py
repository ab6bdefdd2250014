"""A client that leaves as planned closes its connection at that moment, and what it had received is kept."""

import asyncio
from dataclasses import replace
from typing import Any

import load_wire as wire
import pytest
import raw_server as raw
from load_wire import REQUEST
from raw_server import CHUNKED, Asked, chunked, sized

from harness.clock import MonotonicClock
from harness.history import Ended, Ending, Outcome
from harness.load.client import Client
from harness.load.leaving import UsualTimes
from harness.scenario import Moment, Purpose, Request, Route

EVENTS = [event + b"\n\n" for event in wire.whole_stream().split(b"\n\n")[:-1]]
WHOLE = CHUNKED + chunked(*EVENTS)
LEFT = Outcome.INFO, Ending.LEFT


def one_chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def leaving(moment: Moment, after: float = 0.0) -> Request:
    return replace(REQUEST, leaves=moment, leaves_after=after)


@pytest.fixture(params=[True, False], ids=["direct", "aiohttp"])
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"direct": request.param}


class Server:
    """Sends some pieces, and tells whether the client then closed the connection."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces
        self.left = asyncio.Event()

    async def __call__(self, asked: Asked) -> None:
        await asked.send(*self._pieces)
        await asked.gone()
        self.left.set()


async def send(server: raw.Answering, way: dict[str, Any], *requests: Request) -> list[Ended]:
    async with raw.answering(server) as served:
        client = Client({r: [served.url] for r in Route}, model="m", clock=MonotonicClock(), timeout=20.0, **way)
        async with client as asking:
            ends = [await asking.send(request) for request in requests]
            if isinstance(server, Server):
                # The client itself is still open: the connection is closed at once, and not at the end.
                await asyncio.wait_for(server.left.wait(), 10)
            return ends


@pytest.mark.parametrize("tokens", [1, 2])
async def test_in_mid_stream_the_tokens_before_are_kept(tokens: int, way: dict[str, Any]) -> None:
    (ended,) = await send(
        Server(CHUNKED, *map(one_chunk, EVENTS[:tokens])), way, leaving(Moment.STREAM, after=float(tokens))
    )
    assert (ended.outcome, ended.ending, ended.status) == (*LEFT, 200)
    assert ended.choices[0].token_ids == (11, 12, 13)[:tokens]
    assert ended.cause == f"the client left after {tokens} events of the stream, as planned"


async def test_before_the_first_token_nothing_is_read(way: dict[str, Any]) -> None:
    (ended,) = await send(Server(CHUNKED, one_chunk(EVENTS[0])), way, leaving(Moment.FIRST_TOKEN))
    assert (ended.outcome, ended.ending) == LEFT
    assert ended.output_tokens == 0


@pytest.mark.parametrize("moment", [Moment.FIRST_TOKEN, Moment.TRANSFER])
async def test_a_client_does_not_wait_for_an_answer_that_does_not_come(moment: Moment, way: dict[str, Any]) -> None:
    """Other requests were answered within a moment; the last one is never answered."""

    class Silent(Server):
        async def __call__(self, asked: Asked) -> None:
            if b"r-left" in asked.head:
                await super().__call__(asked)
            else:
                await asked.send(WHOLE)

    last = replace(leaving(moment, after=0.5), request_id="r-left")
    others = leaving(Moment.STREAM, after=99.0), replace(REQUEST, request_id="r-2")
    ends = await send(Silent(), way, *others, last)
    assert [one.ending for one in ends] == [Ending.COMPLETED, Ending.COMPLETED, Ending.LEFT]
    assert (ends[-1].status, ends[-1].choices) == (None, ())


async def test_an_answer_that_is_whole_before_is_no_left_one(way: dict[str, Any]) -> None:
    async def script(asked: Asked) -> None:
        await asked.send(WHOLE)

    (ended,) = await send(script, way, leaving(Moment.STREAM, after=4.0))
    assert (ended.outcome, ended.ending) == (Outcome.OK, Ending.COMPLETED)


async def test_a_refusal_is_a_refusal(way: dict[str, Any]) -> None:
    async def script(asked: Asked) -> None:
        await asked.send(sized(b"no", b"503 Service Unavailable", b"text/plain"))

    (ended,) = await send(script, way, leaving(Moment.FIRST_TOKEN))
    assert (ended.ending, ended.status, ended.cause) == (Ending.REFUSED, 503, "HTTP 503: no")


async def test_a_request_that_verifies_does_not_leave(way: dict[str, Any]) -> None:
    async def script(asked: Asked) -> None:
        await asked.send(WHOLE)

    retry = replace(leaving(Moment.STREAM, after=1.0), purpose=Purpose.RETRY)
    (ended,) = await send(script, way, retry)
    assert ended.outcome is Outcome.OK


def answered(first: float, **shares: float) -> Ended:
    return Ended(first + 1, "r", Outcome.OK, status=200, token_times=(first,), **shares)


@pytest.mark.parametrize(
    ("moment", "after", "seconds"),
    [(Moment.FIRST_TOKEN, 0.5, 2.0), (Moment.TRANSFER, 0.5, 3.5), (Moment.TRANSFER, 0.0, 3.0)],
)
def test_the_moment_is_a_share_of_the_usual_time(moment: Moment, after: float, seconds: float) -> None:
    """Sent at 10 s; prefill had answered after 3 s, and the first token came after 4 s."""
    usual = UsualTimes()
    asked = leaving(moment, after)
    assert usual.began(REQUEST, lambda: 10.0) is None, "a run in which nobody leaves"
    began = usual.began(asked, lambda: 10.0)
    assert usual.wait(asked) is None
    usual.learn(answered(14.0, proxy_seconds=1.0, prefill_seconds=2.0), began)
    assert usual.wait(asked) == pytest.approx(seconds)


def test_usual_is_what_three_quarters_exceed() -> None:
    usual = UsualTimes()
    asked = leaving(Moment.TRANSFER, 1.0)
    for first in (2.0, 6.0, 3.0, 9.0):
        usual.learn(answered(first, proxy_seconds=0.0, prefill_seconds=1.0), usual.began(asked, lambda: 0.0))
    assert usual.wait(asked) == pytest.approx(1.0 + 2.0)


def test_where_the_proxy_does_not_tell_the_transfer_is_the_second_half() -> None:
    usual = UsualTimes()
    asked = leaving(Moment.TRANSFER, 0.5)
    usual.learn(answered(14.0), usual.began(asked, lambda: 10.0))
    assert usual.wait(asked) == pytest.approx(3.0)
