"""Arbitrary bytes from clients, P and D: the client is answered, D gets complete parameters only, nothing crashes."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from proxy_fakes import DEADLINE_S, PARAMS

from harness.proxy import ProxyHandle, start_proxy

SETTINGS = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
GOOD_BODY = b'{"prompt": [1, 2, 3], "stream": true}'
GOOD_PARAMS = json.dumps({"kv_transfer_params": PARAMS}).encode()


def answer(body: bytes, head: bytes = b"", status: bytes = b"200 OK", length: int | None = None) -> bytes:
    """The bytes of an HTTP answer; no part needs to be valid."""
    counted = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return b"HTTP/1.1 " + status + b"\r\n" + head + counted + b"Connection: close\r\n\r\n" + body


@dataclass
class Raw:
    """A server that answers every request with the same bytes, and then closes the connection."""

    response: bytes = b""
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            self.bodies.append(await reader.readexactly(length))
            writer.write(self.response)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            # The proxy closed the connection.
            pass
        finally:
            writer.close()


@dataclass
class Rig:
    """P, D and a proxy in an event loop of their own: Hypothesis needs synchronous tests."""

    runner: asyncio.Runner
    p: Raw
    d: Raw
    proxy: ProxyHandle
    records: list[logging.LogRecord]

    def ask(self, sent: bytes) -> bytes:
        """The proxy's whole answer to these bytes; asserts that the proxy logged no crash."""
        self.p.bodies.clear()
        self.d.bodies.clear()
        self.records.clear()
        answered = self.runner.run(self._ask(sent))
        crashes = [r.getMessage() for r in self.records if r.exc_info or r.levelno > logging.WARNING]
        assert crashes == []
        return answered

    async def _ask(self, sent: bytes) -> bytes:
        host, port = self.proxy.url.removeprefix("http://").split(":")
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(sent)
                return await reader.read()
            except ConnectionResetError:
                return b""
            finally:
                writer.close()

    def post(self, body: bytes, head: bytes = b"", path: bytes = b"/v1/completions") -> bytes:
        start = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n" % len(body)
        return self.ask(start + head + b"\r\n" + body)


class Keeping(logging.Handler):
    """Keeps every log record."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    kept = Keeping()
    logging.getLogger().addHandler(kept)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def up() -> Rig:
            raws = Raw(), Raw()
            for raw in raws:
                server = await stack.enter_async_context(await asyncio.start_server(raw.serve, "127.0.0.1", 0))
                raw.url = "http://{}:{}".format(*server.sockets[0].getsockname())
            proxy = await start_proxy([raws[0].url], [raws[1].url])
            stack.push_async_callback(proxy.stop)
            return Rig(runner, *raws, proxy, kept.records)

        yield runner.run(up())
        runner.run(stack.aclose())
    logging.getLogger().removeHandler(kept)


@pytest.fixture(autouse=True)
def _good(rig: Rig) -> None:
    rig.p.response, rig.d.response = answer(GOOD_PARAMS), answer(b"data: [DONE]\n\n")


def status_of(answered: bytes) -> int:
    assert answered.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")), answered
    return int(answered.split(b" ", 2)[1])


def require_complete(rig: Rig) -> None:
    """Every request to D has complete parameters, checked independently of the proxy's own code."""
    for raw in rig.d.bodies:
        params = json.loads(raw)["kv_transfer_params"]
        assert params["do_remote_prefill"] is True
        assert {type(params[name]) for name in ("remote_engine_id", "remote_request_id", "remote_host")} == {str}
        assert "" not in (params["remote_engine_id"], params["remote_request_id"], params["remote_host"])
        assert type(params["remote_port"]) is int
        flat = json.dumps(params["remote_block_ids"]).translate(str.maketrans("[],", "   ")).split()
        assert flat
        assert all(block.isdigit() for block in flat)


numbers = st.integers() | st.integers(10**60, 10**80) | st.floats() | st.just(1e999)
words = st.text(st.characters(), max_size=8)
scalars = st.none() | st.booleans() | numbers | words
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3))
FIELDS = (
    *("prompt", "messages", "prompt_embeds", "n", "max_tokens", "stream", "kv_transfer_params", "request_id"),
    *("truncate_prompt_tokens", "use_beam_search", "min_tokens", "temperature", "echo", "cache_salt"),
)
requests = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6).map(lambda body: json.dumps(body).encode())
nested = st.tuples(st.sampled_from(["[", '{"a":', '[{"a":']), st.integers(1, 200_000)).map(
    lambda deep: b'{"prompt":' + (deep[0] * deep[1]).encode()
)
# The JSON parser and the encoder reach their recursion limits at different depths.
closed = st.integers(50, 1200).map(lambda depth: b'{"prompt":"x","stop":' + b"[" * depth + b"]" * depth + b"}")
truncated = st.integers(50, 1200).map(lambda depth: b'{"truncate_prompt_tokens":' + b"[" * depth + b"]" * depth + b"}")
bodies = requests | nested | closed | truncated | st.binary(max_size=60) | values.map(lambda v: json.dumps(v).encode())
bodies |= st.sampled_from([b'{"n":' + b"9" * 5000 + b"}", b'\xef\xbb\xbf{"n":1}', b'{"n":NaN}', b'{"a":1}\x0b'])


@SETTINGS
@given(bodies, st.sampled_from([b"/v1/completions", b"/v1/chat/completions", b"/v1/%63ompletions?a=b"]))
def test_any_body_is_answered(rig: Rig, body: bytes, path: bytes) -> None:
    assert status_of(rig.post(body, path=path)) in (200, 400)
    require_complete(rig)


# Everything that a header's line may hold; a line end would end the header.
lines = st.binary(max_size=20).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
names = st.sampled_from(
    [
        *(b"X-Request-Id", b"Authorization", b"Content-Type", b"Content-Encoding", b"Transfer-Encoding", b"Expect"),
        *(b"Connection", b"Cookie", b"Set-Cookie", b"X-PD-Prefill", b"Upgrade", b"Content-Length", b"Date", b"Odd"),
    ]
)
known = st.sampled_from([b"gzip", b"deflate", b"br", b"chunked", b"close", b"upgrade", b"100-continue", b"\xff", b"0"])
heads = st.lists(st.tuples(names, lines | known), max_size=3).map(
    lambda pairs: b"".join(name + b": " + value + b"\r\n" for name, value in pairs)
)


@SETTINGS
@given(heads, st.sampled_from([GOOD_BODY, b"", b"x", b"0\r\n\r\n", b"zz\r\n"]))
def test_any_header_of_a_client_is_answered(rig: Rig, head: bytes, body: bytes) -> None:
    # If the headers announce more than the body holds, the client closes without an answer.
    answered = rig.post(body, head + b"Content-Length: %d\r\n" % len(body) if body == b"x" else head)
    assert not answered or 100 <= status_of(answered) <= 599
    require_complete(rig)


@SETTINGS
@given(st.binary(max_size=80), st.binary(max_size=20))
def test_bytes_that_are_not_http_are_refused(rig: Rig, first: bytes, second: bytes) -> None:
    answered = rig.ask(first + b"\r\n" + second + b"\r\n\r\n\x00\r\n\r\n")
    assert not answered or 400 <= status_of(answered) <= 599
    assert rig.p.bodies == []


odd_params = st.fixed_dictionaries(
    {}, optional={key: values | st.just(value) for key, value in PARAMS.items()}
).flatmap(lambda odd: st.booleans().map(lambda rest: {**(PARAMS if rest else {}), **odd}))
handovers = st.one_of(
    odd_params.map(lambda params: json.dumps({"kv_transfer_params": params}).encode()),
    values.map(lambda value: json.dumps({"kv_transfer_params": value, "error": value, "choices": value}).encode()),
    values.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=60),
    st.integers(50, 1200).map(
        lambda depth: GOOD_PARAMS.replace(b'"tp_size": 1', b'"tp_size":' + b"[" * depth + b"]" * depth)
    ),
)


@SETTINGS
@given(handovers)
def test_any_answer_of_p_is_handed_over_whole_or_not_at_all(rig: Rig, body: bytes) -> None:
    rig.p.response = answer(body)
    answered = rig.post(GOOD_BODY)
    assert (status_of(answered), len(rig.d.bodies)) in ((200, 1), (502, 0))
    require_complete(rig)


statuses = st.sampled_from([b"200 OK", b"404 No", b"204 None", b"304 Same", b"101 Switch", b"100 Go", b"999 ?"])
statuses |= st.sampled_from([b"500 \xff\xfe", b"200", b"302 Found", b"0 x", b"-1", b"200 O\x01K", b"600 x", b"99999 x"])
bodies_of_servers = st.binary(max_size=60) | st.sampled_from([b"data: {}\n\n", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffff"])
answers = st.builds(answer, bodies_of_servers, heads, statuses, st.none() | st.integers(0, 100))
answers |= st.binary(max_size=100) | st.binary(max_size=60).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest)


@SETTINGS
@given(answers, st.booleans())
def test_any_answer_of_a_server_reaches_the_client_or_is_502(rig: Rig, response: bytes, of_prefill: bool) -> None:
    (rig.p if of_prefill else rig.d).response = response
    assert 200 <= status_of(rig.post(GOOD_BODY)) <= 999
    require_complete(rig)
    status = rig.proxy.status()
    assert status["in_flight"] == 0
    assert sum(status["client_gone"].values()) == 0


@SETTINGS
@given(answers)
def test_any_answer_to_another_path_reaches_the_client_or_is_502(rig: Rig, response: bytes) -> None:
    rig.d.response = response
    assert 200 <= status_of(rig.ask(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) <= 999
    assert status_of(rig.ask(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) in (200, 503)
