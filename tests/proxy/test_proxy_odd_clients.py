"""Clients that send odd bytes, in odd pieces, or too many of them."""

import asyncio
import errno
import gzip
import zlib
from collections.abc import AsyncIterator

import pytest
from polling import until
from raw_http import Rig, answer, answers, post, raw_client, rig
from turns import turn

from harness.proxy import incoming
from harness.proxy.incoming import MAX_HEAD_BYTES, Incoming
from harness.proxy.pool import Pool, ServerConnection
from harness.proxy.request import Request

DONE = b'{"done": true}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
SECOND = b"POST /v1/completions HTTP/1.1\r\nHost: smuggled\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
async def served() -> AsyncIterator[Rig]:
    async with rig(answers(answer(DONE))) as running:
        yield running


# --- in pieces ---

TWO = (
    b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Odd:   y \r\nEmpty:\r\nContent-Length: 3\r\n\r\nabc"
    b"POST /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nde\r\n1\r\nf\r\n0\r\nTrailer: t\r\n\r\n"
)


async def requests(*parts: bytes) -> list[tuple[str, bytes, list[tuple[bytes, bytes]], bytes]]:
    arrived: list[Request] = []
    parser = Incoming(arrived.append)
    for part in parts:
        parser.feed(part)
    return [(one.method, one.target, list(one.headers), await one.body()) for one in arrived]


async def test_a_request_is_the_same_however_it_is_split() -> None:
    whole = await requests(TWO)
    assert [(target, body) for _, target, _, body in whole] == [(b"/a?b=c", b"abc"), (b"/d", b"def")]
    assert whole[0][2] == [(b"Host", b"x"), (b"X-Odd", b"y"), (b"Empty", b""), (b"Content-Length", b"3")]
    for at in range(len(TWO)):
        assert await requests(TWO[:at], TWO[at:]) == whole
    assert await requests(*(TWO[at : at + 1] for at in range(len(TWO)))) == whole


async def test_a_request_may_arrive_byte_by_byte(served: Rig) -> None:
    async with raw_client(served.proxy.url) as client:
        for at in range(len(sent := post(b'{"prompt": "x"}'))):
            client.send(sent[at : at + 1])
            await client.writer.drain()
            await turn()
        assert await client.counted() == (200, DONE)


# --- two servers could read these as different requests ---

SMUGGLING = {
    "length and chunked": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 0\r\n\r\n{}",
    "the same length twice": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a signed length": b"Content-Length: +2\r\n\r\n{}",
    "an empty length": b"Content-Length: \r\n\r\n",
    "a space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "a continued header": b"Content-Length: 2\r\nX: a\r\n b\r\n\r\n{}",
    "a bare line feed": b"X: a\nContent-Length: 2\r\n\r\n{}",
    "a bare carriage return": b"X: a\rContent-Length: 2\r\n\r\n",
    "a zero byte": b"X: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
    "another coding": b"Transfer-Encoding: gzip\r\n\r\n{}",
    "another coding before chunked": b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "almost chunked": b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a signed chunk size": b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a chunk size in another base": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a space before a chunk size": b"Transfer-Encoding: chunked\r\n\r\n 2\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}\r\n0\r\n\r\n",
    "a chunk size that overflows": b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk without a carriage return": b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
}


@pytest.mark.parametrize("rest", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(served: Rig, rest: bytes) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(HEAD + rest + SECOND)
        received = await client.rest()
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    assert b"Connection: close\r\n" in received
    assert served.p.requests == []


@pytest.mark.parametrize("line", [b"GET /health HTTP/2.0", b"GET /health HTTP/0.9", b"GET /health"])
async def test_other_versions_are_refused(served: Rig, line: bytes) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(line + b"\r\n\r\n")
        assert (await client.rest()).startswith(b"HTTP/1.1 505 ")


async def test_a_request_after_a_connections_last_one_is_not_served(served: Rig) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(post(b"{}", b"Connection: close") + SECOND)
        received = await client.rest()
    assert received.count(b"HTTP/1.1 200") == 1
    assert len(served.p.requests) == 1


@pytest.mark.parametrize("head", [b"Connection: upgrade\r\nUpgrade: h2c", b"Connection: upgrade\r\nUpgrade: websocket"])
async def test_another_protocol_is_not_spoken(served: Rig, head: bytes) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n" + SECOND)
        received = await client.rest()
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(DONE)
    assert b"pgrade" not in served.d.requests[0]
    assert served.p.requests == []


# --- one after another ---


async def test_requests_sent_at_once_are_served_in_turn(served: Rig) -> None:
    bodies = [b'{"prompt": "%d"}' % number for number in range(40)]
    async with raw_client(served.proxy.url) as client:
        client.send(b"".join(map(post, bodies)))
        assert [await client.counted() for _ in bodies] == [(200, DONE)] * len(bodies)
        client.send(post(b"last"))
        assert (await client.counted())[0] == 400
    assert [b'"prompt":"%d"' % number in served.p.requests[number] for number in range(40)] == [True] * 40
    assert served.p.connections == served.d.connections == 1


async def test_a_bad_request_behind_a_good_one_is_refused_after_its_answer(served: Rig) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(post() + b"no HTTP at all\r\n\r\n")
        assert await client.counted() == (200, DONE)
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_client_of_http_1_0_keeps_its_connection_only_if_it_asks_to(served: Rig) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(post(b"{}", b"Connection: keep-alive", version=b"1.0"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.0 200 OK\r\n")
        assert b"Connection: keep-alive\r\n" in head
        await client.exactly(len(DONE))
        client.send(post(b"{}", version=b"1.0"))
        assert (await client.rest()).endswith(b"Connection: close\r\n\r\n" + DONE)


async def test_head_has_the_headers_of_get_and_no_body(served: Rig) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(b"HEAD /proxy/status HTTP/1.1\r\nHost: x\r\n\r\nGET /proxy/status HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await client.head()
        status, body = await client.counted()
        assert (status, body[:1]) == (200, b"{")
        assert b"Content-Length: %d\r\n" % len(body) in head


@pytest.mark.parametrize("target", [b"http://h:1/v1/models?x=1", b"/v1/models?x=1#part", b"/v1/%6dodels?x=1"])
async def test_a_target_may_have_other_forms(served: Rig, target: bytes) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await client.counted() == (200, DONE)
        assert b"odels?x=1 HTTP/1.1\r\n" in served.d.requests[0]


@pytest.mark.parametrize(
    "target", [b"/v1/models", b"http://%b/v1/models", b"http://u:p@%b/v1/models", b"//%b/v1/models"]
)
async def test_no_client_makes_the_proxy_ask_another_host(served: Rig, target: bytes) -> None:
    """The servers are those of the command line, whatever target, Host and forwarding headers name."""
    asked: list[bool] = []
    async with await asyncio.start_server(lambda *_: asked.append(True), "127.0.0.1", 0) as elsewhere:
        place = b"127.0.0.1:%d" % elsewhere.sockets[0].getsockname()[1]
        async with raw_client(served.proxy.url) as client:
            named = (b"Host", b"X-Forwarded-Host", b"X-Forwarded-For", b"Forwarded", b"X-Original-URL")
            headers = b"".join(b"%b: %b\r\n" % (name, place) for name in named)
            client.send(b"GET " + target.replace(b"%b", place) + b" HTTP/1.1\r\n" + headers + b"\r\n")
            status, _ = await client.counted()
    assert asked == []
    # A path of two slashes is no address, and no path that the proxy knows.
    assert status == (404 if target.startswith(b"//") else 200)
    for sent in served.d.requests:
        assert sent.partition(b"\r\n")[0] == b"GET /v1/models HTTP/1.1"
        assert b"\r\nhost: " + place not in sent.lower()


# --- bodies ---


async def test_100_continue_comes_once_and_before_the_body(served: Rig) -> None:
    async with raw_client(served.proxy.url) as client:
        head, _, body = post(b"{}", b"Expect: 100-continue").partition(b"\r\n\r\n")
        client.send(head + b"\r\n\r\n")
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(body)
        assert await client.counted() == (200, DONE)
        assert b"xpect" not in served.p.requests[0]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_client_that_does_not_wait_gets_no_100_continue(served: Rig, version: bytes) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(post(b"{}", b"Expect: 100-continue", version=version))
        assert await client.counted() == (200, DONE)


CODED = {
    b"gzip": gzip.compress,
    b"x-gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"identity": bytes,
}


@pytest.mark.parametrize("coding", CODED)
async def test_a_compressed_body_is_passed_on_decoded(served: Rig, coding: bytes) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(post(CODED[coding](b'{"prompt": "x"}'), b"Content-Encoding: " + coding))
        assert await client.counted() == (200, DONE)
    assert served.d.requests[0].partition(b"\r\n\r\n")[2].startswith(b'{"prompt": "x"')
    assert b"ncoding: " + coding not in served.d.requests[0].replace(b"Accept-Encoding: identity", b"")


@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        (b"{}", b"zstd", 415),
        (b"{}", b"gzip", 400),
        (gzip.compress(b"{}")[:-9], b"gzip", 400),
        (gzip.compress(b"[" * 2000), b"gzip", 413),
    ],
    ids=["unknown", "not compressed", "cut", "too long"],
)
async def test_a_body_that_cannot_be_decoded_is_refused(
    served: Rig, monkeypatch: pytest.MonkeyPatch, body: bytes, coding: bytes, status: int
) -> None:
    monkeypatch.setattr("harness.proxy.request.MAX_DECODED_BYTES", 1000)
    async with raw_client(served.proxy.url) as client:
        client.send(post(body, b"Content-Encoding: " + coding))
        assert (await client.counted())[0] == status
    assert served.p.requests == []
    assert served.proxy.status()["rejected"] == 1


# --- too much ---

ENDLESS = {
    "target": (b"GET /", b"x", 431),
    "header": (b"GET / HTTP/1.1\r\nX: ", b"x", 431),
    "headers": (b"GET / HTTP/1.1\r\n", b"X: y\r\n", 431),
    "chunk extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2;", b"x", 431),
    "trailer": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: ", b"x", 431),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n", 431),
}


@pytest.mark.parametrize(("begin", "part", "status"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_never_ends_is_refused(served: Rig, begin: bytes, part: bytes, status: int) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(begin + part * (8 * MAX_HEAD_BYTES // len(part)))
        received = await client.rest()
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert served.p.requests == []


async def test_headers_that_end_are_refused_as_well_if_they_are_too_long(served: Rig) -> None:
    async with raw_client(served.proxy.url) as client:
        client.send(post(b"{}", b"X: " + b"x" * MAX_HEAD_BYTES) + SECOND)
        received = await client.rest()
    assert received.startswith(b"HTTP/1.1 431 ")
    assert received.count(b"HTTP/1.1") == 1
    assert served.p.requests == []


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_long_is_refused(served: Rig, monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    monkeypatch.setattr(incoming, "MAX_BODY_BYTES", 1000)
    # A length that is too long is refused before the body comes.
    rest = b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000 if chunked else b"Content-Length: 2000\r\n\r\n"
    async with raw_client(served.proxy.url) as client:
        client.send(HEAD + rest)
        received = await client.rest()
    assert received.startswith(b"HTTP/1.1 413 ")
    assert served.p.requests == []


async def test_a_client_that_goes_on_sending_still_reads_why_it_was_refused(served: Rig) -> None:
    """Closing a connection on which bytes still arrive would reset it, and destroy the answer on its way."""
    async with raw_client(served.proxy.url) as client:
        client.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 404 ")
        assert b"Connection: close\r\n" in head
        client.send(b"x" * 4_000_000)
        await client.writer.drain()
        assert b"The proxy does not serve POST /nowhere" in await client.rest()


async def test_of_requests_that_wait_for_their_turn_few_are_read() -> None:
    go_on = asyncio.Event()
    many = 4000

    async def late(wire: object) -> None:
        await go_on.wait()
        await answers(answer(DONE))(wire)  # type: ignore[arg-type]  # as every script

    async with rig(late) as held, raw_client(held.proxy.url) as client:
        (connection,) = await one_connection(held)
        client.send(post(b"[" * 10_000) * many)
        await until(lambda: not connection._transport.is_reading())
        assert len(connection._waiting) < many // 10
        client.writer.transport.abort()
        go_on.set()


async def one_connection(running: Rig) -> list[object]:
    connections = running.proxy._listener._connections
    await until(lambda: len(connections) == 1)
    return list(connections)


async def test_idle_connections_are_closed_late_and_half_a_request_early() -> None:
    async with rig(answers(answer(DONE))) as running, raw_client(running.proxy.url) as client:
        (connection,) = await one_connection(running)
        start = connection.since
        connection.close_if_idle(start + 61.0)
        client.send(post())
        assert await client.counted() == (200, DONE)
        client.send(b"POST /v1/comp")
        await until(lambda: not connection._incoming.between_requests)
        connection.close_if_idle(connection.since + 59.0)
        assert not connection._transport.is_closing()
        connection.close_if_idle(connection.since + 61.0)
        assert await client.rest() == b""


async def test_a_proxy_without_files_says_that_it_is_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(_: Pool, *, fresh: bool = False) -> ServerConnection:  # noqa: ARG001 - as in Pool
        raise OSError(errno.EMFILE, "Too many open files")

    async with rig(answers(answer(DONE))) as served:
        monkeypatch.setattr(Pool, "take", full)
        async with raw_client(served.proxy.url) as client:
            client.send(post(b'{"prompt": "x"}'))
            status, body = await client.counted()
    assert status == 507
    assert b"was not asked, since the proxy may open no more files" in body
    assert b"ulimit -n" in body
