"""Servers that answer in odd pieces, too early, too much, or not at all; and clients that read slowly."""

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest
from polling import until
from raw_http import HANDOVER, RawServer, Rig, Wire, answer, answers, post, raw_client, raw_server, rig

from harness.proxy import start_proxy
from harness.proxy.answer import MAX_HEAD_BYTES, Answer, Broken
from harness.proxy.pool import KEEPALIVE_S, Pool, ServerConnection

DONE = b'{"done": true}'
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MODELS = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"


async def ask(running: Rig, sent: bytes = MODELS) -> tuple[int, bytes]:
    async with raw_client(running.proxy.url) as client:
        client.send(sent)
        return await client.counted()


# --- in pieces ---


class Carrier:
    """Remembers what an answer asked of its connection."""

    aborted = False

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
WHOLE = {
    "counted": (OK + b"Content-Length: 5\r\nX:  y \r\n\r\nhello", b"hello", True),
    "chunked": (CHUNKED + b"2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: t\r\n\r\n", b"hello", True),
    "until close": (OK + b"\r\nhello", b"hello", False),
    "empty": (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "after an interim answer": (INTERIM + OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    "with a trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nX-Mine: t\r\n\r\n", b"hello", True),
    "the last one": (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
}

HEADERS = {
    WHOLE["counted"][0]: [(b"Content-Length", b"5"), (b"X", b"y")],
    WHOLE["with a trailer"][0]: [(b"Transfer-Encoding", b"chunked")],
    WHOLE["after an interim answer"][0]: [(b"Content-Length", b"5")],
}


@pytest.mark.parametrize(("raw", "body", "reusable"), WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_is_the_same_however_it_is_split(raw: bytes, body: bytes, reusable: bool) -> None:
    async def read(*parts: bytes) -> tuple[object, ...]:
        answered = Answer(Carrier())
        for part in parts:
            answered.feed(part)
        assert answered.ended is (reusable or b"close" in raw)
        if not answered.ended:
            answered.lost(None)
        return answered.status, answered.headers, await answered.whole(), answered.reusable

    once = await read(raw)
    assert once[2:] == (body, reusable)
    assert once[1] == HEADERS.get(raw, once[1])
    for at in range(len(raw)):
        assert await read(raw[:at], raw[at:]) == once
    assert await read(*(raw[at : at + 1] for at in range(len(raw)))) == once


@pytest.mark.parametrize("raw", [raw for raw, _, _ in WHOLE.values()], ids=WHOLE.keys())
async def test_an_answer_that_is_cut_anywhere_is_not_whole(raw: bytes) -> None:
    ends_with_connection = b"Content-Length" not in raw and b"chunked" not in raw and b"204" not in raw
    for at in range(len(raw)):
        answered = Answer(Carrier())
        answered.feed(raw[:at])
        # Where no length is given, only an error shows that an answer was cut.
        answered.lost(ConnectionResetError() if ends_with_connection else None)
        with pytest.raises((Broken, ConnectionResetError)):
            await answered.whole()


ODD = {
    "no HTTP": b"hello\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "length and chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip\r\n\r\nhello",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
    "a bad chunk size": CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n",
    "a long header": OK + b"X: " + b"x" * (2 * MAX_HEAD_BYTES),
    "nothing": b"",
}


@pytest.mark.parametrize("raw", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("of_p", [False, True])
async def test_what_is_no_answer_is_502_and_its_connection_is_not_used_again(raw: bytes, of_p: bool) -> None:
    async def once(wire: Wire) -> None:
        await wire.request()
        wire.writer.write(raw if not wire.number else answer(HANDOVER if of_p else DONE))
        if wire.number or not raw:
            return
        # Until the proxy closes the connection.
        await wire.reader.read()

    async with rig(answers(answer(DONE)) if of_p else once, once if of_p else None) as running:
        assert (await ask(running, post()))[0] == 502
        assert await ask(running, post()) == (200, DONE)
        odd = running.p if of_p else running.d
        assert odd.connections == 2
        assert running.proxy.status()["prefill" if of_p else "decode"][0]["broken"] == 1


@pytest.mark.parametrize("parts", [[answer(HANDOVER)], [CHUNKED + b"66\r\n" + b" " * 102 + b"\r\n", b"2\r\n"]])
async def test_an_answer_of_p_that_is_too_long_is_502(monkeypatch: pytest.MonkeyPatch, parts: list[bytes]) -> None:
    monkeypatch.setattr("harness.proxy.answer.MAX_WHOLE_BYTES", 100)
    monkeypatch.setattr("harness.proxy.pool.KEEPALIVE_S", 1000.0)
    async with rig(answers(answer(DONE)), answers(*parts)) as running:
        status, body = await ask(running, post())
        assert status == 502
        assert b"more than 100 bytes" in body
        # The connection is kept only if the answer has ended.
        await until(lambda: running.p.ended == len(parts) - 1)
        assert len(running.proxy._proxy._prefill[0].pool._idle) == 2 - len(parts)
        assert running.d.requests == []


@pytest.mark.parametrize("extra", [b"more", answer(b"a second answer"), b"\x00"])
async def test_bytes_after_an_answer_reach_no_client(extra: bytes) -> None:
    async with rig(answers(answer(DONE) + extra)) as running:
        for _ in range(3):
            async with raw_client(running.proxy.url) as client:
                client.send(post(b"{}", b"Connection: close"))
                await client.head()
                assert await client.rest() == DONE
        assert running.d.connections == 3


async def test_bytes_that_nobody_asked_for_close_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.proxy.pool.KEEPALIVE_S", 1000.0)

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.writer.write(answer(DONE))
        await wire.writer.drain()
        await go_on.wait()
        wire.writer.write(answer(b"for nobody"))
        assert await wire.reader.read() == b""

    go_on = asyncio.Event()
    async with rig(script) as running:
        assert await ask(running) == (200, DONE)
        go_on.set()
        await until(lambda: running.d.ended == 1)
        assert await ask(running) == (200, DONE)
        assert running.d.connections == 2


class Transport:
    """Remembers whether it is read."""

    reading = True

    def write(self, _data: bytes) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


async def test_a_connection_is_read_again_before_it_is_kept() -> None:
    """TLS may still deliver the end of an answer while the connection is paused."""
    pool = Pool("127.0.0.1", 1, tls=True)
    connection, transport = ServerConnection(pool), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]  # what the connection uses of a transport
    answered = connection.ask(b"GET / HTTP/1.1\r\n\r\n")
    answered.pause()
    assert not transport.reading
    connection.data_received(answer(DONE))
    assert transport.reading
    assert list(pool._idle) == [connection]
    connection.ask(b"GET / HTTP/1.1\r\n\r\n")
    answered.pause()
    assert transport.reading, "the connection carries another answer by now"
    pool._idle.clear()
    await pool.close()


# --- connections that end ---


async def test_a_connection_that_the_server_closed_while_idle_is_not_used() -> None:
    async def once(wire: Wire) -> None:
        await wire.request()
        wire.writer.write(answer(DONE))

    async with rig(once) as running:
        for number in range(5):
            assert await ask(running, post()) == (200, DONE)
            await until(lambda: not idle(running))
            assert running.d.connections == number + 1
        assert running.proxy.status()["decode"][0]["broken"] == 0


def idle(running: Rig) -> list[ServerConnection]:
    return list(running.proxy._proxy._decode[0].pool._idle)


@pytest.mark.parametrize(("sent", "status", "times"), [(post(path=b"/tokenize"), 502, 1), (MODELS, 200, 2)])
async def test_only_a_request_without_effects_is_sent_again(sent: bytes, status: int, times: int) -> None:
    """The server closes a kept connection just as it gets the next request on it."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            if len(wire.seen) == 2:
                return
            wire.writer.write(answer(DONE))

    async with rig(script) as running:
        assert await ask(running, sent) == (200, DONE)
        assert (await ask(running, sent))[0] == status
        assert len(running.d.requests) == 1 + times


async def test_idle_connections_are_closed_before_the_server_would() -> None:
    async with rig(answers(answer(DONE))) as running:
        assert await ask(running, post()) == (200, DONE)
        (connection,) = idle(running)
        pool = running.proxy._proxy._decode[0].pool
        pool._close_idle()
        assert idle(running) == [connection]
        connection.idle_since -= KEEPALIVE_S
        pool._close_idle()
        assert idle(running) == []
        await until(lambda: running.d.ended == 1)


async def test_an_answer_that_comes_before_the_request_was_read() -> None:
    """The rest of the request would be taken for the next one: the connection is closed."""

    async def early(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        wire.writer.write(answer(b"no", status=b"400 Bad Request"))
        await wire.writer.drain()
        await go_on.wait()

    go_on = asyncio.Event()
    async with rig(answers(answer(DONE)), early) as running:
        assert await ask(running, post(b'{"prompt": "' + b"x" * 10_000_000 + b'"}')) == (400, b"no")
        await until(lambda: not running.proxy._proxy._prefill[0].pool._in_use)
        assert not running.proxy._proxy._prefill[0].pool._idle
        go_on.set()


# --- framing ---


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_that_ends_with_the_servers_connection(version: bytes) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.writer.write(OK + b"Content-Type: text/plain\r\n\r\nhel")
        wire.writer.write(b"lo")

    async with rig(script) as running, raw_client(running.proxy.url) as client:
        client.send(post(b"{}", b"Connection: " + (b"close" if version == b"1.1" else b"keep-alive"), version=version))
        head = await client.head()
        body = await client.rest()
        assert (b"Transfer-Encoding: chunked" in head) is (version == b"1.1")
        assert body in {b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"}
        assert running.proxy.status()["decode"][0]["completed"] == 1


async def test_headers_of_the_servers_connection_do_not_reach_the_client() -> None:
    headers = (
        b"Connection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nX-Theirs: 2\r\nSet-Cookie: a\r\nSet-Cookie: b"
    )
    async with rig(answers(answer(DONE, headers))) as running, raw_client(running.proxy.url) as client:
        client.send(post())
        head = await client.head()
        assert b"X-Theirs: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n" in head
        assert not [name for name in (b"X-Mine", b"Keep-Alive", b"Connection") if name in head]


async def test_several_chunks_in_one_write_leave_in_one_chunk() -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (b"data: 1\n\n", b"data: 2\n\n"))
    async with rig(answers(CHUNKED + body + b"0\r\n\r\n")) as running, raw_client(running.proxy.url) as client:
        client.send(post(b"{}", b"Connection: close"))
        await client.head()
        assert await client.rest() == b"12\r\ndata: 1\n\ndata: 2\n\n\r\n0\r\n\r\n"


# --- a client that reads slowly ---

PART = b"x" * 65_536
PARTS = 800


async def test_a_client_that_reads_slowly_holds_the_server_back_and_loses_nothing() -> None:
    written = 0

    async def endless(wire: Wire) -> None:
        nonlocal written
        await wire.request()
        wire.writer.write(OK + b"Content-Length: %d\r\n\r\n" % (PARTS * len(PART)))
        for _ in range(PARTS):
            wire.writer.write(PART)
            await wire.writer.drain()
            written += len(PART)
        await wire.reader.read()

    async with rig(endless) as running, raw_client(running.proxy.url) as client:
        client.send(post())
        pool = running.proxy._proxy._decode[0].pool
        await until(lambda: any(connection._paused for connection in pool._in_use))
        (connection,) = running.proxy._listener._connections
        assert connection._transport.get_write_buffer_size() < 1 << 20
        await client.head()
        for _ in range(PARTS):
            assert await client.exactly(len(PART)) == PART
        assert written <= PARTS * len(PART)
        await until(lambda: running.proxy.status()["decode"][0]["completed"] == 1)
        assert not any(connection._paused for connection in idle(running))


async def test_a_client_that_stops_reading_and_leaves_frees_the_server() -> None:
    async def endless(wire: Wire) -> None:
        await wire.request()
        wire.writer.write(CHUNKED)
        while True:
            wire.writer.write(b"10000\r\n" + PART + b"\r\n")
            await wire.writer.drain()

    async with rig(endless) as running:
        pool = running.proxy._proxy._decode[0].pool
        async with raw_client(running.proxy.url) as client:
            client.send(post())
            await until(lambda: any(connection._paused for connection in pool._in_use))
        await until(lambda: running.d.ended == 1)
        await until(lambda: not running.proxy.status()["in_flight"])
        assert running.proxy.status()["client_gone"]["decode"] == 1


# --- the proxy stops ---


async def test_a_stopping_proxy_lets_an_answer_end_and_then_closes_its_connection() -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        wire.writer.write(CHUNKED + b"2\r\nhe\r\n")
        await go_on.wait()
        wire.writer.write(b"3\r\nllo\r\n0\r\n\r\n")
        await wire.reader.read()

    go_on = asyncio.Event()
    async with raw_server(answers(answer(HANDOVER))) as p, raw_server(script) as d:
        proxy = await start_proxy([p.url], [d.url])
        async with raw_client(proxy.url) as client, raw_client(proxy.url) as waiting:
            client.send(post())
            await client.head()
            stopping = asyncio.create_task(proxy.stop())
            assert await waiting.rest() == b""
            go_on.set()
            assert await client.rest() == b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
            await stopping
        assert proxy.status()["decode"][0]["completed"] == 1


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own for localhost, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, certified = folder / "key.pem", folder / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(certified), *names], check=True, capture_output=True, timeout=60
    )
    both = folder / "both.pem"
    both.write_text(key.read_text() + certified.read_text())
    return both


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_server_may_speak_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = RawServer(answers(answer(DONE)))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    async with raw_server(answers(answer(HANDOVER))) as p:
        proxy = await start_proxy([p.url], [f"https://localhost:{port}"])
        async with raw_client(proxy.url) as client:
            for _ in range(2):
                client.send(post())
                status, body = await client.counted()
                assert (status, body == DONE) == ((200, True) if trusted else (502, False))
        assert proxy.status()["decode"][0]["unreachable"] == (0 if trusted else 2)
        assert server.connections == (1 if trusted else 0)
        await proxy.stop()
    listening.close()
