"""Deviations of gateways in whole answers: no token is lost, and none of them is a failure of the servers."""

import gzip
import json
import zlib
from collections.abc import Callable

import counted_run as run
import load_wire as wire
import pytest
from aiohttp import web
from load_wire import ask

from harness.checkers.completion import completion
from harness.history import Ending, Outcome, Usage
from harness.load.transport.coding import MOST_AT_ONCE, Decoder, UnknownCoding
from harness.scenario import Request, Sampling
from harness.verdict import Verdict

WHOLE = wire.whole_stream()
EVENTS = WHOLE.removesuffix(wire.DONE)
FAILED = {"error": {"message": "KV transfer timed out on decode-1", "code": 500}}


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
async def test_a_whole_answer_is_recognised(stream: bytes) -> None:
    """No token is lost by a missing end marker, empty line or index, or by a ping."""
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
async def test_an_answer_without_end_marker_must_show_its_end(stream: bytes) -> None:
    """It is whole only if every choice has its finish reason and the usage counts the tokens that arrived."""
    ended = await ask(wire.streams(stream))
    assert (ended.outcome, ended.ending) == (Outcome.INFO, Ending.UNFINISHED)
    assert "without its end marker" in ended.cause


async def test_without_end_marker_every_choice_must_show_its_end() -> None:
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
async def test_a_compressed_answer_is_read(coding: str, pack: Callable[[bytes], bytes], size: int) -> None:
    """Gzip and deflate are decoded, however the bytes are split; a wrong label on plain bytes is ignored."""
    packed = pack(WHOLE)
    ended = await ask(coded(coding, *(packed[at : at + size] for at in range(0, len(packed), size))))
    assert (ended.outcome, ended.cause) == (Outcome.OK, "")
    assert ended.choices[0].token_ids == (11, 12, 13)


async def test_a_compressed_error_is_quoted() -> None:
    async def refuses(_request: web.Request) -> web.Response:
        body = gzip.compress(json.dumps(FAILED).encode())
        return web.Response(status=503, body=body, headers={"Content-Encoding": "gzip"})

    assert "KV transfer timed out on decode-1" in (await ask(refuses)).cause


@pytest.mark.parametrize(
    "script", [coded("br", b"\x0b\x02"), coded("zstd", b"\x28"), coded("gzip", b"\x1f\x8b\xff" * 9)]
)
async def test_an_unknown_or_broken_coding_makes_the_verdict_unknown(script: wire.Script) -> None:
    ended = await ask(script)
    assert (ended.outcome, ended.ending, ended.status) == (Outcome.INFO, Ending.UNREADABLE, 200)
    assert "content coding" in ended.cause
    lost = run.operation(run.request(0), outcome=Outcome.INFO, status=200, ending=Ending.UNREADABLE, choices=())
    assert completion(run.DEPLOYMENT, run.history(None, lost)).verdict is Verdict.UNKNOWN


def test_an_empty_read_neither_begins_nor_breaks_a_compressed_body() -> None:
    decoder = Decoder("gzip")
    assert list(decoder.feed(b"")) == [b""]
    assert list(decoder.feed(gzip.compress(b"a"))) == [b"a"]
    with pytest.raises(UnknownCoding):
        Decoder("br, gzip")


@pytest.mark.parametrize("size", [MOST_AT_ONCE - 1, MOST_AT_ONCE, 5 * MOST_AT_ONCE, 5 * MOST_AT_ONCE + 1])
def test_a_thousandfold_compressed_body_is_decoded_whole_and_in_bounded_parts(size: int) -> None:
    parts = list(Decoder("gzip").feed(gzip.compress(b"a" * size)))
    assert max(map(len, parts)) <= MOST_AT_ONCE
    assert sum(map(len, parts)) == size


@pytest.mark.parametrize("error", [[FAILED], [{"id": 1}, FAILED], {"errors": [FAILED]}])
async def test_an_error_wrapped_in_a_list_is_quoted(error: object) -> None:
    for script in (wire.streams(b"data: " + json.dumps(error).encode() + b"\n\n"), wire.answers(200, error)):
        ended = await ask(script)
        assert ended.ending is Ending.ERROR_INSIDE
        assert "KV transfer timed out on decode-1" in ended.cause


async def test_a_json_body_that_is_not_an_answer_is_quoted() -> None:
    ended = await ask(wire.answers(200, {"status": "queued", "position": 3}))
    assert (ended.ending, ended.choices) == (Ending.UNFINISHED, ())
    assert "queued" in ended.cause
