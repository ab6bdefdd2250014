"""Liberties that gateways take with whole answers: no token is lost, and none of them is a failure of the servers."""

import gzip
import json
import zlib
from collections.abc import Callable

import counted_run as run
import load_wire as wire
import pytest
from aiohttp import web

from harness.checkers.completion import completion
from harness.clock import MonotonicClock
from harness.history import Ended, Ending, Outcome, Usage
from harness.load.client import Client
from harness.load.coding import Decoder, UnknownCoding
from harness.scenario import Request, Route, Sampling
from harness.verdict import Verdict

REQUEST = Request("r-1", (1, 2, 3), Sampling(3, logprobs=2))
WHOLE = wire.whole_stream()
EVENTS = WHOLE.removesuffix(wire.DONE)
FAILED = {"error": {"message": "KV transfer timed out on decode-1", "code": 500}}


async def ask(script: wire.Script, request: Request = REQUEST) -> Ended:
    async with (
        wire.serving(script) as url,
        Client({Route.PROXY: [url]}, model="m", clock=MonotonicClock(), timeout=20) as client,
    ):
        return await client.send(request)


def coded(coding: str, *pieces: bytes) -> wire.Script:
    return wire.streams(*pieces, headers={"Content-Encoding": coding})


def without_numbers(stream: bytes) -> bytes:
    return stream.replace(b'"index": 0, ', b"")


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    "stream",
    [
        EVENTS + b"data: [DONE]",
        EVENTS + b"data: [DONE]\n",
        EVENTS + b"data:[DONE]\r\n",
        EVENTS,
        EVENTS.rstrip(b"\n"),
        EVENTS.replace(b"\n", b"\r\n").removesuffix(b"\r\n"),
        b'event: ping\ndata: {"type": "ping"}\n\n' + WHOLE,
        wire.sse({"object": "heartbeat", "created": 1}) + WHOLE,
        EVENTS + b"event: ping\ndata: {}\n\n" + wire.DONE,
        without_numbers(WHOLE),
    ],
)
async def test_a_whole_answer_stays_one(stream: bytes) -> None:
    """A missing end marker, or empty line, a ping or a number that is left out loses no token."""
    ended = await ask(wire.streams(stream))
    assert (ended.outcome, ended.cause, ended.usage) == (Outcome.OK, "", Usage(3, 3))
    assert ended.choices[0].token_ids == (11, 12, 13)
    assert len(ended.token_times) == 3


@pytest.mark.parametrize(
    "stream",
    [
        wire.sse(*[wire.completion_chunk([token]) for token in (11, 12)]),
        wire.sse(wire.completion_chunk([11], finish="length")),
        wire.sse(wire.completion_chunk([11], finish="length"), wire.usage(3, 2)),
        wire.sse(wire.completion_chunk([], text="a", finish="length"), wire.usage(3, 1)),
        EVENTS[: len(EVENTS) // 2],
        EVENTS[:-10],
    ],
)
async def test_without_its_marker_an_answer_must_show_its_end(stream: bytes) -> None:
    """Without the end marker, finish reasons and the usage's count of tokens must both agree."""
    ended = await ask(wire.streams(stream))
    assert (ended.outcome, ended.ending) == (Outcome.INFO, Ending.UNFINISHED)
    assert "without its end marker" in ended.cause


async def test_every_choice_must_show_its_end() -> None:
    """One of two choices that never came is missed although the marker is missing too."""
    ended = await ask(
        wire.streams(wire.sse(wire.completion_chunk([11], finish="length"), wire.usage(3, 1))),
        Request("r-2", (1, 2, 3), Sampling(1, n=2)),
    )
    assert ended.ending is Ending.UNFINISHED


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP ", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("gzip", bytes),
        ("identity", bytes),
    ],
)
@pytest.mark.parametrize("size", [1 << 20, 1, 7])
async def test_what_was_compressed_on_the_way_is_read(coding: str, pack: Callable[[bytes], bytes], size: int) -> None:
    """Gzip and deflate are undone, however the bytes are split; a false name for plain bytes is passed over."""
    packed = pack(WHOLE)
    ended = await ask(coded(coding, *(packed[at : at + size] for at in range(0, len(packed), size))))
    assert (ended.outcome, ended.cause) == (Outcome.OK, "")
    assert ended.choices[0].token_ids == (11, 12, 13)


async def test_a_compressed_error_is_told_in_the_servers_words() -> None:
    """What a status other than 200 says is read as well."""

    async def refuses(_request: web.Request) -> web.Response:
        body = gzip.compress(json.dumps(FAILED).encode())
        return web.Response(status=503, body=body, headers={"Content-Encoding": "gzip"})

    assert "KV transfer timed out on decode-1" in (await ask(refuses)).cause


@pytest.mark.parametrize(
    "script", [coded("br", b"\x0b\x02"), coded("zstd", b"\x28"), coded("gzip", b"\x1f\x8b\xff" * 9)]
)
async def test_what_the_harness_cannot_undo_is_unknown(script: wire.Script) -> None:
    """Another coding, or a broken one, is not read, and that is held against nobody."""
    ended = await ask(script)
    assert (ended.outcome, ended.ending, ended.status) == (Outcome.INFO, Ending.UNREADABLE, 200)
    assert "content coding" in ended.cause
    lost = run.operation(run.request(0), outcome=Outcome.INFO, status=200, ending=Ending.UNREADABLE, choices=())
    assert completion(run.DEPLOYMENT, run.history(None, lost)).verdict is Verdict.UNKNOWN


def test_nothing_is_begun_by_nothing() -> None:
    """An empty read neither begins a coded body nor breaks it."""
    decoder = Decoder("gzip")
    assert decoder.feed(b"") == b""
    assert decoder.feed(gzip.compress(b"a")) == b"a"
    with pytest.raises(UnknownCoding):
        Decoder("br, gzip")


@pytest.mark.parametrize("said", [[FAILED], [{"id": 1}, FAILED], {"errors": [FAILED]}])
async def test_an_error_inside_a_list_is_told(said: object) -> None:
    """Some gateways wrap the error object in a list."""
    for script in (wire.streams(b"data: " + json.dumps(said).encode() + b"\n\n"), wire.answers(200, said)):
        ended = await ask(script)
        assert ended.ending is Ending.ERROR_INSIDE
        assert "KV transfer timed out on decode-1" in ended.cause


async def test_what_is_no_answer_is_quoted_where_none_came() -> None:
    """Of a body that is JSON and no answer, its own words are told."""
    ended = await ask(wire.answers(200, {"status": "queued", "position": 3}))
    assert (ended.ending, ended.choices) == (Ending.UNFINISHED, ())
    assert "queued" in ended.cause
