"""One suite for both transports: every oddity that a server can send ends in the same way, over either.

What depends on the content of answers runs with those of both endpoints.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import load_wire as wire
import pytest
import raw_server as raw
from load_wire import REQUEST
from raw_server import CHUNKED, HEAD, Asked, chunked, sized

from harness.clock import MonotonicClock
from harness.history import Ended, Ending, Outcome
from harness.load.answers import events, size
from harness.load.client import Client
from harness.load.transport import connection, pool
from harness.scenario import Request, Route, Sampling

WAYS: dict[str, dict[str, Any]] = {
    "direct": {},
    "direct, event by event": {"typed": False},
    "aiohttp": {"direct": False},
    "aiohttp, event by event": {"direct": False, "typed": False},
}
"""Settings of the client: each way in which it can be asked."""


@dataclass(frozen=True)
class Spoken:
    """A request to one of the endpoints, and the answer to it: three tokens."""

    request: Request
    stream: bytes

    @property
    def events(self) -> list[bytes]:
        """The last two are the usage and the end marker."""
        return [event + b"\n\n" for event in self.stream.split(b"\n\n")[:-1]]

    @property
    def answer(self) -> bytes:
        return CHUNKED + chunked(*self.events)


COMPLETION = Spoken(REQUEST, wire.whole_stream())
SPOKEN = {"completions": COMPLETION, "chat": Spoken(wire.CHAT_REQUEST, wire.whole_chat())}
EVENTS, WHOLE, ANSWER = COMPLETION.events, COMPLETION.stream, COMPLETION.answer
OK, CUT = (Outcome.OK, Ending.COMPLETED), (Outcome.INFO, Ending.CUT)


def _cases() -> Iterator[Any]:
    for name, settings in WAYS.items():
        yield pytest.param(settings, id=name, marks=[pytest.mark.slow] if "event by event" in name else [])


@pytest.fixture(params=SPOKEN)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    return SPOKEN[request.param]


@pytest.fixture(params=_cases())
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    settings: dict[str, Any] = request.param
    return settings


def client(url: str, way: dict[str, Any], **settings: Any) -> Client:
    clock = MonotonicClock()
    return Client({route: [url] for route in Route}, model="m", **{"clock": clock, "timeout": 20.0, **way, **settings})


async def ask(script: raw.Answering, way: dict[str, Any], request: Request = REQUEST, **settings: Any) -> Ended:
    async with raw.answering(script) as served, client(served.url, way, **settings) as asking:
        return await asking.send(request)


def sends(*pieces: bytes, close: bool = False, reset: bool = False) -> raw.Answering:
    async def script(asked: Asked) -> None:
        await asked.send(*pieces)
        if reset:
            asked.reset()
        elif close:
            asked.close()

    return script


def ended_as(ended: Ended) -> tuple[Outcome, Ending]:
    return ended.outcome, ended.ending


def known(ended: Ended) -> Ended:
    """The end without its times."""
    return replace(ended, at=0.0, token_times=(0.0,) * len(ended.token_times))


def framed(body: bytes) -> dict[str, tuple[bytes, bool]]:
    """The body in every framing, and whether the server closes the connection after it."""
    return {
        "chunked": (CHUNKED + chunked(*(body[at : at + 100] for at in range(0, len(body), 100))), False),
        "chunk extension": (CHUNKED + b"%x;a=b\r\n%b\r\n0;c\r\n\r\n" % (len(body), body), False),
        "trailer": (CHUNKED + b"%x\r\n%b\r\n0\r\nX-Sum: 5\r\n\r\n" % (len(body), body), False),
        "length": (sized(body), False),
        "until close": (HEAD + b"\r\n" + body, True),
        "http 1.0": (b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body, True),
        "length and close": (sized(body).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1), True),
        "bare line feeds": (sized(body).replace(b"\r\n", b"\n"), False),
    }


@pytest.mark.parametrize("framing", framed(b""))
async def test_an_answer_ends_where_its_framing_says(framing: str, spoken: Spoken, way: dict[str, Any]) -> None:
    answer, close = framed(spoken.stream)[framing]
    ended = await ask(sends(answer, close=close), way, spoken.request)
    assert (*ended_as(ended), ended.cause) == (*OK, "")
    assert known(ended) == known(await ask(sends(spoken.answer), WAYS["aiohttp, event by event"], spoken.request))


async def test_both_endpoints_answers_are_read_as_the_same_tokens(way: dict[str, Any]) -> None:
    ends = [known(await ask(sends(one.answer), way, one.request)) for one in SPOKEN.values()]
    assert ends[0] == ends[1]
    assert len(ends[0].choices[0].logprobs) == 3


async def test_an_answer_is_the_same_wherever_it_is_split(spoken: Spoken, way: dict[str, Any]) -> None:
    answer = spoken.answer
    cuts = iter([*range(1, len(answer)), len(answer)])

    async def script(asked: Asked) -> None:
        at = next(cuts)
        await asked.send(answer[:at], answer[at:])

    async with raw.answering(script) as served, client(served.url, way) as asking:
        ends = [known(await asking.send(spoken.request)) for _ in range(len(answer))]
        assert served.connections == 1
    assert set(ends) == {ends[0]}
    assert ended_as(ends[0]) == OK


async def test_an_answer_byte_by_byte(spoken: Spoken, way: dict[str, Any]) -> None:
    answer = spoken.answer
    ended = await ask(sends(*(answer[at : at + 1] for at in range(len(answer)))), way, spoken.request)
    assert ended_as(ended) == OK
    assert ended.choices[0].token_ids == (11, 12, 13)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_an_answer_cut_anywhere_is_cut_unless_its_end_marker_came(
    reset: bool, spoken: Spoken, way: dict[str, Any]
) -> None:
    answer = spoken.answer
    # Every 13th byte, and each of the last ones: the end marker, its empty line, the end of the chunked coding.
    cuts = [*range(0, len(answer) - 30, 13), *range(len(answer) - 30, len(answer))]
    waiting = iter(cuts)

    async def script(asked: Asked) -> None:
        await sends(answer[: next(waiting)], close=not reset, reset=reset)(asked)

    async with raw.answering(script) as served, client(served.url, way) as asking:
        for at in cuts:
            ended = await asking.send(spoken.request)
            whole = b"[DONE]\n\n" in answer[:at]
            if not reset:
                assert ended_as(ended) == (OK if whole else CUT), at
            elif not whole:
                # A reset may overtake what was sent before, so that the end marker is lost.
                assert ended_as(ended) == CUT, at
            if not reset:
                assert ended.status == (200 if b"\r\n\r\n" in answer[:at] else None), at


async def test_without_a_length_a_closed_connection_is_the_end(way: dict[str, Any]) -> None:
    ended = await ask(sends(HEAD + b"\r\n" + EVENTS[0], close=True), way)
    assert ended_as(ended) == (Outcome.INFO, Ending.UNFINISHED)
    assert ended.choices[0].token_ids == (11,)


LATE = wire.sse(wire.completion_chunk([14]))


def odd_streams(spoken: Spoken) -> dict[str, tuple[bytes, Ending]]:
    """Streams with one oddity each, and how a request with such an answer ends."""
    events, whole = spoken.events, spoken.stream
    return {
        "an error event": (events[0] + wire.sse(wire.ERROR) + wire.DONE, Ending.ERROR_INSIDE),
        "an error event alone": (wire.sse(wire.ERROR), Ending.ERROR_INSIDE),
        "an error after the end marker": (whole + wire.sse(wire.ERROR), Ending.ERROR_INSIDE),
        "an event after the end marker": (whole + LATE, Ending.UNFINISHED),
        "the usage after the end marker": (b"".join(events[:-2]) + wire.DONE + events[-2], Ending.COMPLETED),
        "two end markers": (whole + wire.DONE, Ending.COMPLETED),
        "no end marker, but the usage": (b"".join(events[:-1]), Ending.COMPLETED),
        "no end marker and no usage": (b"".join(events[:2]), Ending.UNFINISHED),
        "text that is no event": (b"upstream is gone\n\n", Ending.UNFINISHED),
        "text between events": (events[0] + b"oops\n\n" + b"".join(events[1:]), Ending.COMPLETED),
        "bytes that are not UTF-8": (whole.replace(b'"a"', b'"\xff"'), Ending.UNFINISHED),
        "bytes that are not UTF-8 in the name": (whole.replace(b"cmpl-1", b"cmpl-\xff"), Ending.UNFINISHED),
        "text in UTF-8": (whole.replace(b'"a"', '"ä日"'.encode()), Ending.COMPLETED),
        "CRLF": (whole.replace(b"\n", b"\r\n"), Ending.COMPLETED),
        "CR": (whole.replace(b"\n", b"\r"), Ending.COMPLETED),
        "a byte order mark": (b"\xef\xbb\xbf" + whole, Ending.COMPLETED),
        "keep-alive comments": (wire.KEEP_ALIVE.join(events), Ending.COMPLETED),
        "a line end within an event": (whole.replace(b'"index": 0,', b'"index":\n0,'), Ending.UNFINISHED),
        "an event of several lines": (whole.replace(b'"index": 0,', b'"index":\ndata: 0,'), Ending.COMPLETED),
        "damaged JSON": (whole.replace(b'"index": 0', b'"index": 0 0'), Ending.UNFINISHED),
        "the last event without an empty line": (whole.removesuffix(b"\n\n"), Ending.COMPLETED),
        "another count of tokens": (whole.replace(b"[13]", b"[13, 14]"), Ending.UNFINISHED),
        "nothing": (b"", Ending.UNFINISHED),
    }


@pytest.mark.parametrize("name", odd_streams(COMPLETION))
@pytest.mark.parametrize("size", [None, 1, 64], ids=["whole", "byte by byte", "split"])
async def test_every_stream_ends_as_it_should(name: str, size: int | None, spoken: Spoken, way: dict[str, Any]) -> None:
    stream, ending = odd_streams(spoken)[name]
    pieces = [stream[at : at + (size or 1 << 20)] for at in range(0, len(stream), size or 1 << 20)]
    ended = await ask(sends(CHUNKED, chunked(*pieces)), way, spoken.request)
    assert ended.ending is ending
    assert known(ended) == known(await ask(sends(sized(stream)), WAYS["aiohttp, event by event"], spoken.request))


async def test_an_idle_connection_that_the_server_closes_is_not_used_again(way: dict[str, Any]) -> None:
    noticed: asyncio.Queue[int] = asyncio.Queue()

    async def script(asked: Asked) -> None:
        await asked.send(ANSWER)
        # To the client this is the end of the connection, and here its own end shows that it has noticed.
        asked.writer.write_eof()
        await asked.gone()
        asked.close()
        noticed.put_nowait(asked.connection)

    async with raw.answering(script) as served, client(served.url, way) as asking:
        for number in range(5):
            assert ended_as(await asking.send(REQUEST)) == OK
            assert await asyncio.wait_for(noticed.get(), 20) == number
        assert served.connections == 5


async def test_a_request_on_a_connection_that_the_server_closes_meanwhile_is_sent_once(way: dict[str, Any]) -> None:
    """It may have had an effect, so it is not sent again: nobody knows how it ended."""

    async def script(asked: Asked) -> None:
        if len(served.asked) == 2:
            asked.close()
        else:
            await asked.send(ANSWER)

    async with raw.answering(script) as served, client(served.url, way) as asking:
        ends = [ended_as(await asking.send(REQUEST)) for _ in range(3)]
        assert ends == [OK, CUT, OK]
        assert [asked.connection for asked in served.asked] == [0, 0, 1]


@pytest.mark.parametrize(
    ("answer", "reused"),
    [
        (ANSWER, True),
        (sized(WHOLE), True),
        (sized(b"no", b"503 Busy"), True),
        (sized(b"", b"204 No Content"), True),
        (CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + chunked(WHOLE), False),
        (sized(WHOLE) + b"surplus", False),
        (sized(WHOLE) + sized(b"a second answer"), False),
        (ANSWER + ANSWER, False),
    ],
)
async def test_a_connection_is_used_again_if_nothing_speaks_against_it(
    answer: bytes, reused: bool, way: dict[str, Any]
) -> None:
    async with raw.answering(sends(answer)) as served, client(served.url, way) as asking:
        ends = [await asking.send(REQUEST) for _ in range(3)]
        assert len({ended_as(ended) for ended in ends}) == 1
        # aiohttp gives up an answer if bytes that are not HTTP follow in the same read.
        if WHOLE[:99] in answer and not (way.get("direct") is False and answer.endswith(b"surplus")):
            assert ended_as(ends[0]) == OK
        assert served.connections == (1 if reused else 3)


@pytest.mark.parametrize("limit", [-1.0, 3.0])
async def test_connections_that_were_idle_for_too_long_are_not_used_again(
    limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "KEEPALIVE_S", limit)
    async with raw.answering(sends(ANSWER)) as served, client(served.url, {}) as asking:
        for _ in range(3):
            assert ended_as(await asking.send(REQUEST)) == OK
        assert served.connections == (3 if limit < 0 else 1)


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-PD-Prefill: http://no\r\n\r\n"


@pytest.mark.parametrize("interim", [INTERIM, HINTS, INTERIM + HINTS + INTERIM])
@pytest.mark.parametrize("apart", [False, True])
async def test_interim_answers_are_skipped(interim: bytes, apart: bool, way: dict[str, Any]) -> None:
    pieces = (interim, ANSWER) if apart else (interim + ANSWER,)
    async with raw.answering(sends(*pieces)) as served, client(served.url, way) as asking:
        ends = [await asking.send(REQUEST) for _ in range(2)]
        assert [(*ended_as(ended), ended.prefill_server) for ended in ends] == [(*OK, None)] * 2
        assert served.connections == 1


async def test_a_change_of_the_protocol_is_refused(way: dict[str, Any]) -> None:
    upgrade = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"
    ended = await ask(sends(upgrade, close=True), way)
    assert (*ended_as(ended), ended.status) == (Outcome.INFO, Ending.REFUSED, 101)


@pytest.mark.parametrize("status", [b"301 Moved", b"400 Bad", b"404 Not Found", b"429 Slow", b"500 Oops", b"503 Busy"])
@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
async def test_the_body_of_another_status_is_quoted(status: bytes, kind: bytes, way: dict[str, Any]) -> None:
    answer = sized(b"it says why", status, kind).replace(b"\r\n\r\n", b"\r\nLocation: /elsewhere\r\n\r\n", 1)
    async with raw.answering(sends(answer)) as served, client(served.url, way) as asking:
        ended = await asking.send(replace(REQUEST, route=Route.DECODE))
        assert (ended.cause, len(served.asked)) == (f"HTTP {int(status[:3])}: it says why", 1)
    assert ended.outcome is (Outcome.FAIL if status.startswith(b"4") else Outcome.INFO)


async def test_of_a_cut_refusal_the_status_is_kept(way: dict[str, Any]) -> None:
    ended = await ask(sends(sized(b"it says why", b"503 Busy")[:-4], close=True), way)
    assert (ended.ending, ended.status, ended.cause) == (Ending.REFUSED, 503, "HTTP 503: ")


LARGEST = b"X-Trace: " + b"a" * ((1 << 16) - len("X-Trace"))


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        (LARGEST, True),
        (LARGEST + b"a" * (1 << 18), False),
        (b"\r\n".join(b"X-%d: a" % number for number in range(100)), True),
        (b"\r\n".join(b"X-%d: a" % number for number in range(200)), False),
    ],
)
async def test_headers_have_a_limit(headers: bytes, accepted: bool, way: dict[str, Any]) -> None:
    ended = await ask(sends(HEAD + headers + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(WHOLE)), way)
    assert ended_as(ended) == (OK if accepted else CUT)


async def test_of_equal_headers_the_first_counts(way: dict[str, Any]) -> None:
    named = b"x-pd-DECODE: http://d:1\r\nX-PD-Decode: http://d:2\r\n"
    ended = await ask(sends(HEAD + named + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(WHOLE)), way)
    assert (*ended_as(ended), ended.decode_server) == (*OK, "http://d:1")


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", CHUNKED + b"zz\r\n", b"\x00" * 99])
async def test_what_is_not_http_is_cut(answer: bytes, way: dict[str, Any]) -> None:
    assert ended_as(await ask(sends(answer), way)) == CUT


@pytest.mark.parametrize(
    "begun", [b"", CHUNKED[:20], CHUNKED, CHUNKED + b"5\r\ndata", CHUNKED + chunked(EVENTS[0])[:-5]]
)
async def test_a_timeout_closes_the_connection(begun: bytes, way: dict[str, Any]) -> None:
    gone = asyncio.Event()

    async def script(asked: Asked) -> None:
        await asked.send(begun)
        await asked.gone()
        gone.set()

    async with raw.answering(script) as served, client(served.url, way, timeout=0.4) as asking:
        ended = await asking.send(REQUEST)
        await asyncio.wait_for(gone.wait(), 20)
    assert ended_as(ended) == (Outcome.INFO, Ending.TIMED_OUT)
    assert len(ended.token_times) == (EVENTS[0] in begun)


async def test_the_time_limit_also_holds_on_a_connection_that_was_used_before(way: dict[str, Any]) -> None:
    seen: list[int] = []

    async def script(asked: Asked) -> None:
        seen.append(asked.connection)
        if seen.count(asked.connection) == 1:
            await asked.send(ANSWER)
        else:
            await asked.send(CHUNKED + chunked(EVENTS[0])[:-5])
            await asked.gone()

    async with raw.answering(script) as served, client(served.url, way, timeout=0.3) as asking:
        waves = [await asyncio.gather(*(asking.send(REQUEST) for _ in range(3))) for _ in range(3)]
    assert [{ended_as(ended) for ended in wave} for wave in waves] == [{OK}, {(Outcome.INFO, Ending.TIMED_OUT)}, {OK}]
    assert {len(ended.token_times) for ended in waves[1]} == {1}


async def test_cancelling_closes_the_connection(way: dict[str, Any]) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def script(asked: Asked) -> None:
        await asked.send(CHUNKED)
        arrived.set()
        await asked.gone()
        gone.set()

    async with raw.answering(script) as served, client(served.url, way) as asking:
        sending = asyncio.create_task(asking.send(REQUEST))
        await arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.wait_for(gone.wait(), 20)


async def test_leaving_the_client_closes_its_connections(way: dict[str, Any]) -> None:
    gone = asyncio.Event()

    async def script(asked: Asked) -> None:
        await asked.send(ANSWER)
        await asked.gone()
        gone.set()

    async with raw.answering(script) as served:
        async with client(served.url, way) as asking:
            assert ended_as(await asking.send(REQUEST)) == OK
            assert not gone.is_set()
        await asyncio.wait_for(gone.wait(), 20)


@pytest.fixture
def refusing() -> Iterator[str]:
    """The URL of a port on which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("url", [None, "http://no-such-host.invalid:80"])
async def test_without_a_connection_nothing_was_sent(url: str | None, refusing: str, way: dict[str, Any]) -> None:
    async with client(url or refusing, way) as asking:
        ends = [await asking.send(REQUEST) for _ in range(2)]
    assert [(*ended_as(ended), ended.status) for ended in ends] == [(Outcome.FAIL, Ending.NOT_CONNECTED, None)] * 2
    assert all("not sent: " in ended.cause for ended in ends)


# Larger than the buffers of both sides.
LONG = Request("r-1", tuple(range(1 << 20)), Sampling(3, logprobs=2), Route.DECODE)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
@pytest.mark.parametrize(("status", "outcome"), [(b"413 Too Large", Outcome.FAIL), (b"503 Busy", Outcome.INFO)])
async def test_an_answer_that_comes_before_the_request_was_read_counts(
    status: bytes, outcome: Outcome, way: dict[str, Any]
) -> None:
    """The connection, on which the rest of the request is still under way, is not used again."""
    async with (
        raw.answering(sends(sized(b"too much", status)), reads_body=False) as served,
        client(served.url, way) as asking,
    ):
        for _ in range(2):
            ended = await asking.send(LONG)
            assert (ended.outcome, ended.cause) == (outcome, f"HTTP {int(status[:3])}: too much")
        assert served.connections == 2


async def test_the_request_is_the_same(way: dict[str, Any]) -> None:
    headers = {"Authorization": "Bearer secret", "X-Tenant": "größe"}
    async with (
        raw.answering(sends(ANSWER)) as served,
        client(served.url + "/base?key=1", way, headers=headers) as asking,
    ):
        await asking.send(REQUEST)
    (asked,) = served.asked
    line, *rest = asked.head.decode().strip().split("\r\n")
    assert line.startswith("POST /base?key=1/v1/completions HTTP/1.1")
    found = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
    assert len(found) == len(rest)
    del found["user-agent"], found["content-length"]
    assert found == {
        "host": served.url.removeprefix("http://"),
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "authorization": "Bearer secret",
        "x-tenant": "größe",
        "x-request-id": "r-1",
    }
    assert json.loads(asked.body)["prompt"] == [1, 2, 3]


async def test_a_large_answer_is_read_in_bounded_pieces(way: dict[str, Any]) -> None:
    """Eight megabytes of events in one stream; the client may not hold more than some of them unread."""
    pieces = [wire.sse(wire.completion_chunk([11] * 100, text="x" * 4000)) for _ in range(2000)]
    counts = wire.usage(3, 200_000)
    last = wire.sse(wire.completion_chunk([], finish="length"), counts) + wire.DONE
    ended = await ask(sends(CHUNKED + chunked(*pieces, last)), way)
    assert (*ended_as(ended), ended.cause) == (*OK, "")
    assert len(ended.choices[0].token_ids) == len(ended.token_times) == 200_000


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
@pytest.mark.parametrize("endless", [EVENTS[0], b"data: " + b"x" * 500, b"x" * 500, b"{" + b" " * 500])
async def test_an_answer_without_end_is_cut_off(
    endless: bytes, content_type: str, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_HELD", 1000)
    monkeypatch.setattr(size, "LARGEST_ANSWER", 100_000)

    async def script(asked: Asked) -> None:
        await asked.send(CHUNKED.replace(b"text/event-stream", content_type.encode()))
        with contextlib.suppress(ConnectionError):
            while True:
                await asked.send(b"%x\r\n%b\r\n" % (len(endless), endless))

    ended = await ask(script, way)
    assert ended_as(ended) == CUT
    assert "more than 100000 bytes" in ended.cause


async def test_of_a_refusal_without_end_the_beginning_is_quoted(
    way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(size, "LARGEST_REFUSAL", 10_000)

    async def script(asked: Asked) -> None:
        await asked.send(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000000000\r\n\r\nit says why ")
        with contextlib.suppress(ConnectionError):
            while True:
                await asked.send(b"and why " * 1000)

    ended = await ask(script, way)
    assert (ended.ending, ended.status) == (Ending.REFUSED, 500)
    assert ended.cause.startswith("HTTP 500: it says why and why ")


_ENDLESS_FRAMING = {
    "white space": (CHUNKED.replace(b"text/event-stream", b"application/json"), b"100\r\n" + b" " * 256 + b"\r\n"),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 100),
    "one header": (b"HTTP/1.1 200 OK\r\nX-Endless: ", b"a" * 4000),
    "a trailer": (CHUNKED + b"0\r\nX-Endless: ", b"a" * 4000),
    "a chunk extension": (CHUNKED + b"3;a=", b"a" * 4000),
}


@pytest.mark.parametrize("name", _ENDLESS_FRAMING)
async def test_what_surrounds_a_body_may_not_be_without_end_either(
    name: str, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LARGEST_HEAD", 100_000)
    monkeypatch.setattr(size, "LARGEST_REFUSAL", 10_000)
    if way.get("direct") is False and name in ("interim answers", "a trailer", "a chunk extension"):
        pytest.skip("aiohttp keeps none of these, and the time limit ends them")
    begin, endless = _ENDLESS_FRAMING[name]

    async def script(asked: Asked) -> None:
        await asked.send(begin)
        with contextlib.suppress(ConnectionError):
            while True:
                await asked.send(endless)

    ended = await ask(script, way)
    assert ended_as(ended) == CUT
    assert "too large" in ended.cause or "more than" in ended.cause or "Got more" in ended.cause


def whole_json(kind: bytes, spoken: Spoken) -> dict[str, Callable[[], bytes]]:
    text: wire.Json = {"text": "abc"} if spoken is COMPLETION else {"message": {"role": "assistant", "content": "abc"}}
    body = json.dumps(
        wire.completion_body(
            [{"index": 0, **text, "finish_reason": "length", "token_ids": [11, 12, 13]}],
            {"usage": {"prompt_tokens": 3, "completion_tokens": 3}},
        )
    ).encode()
    return {
        "a whole answer": lambda: sized(body, kind=kind),
        "after white space": lambda: sized(b" \r\n \n" + body, kind=kind),
        "a stream": lambda: sized(spoken.stream, kind=kind),
        "a stream after white space": lambda: sized(b"\n\n" + spoken.stream, kind=kind),
        "white space": lambda: sized(b" \n\n ", kind=kind),
        "nothing": lambda: sized(b"", kind=kind),
        "an error": lambda: sized(json.dumps(wire.ERROR).encode(), kind=kind),
    }


@pytest.mark.parametrize("name", whole_json(b"", COMPLETION))
@pytest.mark.parametrize("kind", [b"application/json", b"Application/JSON; charset=utf-8", b"application/problem+json"])
async def test_json_instead_of_a_stream(name: str, kind: bytes, spoken: Spoken, way: dict[str, Any]) -> None:
    answer = whole_json(kind, spoken)[name]()
    start = answer.index(b"\r\n\r\n") + 4
    ends = [
        await ask(
            sends(answer[:start], *(answer[at : at + size] for at in range(start, len(answer), size))),
            way,
            spoken.request,
        )
        for size in (1, 1 << 20)
    ]
    expected = Outcome.OK if "answer" in name or "stream" in name or name == "after white space" else Outcome.INFO
    assert {ended.outcome for ended in ends} == {expected}
    assert (
        known(ends[0])
        == known(ends[1])
        == known(await ask(sends(answer), WAYS["aiohttp, event by event"], spoken.request))
    )
